"""Why an engine failed: vLLM's log and exit code to a cause, a remedy and a fallback.

The root cause stands somewhere in the middle of the log; its end says only "Engine core initialization
failed". So every line is held against a table, and the first line of the best rank wins. The texts are
vLLM's own (0.32 and 0.33); ``tests/launcher/test_failures.py`` holds one example of each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError
from qwenhost.facts import Value
from qwenhost.launcher.phases import LogLine, Phase, StartProgress, split_line

if TYPE_CHECKING:
    from collections.abc import Iterable

Trigger = Literal[
    "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
]
"""The triggers of ``qwenhost.plan.Fallback``."""

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


class _Rank(IntEnum):
    """Which line is believed first: a known cause, any exception, a known consequence, a wrapper."""

    CAUSE = 0
    EXCEPTION = 1
    CONSEQUENCE = 2
    WRAPPER = 3


@dataclass(frozen=True, kw_only=True)
class _Rule:
    kind: str
    pattern: re.Pattern[str]
    remedy: str
    """Formatted with the pattern's groups."""
    trigger: Trigger | None = None
    graphs_trigger: Trigger | None = None
    """Taken instead of ``trigger`` while graphs are captured."""
    transient: bool = False
    bad_input: bool = False
    rank: _Rank = _Rank.CAUSE


def _rule(
    kind: str,
    pattern: str,
    remedy: str,
    *,
    trigger: Trigger | None = None,
    graphs_trigger: Trigger | None = None,
    transient: bool = False,
    bad_input: bool = False,
    rank: _Rank = _Rank.CAUSE,
) -> _Rule:
    return _Rule(
        kind=kind,
        pattern=re.compile(pattern),
        remedy=remedy,
        trigger=trigger,
        graphs_trigger=graphs_trigger,
        transient=transient,
        bad_input=bad_input,
        rank=rank,
    )


_LOWER_TP: Final = "Plan with a smaller --tensor-parallel-size, or with expert parallelism."
_RESTART: Final = "The supervisor restarts it; if it comes again, report the log to vLLM."

