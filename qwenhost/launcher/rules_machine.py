"""Failures of memory, driver and GPUs."""

from __future__ import annotations

from typing import Final

from qwenhost.launcher.rule import rule

RULES: Final = (
    # --- memory: the plan carries sized fallbacks for these
    rule(
        "kv_cache_too_small",
        r"To serve at least one request with the model's max seq len \((?P<wanted>\d+)\)"
        r".*?(?:estimated maximum model length is (?P<fits>\d+)|$)",
        "Lower --max-model-len to {fits} or less (with pipeline parallelism and MTP vLLM's figure can be too "
        "long; a plan's fallback is sized exactly), or plan with an FP8 KV cache or more GPUs.",
        trigger="kv_cache_too_small",
    ),
    rule(
        "no_kv_cache_memory",
        r"No available memory for the cache blocks",
        "The weights and activations fill the GPU: plan with more GPUs or a smaller checkpoint.",
        trigger="kv_cache_too_small",
    ),
    rule(
        "no_kv_cache_memory",
        r"Cannot auto-fit max_model_len",
        "The weights and activations fill the GPU: plan with more GPUs or a smaller checkpoint.",
        trigger="kv_cache_too_small",
    ),
    rule(
        "state_blocks_too_few",
        r"max_num_seqs \((?P<wanted>\d+)\) exceeds available Mamba cache blocks \((?P<have>\d+)\)",
        "Lower --max-num-seqs to {have} or less.",
        trigger="state_blocks_too_few",
    ),
    rule(
        "gpu_memory_held",
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\) "
        r"on startup is less",
        "Another process holds memory on {device} ({free} of {total} GiB free): end it (qwenhost inspect "
        "names it), or lower --gpu-memory-utilization.",
        transient=True,
    ),
    rule(
        "gpu_memory_moved",
        r"Error in memory profiling\. Initial free memory",
        "Another process freed GPU memory while vLLM measured; start again when it has ended.",
        transient=True,
    ),
    rule(
        "out_of_memory",
        r"warming up sampler with (?P<rows>\d+) dummy requests",
        "Halve --max-num-seqs.",
        trigger="out_of_memory",
    ),
    rule(
        "out_of_memory",
        r"(?:OutOfMemoryError: )?(?:CUDA|HIP) out of memory|OutOfMemoryError: |not enough GPU memory",
        "Plan with more GPUs, a smaller checkpoint or a lower --gpu-memory-utilization.",
        trigger="out_of_memory",
        graphs_trigger="cudagraph_failure",
    ),
    rule(
        "cudagraph_failure",
        r"operation not permitted when stream is capturing|cudaErrorStreamCapture|graph capture failed",
        "Start with --enforce-eager, or lower --max-cudagraph-capture-size.",
        trigger="cudagraph_failure",
    ),
    # --- driver and hardware
    rule(
        "gpu_fault",
        r"NVRM: Xid|uncorrectable ECC error|GPU has fallen off the bus|ECC error encountered"
        r"|CUDA error: (?:unspecified launch failure|device-side assert triggered|unknown error)",
        "The GPU or its driver reported a fault: see dmesg and nvidia-smi -q; reset or exchange the GPU.",
        transient=True,
    ),
    rule(
        "driver_too_old",
        r"CUDA driver version is insufficient|NVIDIA driver on your system is too old",
        "Install the NVIDIA driver that this vLLM build's CUDA needs: qwenhost doctor",
    ),
    rule(
        "no_gpu",
        r"Found no NVIDIA driver|No CUDA GPUs are available|Failed to infer device type",
        "vLLM sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or serve with --target cpu.",
    ),
    rule(
        "interconnect_failure",
        r"NCCL error|ncclSystemError|ncclUnhandledCudaError|ncclInternalError|NCCL WARN .*(?:fail|error)",
        "GPUs cannot talk to one another: set NCCL_DEBUG=INFO, check /dev/shm and the NVLink state.",
        transient=True,
    ),
)
