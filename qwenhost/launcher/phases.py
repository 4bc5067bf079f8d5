"""vLLM's start-up log as phases, progress and memory figures.

The texts are those of vLLM 0.32 and 0.33; ``tests/logs`` holds real logs of 0.32.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Callable


class Phase(StrEnum):
    """Where a start is, in the order of vLLM's own start-up."""

    SPAWN = "spawn"
    PARSE = "parse"
    CONFIG = "config"
    ENGINE = "engine"
    WORKERS = "workers"
    DOWNLOAD = "download"
    WEIGHTS = "weights"
    PROFILE = "profile"
    COMPILE = "compile"
    KV = "kv"
    GRAPHS = "graphs"
    API = "api"
    READY = "ready"

    @property
    def order(self) -> int:
        """Position in the start-up."""
        return _ORDER[self]

    @property
    def label(self) -> str:
        """For people."""
        return _LABELS[self]


_ORDER: Final = {phase: i for i, phase in enumerate(Phase)}
_LABELS: Final = {
    Phase.SPAWN: "starting the process",
    Phase.PARSE: "reading the flags",
    Phase.CONFIG: "resolving the model",
    Phase.ENGINE: "starting the engine",
    Phase.WORKERS: "starting the workers",
    Phase.DOWNLOAD: "downloading weights",
    Phase.WEIGHTS: "loading weights",
    Phase.PROFILE: "profiling memory",
    Phase.COMPILE: "compiling",
    Phase.KV: "sizing the KV cache",
    Phase.GRAPHS: "warming up and capturing graphs",
    Phase.API: "opening the API",
    Phase.READY: "ready",
}

# First text of a phase. Several processes write at once, so a phase only moves forward.
_STARTS: Final[tuple[tuple[Phase, re.Pattern[str]], ...]] = tuple(
    (phase, re.compile(pattern))
    for phase, pattern in (
        (Phase.PARSE, r"█\s+version \d|non-default args: "),
        (Phase.CONFIG, r"Resolved architecture: |Using max model len "),
        (Phase.ENGINE, r"Initializing a V1 LLM engine"),
        (Phase.WORKERS, r"world_size=\d+ rank=\d+|rank \d+ in world size \d+"),
        (Phase.DOWNLOAD, r"Time spent downloading weights|Fetching \d+ files|\.safetensors: +\d+%\|"),
        (
            Phase.WEIGHTS,
            (
                r"Starting to load model |Loading model from scratch|Loading safetensors checkpoint shards"
                r"|Loading weights took|Model loading took"
            ),
        ),
        (Phase.PROFILE, r"Encoder cache will be initialized|Available RAM for profiling"),
        (
            Phase.COMPILE,
            r"Warming up model for the compilation|Dynamo bytecode transform time|torch\.compile",
        ),
        (Phase.KV, r"Available KV cache memory|KV cache size: |for KV cache on node"),
        (
            Phase.GRAPHS,
            (
                r"Capturing CUDA graphs|Compile and warming up model for size|Graph capturing finished"
                r"|init engine \(profile, create kv cache"
            ),
        ),
        (Phase.API, r"Supported tasks: |Starting vLLM (?:API )?server|Application startup complete"),
    )
)
# Configuration lines such as "disabling torch.compile" must not count as compiling.
_NOT_COMPILING: Final = re.compile(r"disabling torch\.compile|Inductor compilation was disabled")


class LogFigures(Value, frozen=True, kw_only=True):
    """The figures vLLM logs while it starts, as it prints them; None where a line has not come."""

    vllm_version: str | None = None
    max_model_len: int | None = None
    max_num_batched_tokens: int | None = None
    checkpoint_gib: float | None = None
    load_weights_s: float | None = None
    model_loading_gib: float | None = None
    """Per GPU; the largest of the ranks."""
    block_size: int | None = None
    """Tokens per attention block of a hybrid model."""
    available_kv_gib: float | None = None
    """Per GPU; the smallest of the ranks."""
    kv_cache_tokens: int | None = None
    concurrency_at_max_model_len: float | None = None
    cudagraph_gib: float | None = None
    compile_s: float | None = None
    init_engine_s: float | None = None


class _Figure(Value, frozen=True, kw_only=True):
    field: str
    pattern: re.Pattern[str]
    kind: type
    keep: str = "last"


def _figure(field: str, pattern: str, kind: type, keep: str = "last") -> _Figure:
    return _Figure(field=field, pattern=re.compile(pattern), kind=kind, keep=keep)


