"""The texts by which failures are known: pattern, remedy, and what may help.

vLLM's own are held against its sources by ``tests/e2e/test_log_texts.py``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

Trigger = Literal[
    "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
]
"""The triggers of ``qwenhost.plan.Fallback``."""


class Rank(IntEnum):
    """Which line is believed first: a known cause, any exception, a known consequence, a wrapper."""

    CAUSE = 0
    EXCEPTION = 1
    CONSEQUENCE = 2
    WRAPPER = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A text, what it means and what may help."""

    kind: str
    pattern: re.Pattern[str]
    remedy: str
    """Formatted with the pattern's groups."""
    trigger: Trigger | None = None
    graphs_trigger: Trigger | None = None
    """Taken instead of ``trigger`` while graphs are captured."""
    transient: bool = False
    bad_input: bool = False
    rank: Rank = Rank.CAUSE


def _rule(
    kind: str,
    pattern: str,
    remedy: str,
    *,
    trigger: Trigger | None = None,
    graphs_trigger: Trigger | None = None,
    transient: bool = False,
    bad_input: bool = False,
    rank: Rank = Rank.CAUSE,
) -> Rule:
    return Rule(
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
RESTART: Final = "The supervisor restarts it; if it comes again, report the log to vLLM."

RULES: Final = (
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
        rank=Rank.CONSEQUENCE,
    ),
    _rule(
        "worker_died",
        r"Worker proc \S+ died unexpectedly",
        RESTART,
        transient=True,
        rank=Rank.CONSEQUENCE,
    ),
    _rule(
        "engine_died",
        r"EngineCore encountered (?:a fatal error|an issue)|EngineDeadError",
        RESTART,
        transient=True,
        rank=Rank.CONSEQUENCE,
    ),
    _rule(
        "start_failed",
        r"Engine core initialization failed|WorkerProc initialization failed",
        "The log above the last lines names the cause.",
        rank=Rank.WRAPPER,
    ),
    # Any exception: after the tables so that a known text has its own name.
    _rule(
        "exception",
        r"^(?!KeyboardInterrupt)(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception)(?:: .*)?$",
        "Not a failure this version knows: search vLLM's issues for the line.",
        rank=Rank.EXCEPTION,
    ),
)
