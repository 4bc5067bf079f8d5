"""Each known failure text, held against the table: kind, fallback and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.launcher.failures import Failure, classify

LOGS = Path(__file__).parent.parent / "logs"
ERROR = "(EngineCore pid=2) ERROR 11-23 10:00:00 [core.py:1510] "
WORKER = "(Worker_TP1 pid=4) ERROR 11-23 10:00:00 [multiproc_executor.py:953] "
TAIL = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


@pytest.mark.parametrize(
    ("log", "kind", "trigger", "said"),
    [
        ("bad-flag", "bad_flag", None, "--nosuchflag 1"),
        ("context-does-not-fit", "kv_cache_too_small", "kv_cache_too_small", "3328"),
        ("context-too-long", "context_too_long", None, "--max-model-len"),
        ("model-not-cached", "model_not_found", None, "--model"),
        ("no-such-folder", "model_not_found", None, "--model"),
        ("no-weights", "weights_missing", None, "safetensors"),
        ("port-in-use", "port_in_use", None, "--port"),
        ("tool-parser-missing", "bad_flag", None, "--tool-call-parser"),
        ("heads-not-divisible", "shape_not_divisible", None, "3"),
    ],
)
def test_a_real_log_is_classified(log: str, kind: str, trigger: str | None, said: str) -> None:
    """Logs of real vLLM 0.32 runs that failed this way."""
    failure = classify((LOGS / f"vllm-0.32-cpu-{log}.log").read_text().splitlines(), 1)
    assert (failure.kind, failure.trigger) == (kind, trigger)
    assert said in failure.remedy


def test_a_real_engine_death_names_the_exception_that_caused_it() -> None:
    """MTP with prefix caching on CPU: the cause stands far above 'EngineCore encountered an issue'."""
    failure = classify((LOGS / "vllm-0.32-cpu-engine-death.log").read_text().splitlines(), 0)
    assert failure.cause == "TypeError: 'function' object is not subscriptable"


@pytest.mark.parametrize(
    ("line", "kind", "trigger", "said"),
    [
        (
            ERROR + "ValueError: To serve at least one request with the model's max seq len (262144), (6.53 GiB KV "
            "cache is needed, which is larger than the available KV cache memory (4.10 GiB). Based on the "
            "available memory, the estimated maximum model length is 160000. Try increasing",
            "kv_cache_too_small", "kv_cache_too_small", "160000",
        ),
        (ERROR + "ValueError: No available memory for the cache blocks. Try increasing", "no_kv_cache_memory",
         "kv_cache_too_small", "more GPUs"),
        (ERROR + "ValueError: Cannot auto-fit max_model_len: not enough GPU memory available", "no_kv_cache_memory",
         "kv_cache_too_small", "more GPUs"),
        (ERROR + "ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (556). Each decode sequence",
         "state_blocks_too_few", "state_blocks_too_few", "556"),
        (WORKER + "ValueError: Free memory on device cuda:1 (60.1/79.2 GiB) on startup is less than desired GPU "
         "memory utilization (0.92, 72.9 GiB). Decrease GPU memory utilization", "gpu_memory_held", None,
         "60.1 of 79.2"),
        (WORKER + "AssertionError: Error in memory profiling. Initial free memory 70.1 GiB, current free memory 75 GiB.",
         "gpu_memory_moved", None, "start again"),
        (WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.25 GiB.", "out_of_memory",
         "out_of_memory", "more GPUs"),
        (WORKER + "torch.OutOfMemoryError: HIP out of memory. Tried to allocate 1 GiB.", "out_of_memory",
         "out_of_memory", "more GPUs"),
        (ERROR + "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization",
         "out_of_memory", "out_of_memory", "more GPUs"),
        (WORKER + "RuntimeError: CUDA out of memory occurred when warming up sampler with 1024 dummy requests. Please",
         "out_of_memory", "out_of_memory", "--max-num-seqs"),
        (WORKER + "RuntimeError: CUDA error: operation not permitted when stream is capturing", "cudagraph_failure",
         "cudagraph_failure", "--enforce-eager"),
        ("[ 812.3] NVRM: Xid (PCI:0000:17:00): 79, GPU has fallen off the bus.", "gpu_fault", None, "dmesg"),
        (WORKER + "RuntimeError: CUDA error: uncorrectable ECC error encountered", "gpu_fault", None, "dmesg"),
        (ERROR + "RuntimeError: CUDA driver version is insufficient for CUDA runtime version", "driver_too_old", None,
         "driver"),
        ("RuntimeError: Failed to infer device type", "no_gpu", None, "--target cpu"),
        (WORKER + "torch.distributed.DistBackendError: NCCL error in: x.cpp:1, unhandled system error",
         "interconnect_failure", None, "NCCL_DEBUG"),
        ("ValueError: The quantization method modelopt_fp4 is not supported for the current GPU. Minimum capability: "
         "100. Current capability: 80.", "checkpoint_not_supported", "kernel_failure", "modelopt_fp4"),
        (WORKER + "ValueError: type fp8e4nv not supported in this architecture", "kernel_failure", "kernel_failure",
         "marlin"),
        (WORKER + "ValueError: No valid attention backend found for cuda with AttentionSelectorConfig(",
         "kernel_failure", "kernel_failure", "--attention-backend"),
        (WORKER + "ValueError: Selected backend FLASHMLA is not valid for this configuration. Reason: []",
         "kernel_failure", "kernel_failure", "--attention-backend"),
        (WORKER + "torch.AcceleratorError: CUDA error: an illegal memory access was encountered", "kernel_failure",
         "kernel_failure", "triton"),
        (WORKER + "ValueError: The output_size of gate's and up's weight = 192 is not divisible by weight quantization "
         "block_n = 128.", "shape_not_divisible", None, "--tensor-parallel-size"),
        (WORKER + "ValueError: Weight output_size_per_partition = 32 is not divisible by  min_thread_n = 64. Consider",
         "shape_not_divisible", None, "--tensor-parallel-size"),
        ("ValueError: World size (8) is larger than the number of available GPUs (4) in this node.", "too_few_gpus",
         None, "8 GPUs"),
        ("vllm serve: error: argument --max-model-len: invalid value: 'many'", "bad_flag", None, "--max-model-len"),
        ("OSError: [Errno 99] Cannot assign requested address", "host_not_local", None, "--host"),
        ("huggingface_hub.errors.GatedRepoError: 403 Client Error.", "download_refused", None, "HF_TOKEN"),
        ("huggingface_hub.errors.RepositoryNotFoundError: 404 Client Error.", "model_not_found", None, "--model"),
        (WORKER + "safetensors_rust.SafetensorError: Error while deserializing header: MetadataIncompleteBuffer",
         "weights_damaged", None, "shard"),
        (ERROR + "OSError: [Errno 28] No space left on device: '/dev/shm/psm_1'", "shared_memory_full", None, "/dev/shm"),
        (ERROR + "OSError: [Errno 28] No space left on device", "disk_full", None, "disk"),
        (ERROR + "OSError: [Errno 24] Too many open files", "too_many_open_files", None, "ulimit"),
        ("  Value error, Model architectures ['Qwen3_5MoeForConditionalGeneration'] are not supported for now. [type=",
         "vllm_too_old", None, "doctor"),
        ("  Value error, Model architectures ['Qwen3_5MoeForConditionalGeneration'] failed to be inspected. Please",
         "vllm_broken", None, "anew"),
        ("TimeoutError: Timed out waiting for engine core processes to start. This is often caused by",
         "start_timed_out", None, "VLLM_ENGINE_READY_TIMEOUT_S"),
        (ERROR + "Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting down executor.", "worker_died",
         None, "restarts"),
        (ERROR + "EngineCore encountered a fatal error.", "engine_died", None, "restarts"),
    ],
)  # fmt: skip
def test_each_text_of_the_table_is_known(line: str, kind: str, trigger: str | None, said: str) -> None:
    """One example of each failure, between harmless lines and vLLM's last words."""
    before = "(APIServer pid=1) WARNING 11-23 10:00:00 [s.py:1] fd limit errors like `OSError: [Errno 24] Too many open files`"
    failure = classify([before, line, WORKER + '  File "x.py", line 1, in f', TAIL], 1)
    assert (failure.kind, failure.trigger) == (kind, trigger)
    assert said in failure.remedy