_NUMBER: Final = r"(\d[\d,]{0,20}(?:\.\d+)?)"
_FIGURES: Final = (
    _figure("vllm_version", r"█\s+version (\S+)", str),
    # A draft model logs its own length after the target's.
    _figure("max_model_len", rf"Using max model len {_NUMBER}", int, "first"),
    _figure("max_num_batched_tokens", rf"max_num_batched_tokens={_NUMBER}", int),
    _figure("checkpoint_gib", rf"Checkpoint size: {_NUMBER} GiB", float),
    _figure("load_weights_s", rf"Loading weights took {_NUMBER} seconds", float, "max"),
    _figure("model_loading_gib", rf"Model loading took {_NUMBER} GiB", float, "max"),
    _figure("block_size", rf"Setting attention block size to {_NUMBER} tokens", int),
    _figure("available_kv_gib", rf"Available KV cache memory: {_NUMBER} GiB", float, "min"),
    _figure("available_kv_gib", rf"Explicitly set \({_NUMBER}/", float, "min"),
    _figure("kv_cache_tokens", rf"[A-Z]+ KV cache size: {_NUMBER} tokens", int, "min"),
    _figure(
        "concurrency_at_max_model_len",
        rf"Maximum concurrency for [\d,]+ tokens per request: {_NUMBER}x",
        float,
        "min",
    ),
    _figure("cudagraph_gib", rf"Graph capturing finished in \S+ secs?, took {_NUMBER} GiB", float, "max"),
    _figure("compile_s", rf"torch\.compile took {_NUMBER} s", float, "max"),
    _figure("init_engine_s", rf"init engine \([^)]*\) took {_NUMBER} s", float, "max"),
)

_ANSI: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX: Final = re.compile(
    r"^(?:\((?P<process>[^()]*?) pid=\d+\) ?)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? \[[^\]]*\] ?)?"
)
_SHARDS: Final = re.compile(r"checkpoint shards: +\d+% Completed \| (\d{1,9})/(\d{1,9})")
_CAPTURES: Final = re.compile(r"Capturing CUDA graphs.*?\| (\d{1,9})/(\d{1,9})")


class LogLine(Value, frozen=True, kw_only=True):
    """One line without its colour and prefix."""

    process: str
    """``APIServer``, ``EngineCore``, ``Worker_TP0``...; empty where the line has no prefix."""
    level: str
    """``INFO``, ``ERROR``...; empty where the line has none (tracebacks, uvicorn, tqdm)."""
    text: str


def split_line(raw: str) -> LogLine:
    """Take a line of vLLM's log apart."""
    plain = _ANSI.sub("", raw).rstrip()
    match = _PREFIX.match(plain)
    if match is None:  # the pattern matches the empty string; for the type checker
        return LogLine(process="", level="", text=plain)
    return LogLine(
        process=match["process"] or "",
        level=match["level"] or "",
        text=plain[match.end() :],
    )


class StartProgress(Value, frozen=True, kw_only=True):
    """How far a start has come."""

    phase: Phase = Phase.SPAWN
    done: int | None = None
    """Shards loaded or graphs captured, of ``total``."""
    total: int | None = None
    figures: LogFigures = LogFigures()

    @property
    def label(self) -> str:
        """For people, e.g. ``loading weights 3/39``."""
        count = f" {self.done}/{self.total}" if self.total else ""
        return f"{self.phase.label}{count}"

    def after(self, line: LogLine) -> StartProgress:
        """The progress once this line was read; ``self`` if it says nothing."""
        phase = self._phase_after(line.text)
        moved = phase is not self.phase
        done, total = (None, None) if moved else (self.done, self.total)
        for pattern in (_SHARDS, _CAPTURES):
            if count := pattern.search(line.text):
                done, total = int(count[1]), int(count[2])
        figures = _figures_after(self.figures, line.text)
        if not moved and figures is self.figures and (done, total) == (self.done, self.total):
            return self
        return StartProgress(phase=phase, done=done, total=total, figures=figures)

    def _phase_after(self, text: str) -> Phase:
        for phase, pattern in _STARTS:
            if phase.order > self.phase.order and pattern.search(text):
                if phase is Phase.COMPILE and _NOT_COMPILING.search(text):
                    continue
                return phase
        return self.phase


def read_log(text: str) -> StartProgress:
    """The progress after a whole log."""
    progress = StartProgress()
    for raw in re.split(r"[\r\n]+", text):
        progress = progress.after(split_line(raw))
    return progress


def _first(before: Any, value: Any) -> Any:
    del value
    return before


_KEEP: Final[dict[str, Callable[[Any, Any], Any]]] = {"max": max, "min": min, "first": _first}


def _figures_after(figures: LogFigures, text: str) -> LogFigures:
    changes: dict[str, object] = {}
    for figure in _FIGURES:
        match = figure.pattern.search(text)
        if match is None:
            continue
        value = match[1] if figure.kind is str else figure.kind(float(match[1].replace(",", "")))
        before = getattr(figures, figure.field)
        if before is not None and figure.keep != "last":
            value = _KEEP[figure.keep](before, value)
        if value != before:
            changes[figure.field] = value
    return msgspec.structs.replace(figures, **changes) if changes else figures
