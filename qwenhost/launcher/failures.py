"""Why an engine failed: vLLM's log and exit code to a cause, a remedy and a fallback.

The root cause stands somewhere in the middle of the log; its end says only "Engine core initialization
failed". So every line is held against a table, and the first line of the best rank wins. The texts are
vLLM's own (0.32 and 0.33); ``tests/launcher/test_failures.py`` holds one example of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError
from qwenhost.facts import Value
from qwenhost.launcher.failure_rules import RESTART, RULES
from qwenhost.launcher.phases import LogLine, Phase, StartProgress, split_line
from qwenhost.launcher.rule import Rank, Rule, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_CAUSE_CHARS: Final = 500


class Failure(Value, frozen=True, kw_only=True):
    """A classified end of an engine."""

    kind: str
    cause: str
    """The log line that names the cause, without its prefix; empty where only the exit code speaks."""
    remedy: str
    trigger: Trigger | None = None
    """Which of the plan's fallbacks may help."""
    transient: bool = False
    """Whether the same start may succeed later."""
    bad_input: bool = False
    """Whether a flag or path of the user's is to blame."""
    exit_code: int | None = None

    @property
    def message(self) -> str:
        """One sentence for people."""
        what = self.kind.replace("_", " ")
        return f"the engine failed: {what}" + (f": {self.cause}" if self.cause else "")

    def to_error(self, *, log: str) -> QwenhostError:
        """As an error of the command line."""
        remedy = f"{self.remedy} The whole log: {log}"
        kind = BadInputError if self.bad_input else UnavailableError
        return kind(self.message, remedy=remedy)


# pydantic prints the reason on the line after "ValidationError".
_PYDANTIC: Final = re.compile(r"^\s*Value error, (?P<reason>.*?)(?: \[type=|$)")


@dataclass
class FailureScanner:
    """Reads a log line by line and remembers the best explanation."""

    _best: tuple[Rank, Rule, str, dict[str, str]] | None = None
    _phase: Phase = Phase.SPAWN

    def feed(self, line: LogLine, phase: Phase | None = None) -> None:
        """Take a line into account; ``phase`` is where the start stood."""
        if self._best and self._best[0] is Rank.CAUSE:
            return
        text = _statement(line)
        for rule in RULES if text else ():
            if match := rule.pattern.search(text):
                if self._best is None or rule.rank < self._best[0]:
                    groups = {k: v if v is not None else "what fits" for k, v in match.groupdict().items()}
                    self._best = (rule.rank, rule, text[:MAX_CAUSE_CHARS], groups)
                    self._phase = phase or self._phase
                return

    @property
    def found(self) -> bool:
        """Whether some line explained anything."""
        return self._best is not None

    def failure(self, exit_code: int | None) -> Failure:
        """The best explanation, else what the exit code says (negative: killed by that signal)."""
        if self._best is None:
            return _from_exit_code(exit_code)
        _, rule, cause, groups = self._best
        graphs = self._phase is Phase.GRAPHS and rule.graphs_trigger is not None
        return Failure(
            kind=rule.kind,
            cause=cause,
            remedy=rule.remedy.format(**groups),
            trigger=rule.graphs_trigger if graphs else rule.trigger,
            transient=rule.transient,
            bad_input=rule.bad_input,
            exit_code=exit_code,
        )


def classify(lines: Iterable[str], exit_code: int | None = None) -> Failure:
    """The explanation of a whole log."""
    scanner, progress = FailureScanner(), StartProgress()
    for raw in lines:
        line = split_line(raw)
        progress = progress.after(line)
        scanner.feed(line, progress.phase)
    return scanner.failure(exit_code)


def not_executable(detail: str) -> Failure:
    """The engine's program cannot be run."""
    remedy = "Name vLLM's program with --vllm-bin."
    return Failure(kind="not_executable", cause=detail, remedy=remedy, bad_input=True)


def hung(seconds: float) -> Failure:
    """Requests run, the API answers, but no counter has moved."""
    return Failure(
        kind="hung",
        cause=f"requests were running but no token came for {seconds:.0f} s",
        remedy=RESTART,
        transient=True,
    )


def unhealthy(detail: str) -> Failure:
    """The engine's process lives but /health does not say so."""
    return Failure(kind="unhealthy", cause=detail, remedy=RESTART, transient=True)


def not_serving(detail: str) -> Failure:
    """The API is up but the first completion failed; another start would fail alike."""
    return Failure(
        kind="not_serving",
        cause=f"the first completion failed: {detail}",
        remedy="See what the engine logged about that request.",
    )


def not_ready(seconds: float, progress: StartProgress) -> Failure:
    """The start took longer than allowed."""
    return Failure(
        kind="not_ready_in_time",
        cause=f"not ready after {seconds:.0f} s; it stood at: {progress.label}",
        remedy="Raise --ready-timeout, or see the log for what it waits for.",
    )


def _statement(line: LogLine) -> str:
    """What a line says about a failure; empty for notices, warnings and the frames of a traceback."""
    if reason := _PYDANTIC.match(line.text):
        return f"ValueError: {reason['reason']}"
    notice = line.level in ("DEBUG", "INFO", "WARNING") or line.text.startswith("INFO: ")
    return "" if notice or line.text.startswith("  ") else line.text.strip()


def _from_exit_code(exit_code: int | None) -> Failure:
    if exit_code == -9:
        return Failure(
            kind="killed",
            cause="the engine was killed (signal 9)",
            remedy="Usually the kernel ended it for want of host memory: see dmesg; give it more RAM.",
            transient=True,
            exit_code=exit_code,
        )
    if exit_code is not None and exit_code < 0:
        return Failure(
            kind="crashed",
            cause=f"the engine ended by signal {-exit_code}",
            remedy=RESTART,
            transient=True,
            exit_code=exit_code,
        )
    said = "an exit code of 0, unrequested" if exit_code == 0 else f"exit code {exit_code}"
    return Failure(
        kind="exited",
        cause=f"the engine ended with {said} and logged no error",
        remedy="See the end of the log.",
        transient=exit_code == 0,
        exit_code=exit_code,
    )