_RULES: Final = (
    # --- memory: the plan carries sized fallbacks for these
    _rule(
        "kv_cache_too_small",
        r"To serve at least one request with the model's max seq len \((?P<wanted>\d+)\)"
        r".*?(?:estimated maximum model length is (?P<fits>\d+)|$)",
        "Lower --max-model-len to {fits} or less, or plan with an FP8 KV cache or more GPUs.",
        trigger="kv_cache_too_small",
    ),
    _rule(
        "no_kv_cache_memory",
        r"No available memory for the cache blocks",
        "The weights and activations fill the GPU: plan with more GPUs or a smaller checkpoint.",
        trigger="kv_cache_too_small",
    ),
    _rule(
        "no_kv_cache_memory",
        r"Cannot auto-fit max_model_len",
        "The weights and activations fill the GPU: plan with more GPUs or a smaller checkpoint.",
        trigger="kv_cache_too_small",
    ),
    _rule(
        "state_blocks_too_few",
        r"max_num_seqs \((?P<wanted>\d+)\) exceeds available Mamba cache blocks \((?P<have>\d+)\)",
        "Lower --max-num-seqs to {have} or less.",
        trigger="state_blocks_too_few",
    ),
    _rule(
        "gpu_memory_held",
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) "
        r"on startup is less",
        "Another process holds memory on {device} ({free} of {total} GiB free): end it (qwenhost inspect "
        "names it), or lower --gpu-memory-utilization.",
        transient=True,
    ),
    _rule(
        "gpu_memory_moved",
        r"Error in memory profiling\. Initial free memory",
        "Another process freed GPU memory while vLLM measured; start again when it has ended.",
        transient=True,
    ),
    _rule(
        "out_of_memory",
        r"warming up sampler with (?P<rows>\d+) dummy requests",
        "Halve --max-num-seqs.",
        trigger="out_of_memory",
    ),
    _rule(
        "out_of_memory",
        r"(?:OutOfMemoryError: )?(?:CUDA|HIP) out of memory|OutOfMemoryError: |not enough GPU memory",
        "Plan with more GPUs, a smaller checkpoint or a lower --gpu-memory-utilization.",
        trigger="out_of_memory",
        graphs_trigger="cudagraph_failure",
    ),
    _rule(
        "cudagraph_failure",
        r"operation not permitted when stream is capturing|cudaErrorStreamCapture|graph capture failed",
        "Start with --enforce-eager, or lower --max-cudagraph-capture-size.",
        trigger="cudagraph_failure",
    ),
    # --- driver and hardware
    _rule(
        "gpu_fault",
        r"NVRM: Xid|uncorrectable ECC error|GPU has fallen off the bus|ECC error encountered"
        r"|CUDA error: (?:unspecified launch failure|device-side assert triggered|unknown error)",
        "The GPU or its driver reported a fault: see dmesg and nvidia-smi -q; reset or exchange the GPU.",
        transient=True,
    ),
    _rule(
        "driver_too_old",
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "Install the NVIDIA driver that this vLLM build's CUDA needs: qwenhost doctor",
    ),
    _rule(
        "no_gpu",
        r"Found no NVIDIA driver|No CUDA GPUs are available|Failed to infer device type",
        "vLLM sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or serve with --target cpu.",
    ),
    _rule(
        "interconnect_failure",
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError|NCCL WARN .*(?:fail|error)",
        "GPUs cannot talk to one another: set NCCL_DEBUG=INFO, check /dev/shm and the NVLink state.",
        transient=True,
    ),
    # --- kernels and shapes
    _rule(
        "checkpoint_not_supported",
        r"quantization method (?P<method>\S+) is not supported for the current GPU",
        "Plan with another checkpoint: this GPU has no kernels for {method}.",
        trigger="kernel_failure",
    ),
    _rule(
        "kernel_failure",
        r"fp8e4nv not supported|Unsupported lhs dtype fp8e4nv",
        "Start with --extra-arg --moe-backend --extra-arg marlin, or plan with another checkpoint.",
        trigger="kernel_failure",
    ),
    _rule(
        "kernel_failure",
        r"No valid attention backend found|Selected backend \S+ is not valid for this configuration",
        "Leave out --attention-backend and take the KV-cache type auto.",
        trigger="kernel_failure",
    ),
    _rule(
        "kernel_failure",
        r"no kernel image is available|illegal memory access|CUDA error: invalid (?:argument|configuration)",
        "A kernel does not run on this GPU: plan with another checkpoint or --gdn-prefill-backend triton.",
        trigger="kernel_failure",
        transient=True,
    ),
    _rule(
        "shape_not_divisible",
        r"is not divisible by weight quantization block|Weight (?:in|out)put_size_per_partition = ",
        _LOWER_TP,
    ),
    _rule(
        "shape_not_divisible",
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<tp>\d+)\)",
        "{heads} attention heads cannot be split by {tp}: use a --tensor-parallel-size that divides them.",
        bad_input=True,
    ),
    _rule(
        "too_few_gpus",
        r"World size \((?P<world>\d+)\) is larger than the number of available GPUs \((?P<have>\d+)\)",
        "The plan needs {world} GPUs and vLLM sees {have}: plan again on this machine.",
        bad_input=True,
    ),
    # --- flags and paths
    _rule(
        "bad_flag",
        r"error: unrecognized arguments: (?P<flags>.*)",
        "This vLLM does not know {flags}: leave it out, or use the vLLM version of the plan.",
        bad_input=True,
    ),
    _rule(
        "bad_flag",
        r"^[\w. -]+: error: (?P<what>.*)",
        "Correct the flag: {what}.",
        bad_input=True,
    ),
    _rule(
        "bad_flag",
        r"--enable-auto-tool-choice requires --tool-call-parser",
        "Give --tool-call-parser too.",
        bad_input=True,
    ),
    _rule(
        "context_too_long",
        r"User-specified max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len",
        "Lower --max-model-len, or extend the context with YaRN as the model card says.",
        bad_input=True,
    ),
    _rule(
        "port_in_use",
        r"\[Errno 98\].*[Aa]ddress already in use",
        "Choose another --port, or stop what listens there.",
        bad_input=True,
    ),
    _rule(
        "host_not_local",
        r"\[Errno 99\] Cannot assign requested address",
        "--host must be an address of this machine.",
        bad_input=True,
    ),
    # --- weights
    _rule(
        "download_refused",
        r"GatedRepoError|401 Client Error|403 Client Error",
        "Accept the model's terms on its page and set HF_TOKEN.",
    ),
    _rule(
        "model_not_found",
        r"(?:Local|Remote)EntryNotFoundError|RepositoryNotFoundError|RevisionNotFoundError"
        r"|Repo id must be in the form",
        "Check the repository name or give an existing directory with --model.",
        bad_input=True,
    ),
    _rule(
        "weights_missing",
        r"Cannot find any model weights with",
        "Fetch the weights again; the directory holds no safetensors.",
        bad_input=True,
    ),
    _rule(
        "weights_damaged",
        r"SafetensorError|Error while deserializing header|MetadataIncompleteBuffer|HeaderTooLarge",
        "A shard is damaged: delete it and start again, it is fetched anew.",
    ),
    _rule(
        "shared_memory_full",
        r"No space left on device.*?/dev/shm|Bus error|unable to (?:open|resize|allocate) shared memory",
        "Enlarge /dev/shm (docker: --shm-size 16g or --ipc host).",
    ),
    _rule("disk_full", r"No space left on device", "Free disk space at the model cache."),
    _rule(
        "too_many_open_files",
        r"Too many open files",
        "Raise the limit: ulimit -n 65536.",
    ),
    # --- installation
    _rule(
        "vllm_too_old",
        r"Model architectures \[.*\] are not supported for now|does not recognize this architecture",
        "Install the vLLM version of the plan: qwenhost doctor",
    ),
    _rule(
        "vllm_broken",
        r"Model architectures \[.*\] failed to be inspected|operator torchvision::\w+ does not exist"
        r"|No package metadata was found for vllm|undefined symbol: ",
        "vLLM's installation does not fit together; install it anew in an environment of its own.",
    ),
    # --- consequences: believed when nothing above was logged
    _rule(
        "start_timed_out",
        r"Timed out waiting for engine core processes to start",
        "Raise VLLM_ENGINE_READY_TIMEOUT_S if the disk is slow; see the log for where it stood.",
        transient=True,
        rank=_Rank.CONSEQUENCE,
    ),
    _rule(
        "worker_died",
        r"Worker proc \S+ died unexpectedly",
        _RESTART,
        transient=True,
        rank=_Rank.CONSEQUENCE,
    ),
    _rule(
        "engine_died",
        r"EngineCore encountered (?:a fatal error|an issue)|EngineDeadError",
        _RESTART,
        transient=True,
        rank=_Rank.CONSEQUENCE,
    ),
    _rule(
        "start_failed",
        r"Engine core initialization failed|WorkerProc initialization failed",
        "The log above the last lines names the cause.",
        rank=_Rank.WRAPPER,
    ),
    # Any exception: after the tables so that a known text has its own name.
    _rule(
        "exception",
        r"^(?!KeyboardInterrupt)(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception)(?:: .*)?$",
        "Not a failure this version knows: search vLLM's issues for the line.",
        rank=_Rank.EXCEPTION,
    ),
)
# pydantic prints the reason on the line after "ValidationError".
_PYDANTIC: Final = re.compile(r"^\s*Value error, (?P<reason>.*?)(?: \[type=|$)")


@dataclass
class FailureScanner:
    """Reads a log line by line and remembers the best explanation."""

    _best: tuple[_Rank, _Rule, str, dict[str, str]] | None = None
    _phase: Phase = Phase.SPAWN

    def feed(self, line: LogLine, phase: Phase | None = None) -> None:
        """Take a line into account; ``phase`` is where the start stood."""
        if self._best and self._best[0] is _Rank.CAUSE:
            return
        text = _statement(line)
        for rule in _RULES if text else ():
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


def hung(seconds: float) -> Failure:
    """Requests run, the API answers, but no counter has moved."""
    return Failure(
        kind="hung",
        cause=f"requests were running but no token came for {seconds:.0f} s",
        remedy=_RESTART,
        transient=True,
    )


def unhealthy(detail: str) -> Failure:
    """The engine's process lives but /health does not say so."""
    return Failure(kind="unhealthy", cause=detail, remedy=_RESTART, transient=True)


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
            remedy=_RESTART,
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