def test_running_out_of_memory_while_capturing_asks_for_fewer_graphs() -> None:
    """The same text in another phase has another remedy in the plan."""
    capturing = "Capturing CUDA graphs (FULL):  50%|#####     | 17/35 [00:02<00:02]"
    failure = classify([capturing, WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried", TAIL], 1)
    assert (failure.kind, failure.trigger) == ("out_of_memory", "cudagraph_failure")


def test_the_first_cause_wins() -> None:
    """What fails next fails because of it."""
    lines = [
        WORKER + "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB.",
        WORKER + "RuntimeError: NCCL error in: x.cpp:1, remote process exited",
        TAIL,
    ]
    assert classify(lines, 1).kind == "out_of_memory"


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [(0, "exited", True), (1, "exited", False), (-9, "killed", True), (-11, "crashed", True)],
)
def test_without_a_text_the_exit_code_speaks(code: int, kind: str, transient: bool) -> None:
    """An unrequested exit 0 is a crash; signal 9 is usually the kernel's out-of-memory killer."""
    failure = classify(["(APIServer pid=1) INFO 11-23 10:00:00 [a.py:1] all is well"], code)
    assert (failure.kind, failure.transient) == (kind, transient)


def test_a_users_mistake_and_a_broken_machine_exit_differently() -> None:
    """2 for a flag or path, 4 for an engine that cannot run here."""
    flag = classify(["vllm: error: unrecognized arguments: --x"], 2).to_error(log="/l")
    memory = classify([WORKER + "torch.OutOfMemoryError: CUDA out of memory."], 1).to_error(log="/l")
    assert isinstance(flag, BadInputError)
    assert isinstance(memory, UnavailableError)
    assert "/l" in memory.remedy


def test_a_long_line_is_cut() -> None:
    """Some causes carry a whole configuration."""
    assert len(classify(["ValueError: " + "x" * 9999], 1).cause) == 500


def test_an_unknown_exception_is_still_named() -> None:
    """The exception line itself is better than the wrapper at the end."""
    failure = classify([ERROR + "KeyError: 'layers.3.mlp'", TAIL], 1)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.cause) == ("exception", "KeyError: 'layers.3.mlp'")
