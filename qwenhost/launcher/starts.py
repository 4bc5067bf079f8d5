"""How long a start should take: as earlier ones of the same engine on this machine, else by allowance."""

from __future__ import annotations

import contextlib
import hashlib
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from qwenhost.facts import Value
from qwenhost.files import NOT_JSON, write_atomically
from qwenhost.launcher.phases import Phase
from qwenhost.units import GB, format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.launcher.command import EngineCommand

KEPT_STARTS: Final = 5
KEPT_ENGINES: Final = 50
# Where an engine listens and what it is called does not change how long it takes to start.
_ADDRESS: Final = frozenset({"--host", "--port", "--served-model-name", "--ssl-certfile", "--ssl-keyfile"})


class Expectation(Value, frozen=True, kw_only=True):
    """When each phase of a start should begin, in seconds from the start of the process."""

    begins_s: Mapping[str, float]
    """By phase; those that nobody knows are missing. ``ready`` is always there."""
    basis: Literal["measured", "assumed"]
    source: str
    low_s: float
    """Ready at the earliest."""
    high_s: float

    @property
    def ready_s(self) -> float:
        """When the service should be ready."""
        return self.begins_s[Phase.READY]

    def end_of(self, phase: Phase) -> float:
        """When the next phase that is known should begin."""
        return min(at for name, at in self.begins_s.items() if Phase(name).order > phase.order)

    @property
    def sentence(self) -> str:
        """For people."""
        span = (
            f" ({format_seconds(self.low_s)} to {format_seconds(self.high_s)})"
            if self.low_s < self.high_s
            else ""
        )
        return f"ready after about {format_seconds(self.ready_s)}{span}, {self.basis}: {self.source}"


class Span(Value, frozen=True, kw_only=True):
    """A figure and its range."""

    value: float
    low: float
    high: float


class Allowance(Value, frozen=True, kw_only=True):
    """What a start takes where nothing was measured; figures and ranges of the profiles."""

    boot_s: Span
    read_gb_per_s: Span
    warmup_s: Span

    def of(self, weights_bytes: float) -> Expectation:
        """Seconds = boot + bytes / read rate + warm-up."""
        gigabytes = weights_bytes / GB
        loaded_s = self.boot_s.value + gigabytes / self.read_gb_per_s.value
        return Expectation(
            begins_s={
                Phase.WEIGHTS: self.boot_s.value,
                Phase.PROFILE: loaded_s,
                Phase.READY: loaded_s + self.warmup_s.value,
            },
            basis="assumed",
            source=(
                f"{format_seconds(self.boot_s.value)} to boot, {gigabytes:,.0f} GB of weights at "
                f"{self.read_gb_per_s.value:g} GB/s, {format_seconds(self.warmup_s.value)} to warm up"
            ),
            low_s=self.boot_s.low + gigabytes / self.read_gb_per_s.high + self.warmup_s.low,
            high_s=self.boot_s.high + gigabytes / self.read_gb_per_s.low + self.warmup_s.high,
        )


class _Start(Value, frozen=True, kw_only=True):
    at: str
    """ISO 8601, UTC."""
    begins_s: Mapping[str, float]


class Starts:
    """Earlier starts on this machine, kept in one file; a file that cannot be read or written is none.

    Args:
        file: ``starts.json`` of the state folder.
        allowance: for engines that were never started here; None = no expectation then.
    """

    def __init__(self, file: Path, allowance: Allowance | None = None) -> None:
        self._file = file
        self._allowance = allowance

    def expected(self, command: EngineCommand) -> Expectation | None:
        """Medians of the last starts of this engine, else the allowance for a planned one."""
        earlier = self._read().get(fingerprint(command), [])
        if earlier:
            return _medians(earlier)
        if self._allowance is None or command.candidate is None or command.engine != "vllm":
            return None
        return self._allowance.of(command.candidate.checkpoint.disk_bytes)

    def remember(self, command: EngineCommand, begins_s: Mapping[str, float], *, at: str) -> None:
        """Keep a start that became ready."""
        known = self._read()
        key = fingerprint(command)
        mine = [*known.pop(key, []), _Start(at=at, begins_s=begins_s)][-KEPT_STARTS:]
        kept = dict([*known.items(), (key, mine)][-KEPT_ENGINES:])
        with contextlib.suppress(OSError):
            write_atomically(self._file, msgspec.json.encode(kept), mode=0o600)

    def _read(self) -> dict[str, list[_Start]]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, list[_Start]])
        except (OSError, *NOT_JSON):
            return {}


def fingerprint(command: EngineCommand) -> str:
    """The same for engines that differ in address and names alone."""
    words: list[str] = []
    skipping = False
    for word in command.argv:
        if word.startswith("--"):
            skipping = word in _ADDRESS
        if not skipping:
            words.append(word)
    said = msgspec.json.encode([command.engine, command.target, words, dict(sorted(command.env.items()))])
    return hashlib.sha256(said).hexdigest()


def _medians(starts: list[_Start]) -> Expectation:
    names = [phase for phase in Phase if all(phase in start.begins_s for start in starts)]
    ready = [start.begins_s[Phase.READY] for start in starts]
    times = "start" if len(starts) == 1 else f"{len(starts)} starts, medians"
    return Expectation(
        begins_s={phase: statistics.median(start.begins_s[phase] for start in starts) for phase in names},
        basis="measured",
        source=f"last {times}, on this machine, until {starts[-1].at[:10]}",
        low_s=min(ready),
        high_s=max(ready),
    )
