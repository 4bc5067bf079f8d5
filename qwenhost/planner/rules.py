"""Which combinations vLLM accepts for this model, each refusal a named rule with its evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Architecture, Checkpoint, GpuSpec
    from qwenhost.plan import Parallelism

_ISSUE: Final = "https://github.com/vllm-project/vllm/issues/"
_PULL: Final = "https://github.com/vllm-project/vllm/pull/"
MTP_WITH_PREFIX_CACHING_LINK: Final = _ISSUE + "53912"
STATE_BLOCKS_LINK: Final = _ISSUE + "49064"
NVFP4_KV_LINK: Final = _ISSUE + "55673"
FP8_ON_SM80_LINK: Final = _ISSUE + "54318"
FP8_ON_SM120_LINK: Final = _ISSUE + "45101"
NVFP4_ON_SM120_LINK: Final = _ISSUE + "49076"
FLASHINFER_GDN_LINK: Final = _ISSUE + "37507"
_SOURCE: Final = "https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/"
CONTEXT_PARALLEL_LINK: Final = _SOURCE + "config/model.py#L1578"
PREFIX_MATCH_UNIT_LINK: Final = _SOURCE + "v1/core/kv_cache_utils.py#L890"
FP8_KV_LINK: Final = "https://github.com/sgl-project/sglang/tree/main/docs_new/cookbook"
MARLIN_SM121_LINK: Final = _ISSUE + "49546"
EXPERTS_ON_CUTLASS_LINK: Final = _ISSUE + "34892"
# FP8 experts crashed on SM120 ("Unsupported lhs dtype fp8e4nv") in this release.
FP8_EXPERTS_CRASH_ON_SM120: Final = (0, 22)


def issue(number: int) -> str:
    """Address of one of vLLM's issues."""
    return f"{_ISSUE}{number}"


class Refusal(NamedTuple):
    """Why vLLM would not start, or must not be used."""

    rule: str
    message: str
    link: str = ""


def version_refusal(expert_compute: str, spec: GpuSpec, version: tuple[int, int]) -> Refusal | None:
    """A format whose kernels crash on this GPU in this release."""
    if expert_compute == "fp8" and spec.compute_capability >= 12.0 and version == FP8_EXPERTS_CRASH_ON_SM120:
        return Refusal(
            "fp8_experts_on_sm120",
            f"vLLM 0.22 crashes on FP8 experts on {spec.name}; plan for a later one (--vllm-version).",
            FP8_ON_SM120_LINK,
        )
    return None


def cache_refusal(kv_cache_dtype: str | None) -> Refusal | None:
    """A cache type that ruins this model's output."""
    if kv_cache_dtype is not None and kv_cache_dtype.startswith("nvfp4"):
        return Refusal(
            "nvfp4_kv_cache",
            "an NVFP4 cache breaks this model's output (94 % of answers invalid, it is reported); take fp8.",
            NVFP4_KV_LINK,
        )
    return None


def checkpoint_refusal(checkpoint: Checkpoint, spec: GpuSpec) -> Refusal | None:
    """A checkpoint this GPU cannot run in any layout."""
    if spec.compute_capability < checkpoint.min_compute_capability:
        return Refusal(
            "compute_capability",
            f"{checkpoint.id} needs compute capability {checkpoint.min_compute_capability}, "
            f"{spec.name} has {spec.compute_capability}.",
        )
    if checkpoint.quantization == "modelopt_fp4" and spec.vendor == "amd":
        return Refusal("vendor_kernel", "vLLM has no NVFP4 kernel for AMD GPUs.")
    return None


def layout_refusals(
    architecture: Architecture, checkpoint: Checkpoint, layout: Parallelism
) -> Iterator[Refusal]:
    """Every reason why vLLM refuses this layout, whatever the memory."""
    tp, experts = layout.tensor_parallel_size, layout.tensor_parallel_size * layout.data_parallel_size
    for name, heads in (
        ("attention heads", architecture.num_attention_heads),
        ("Gated DeltaNet key heads", architecture.linear_num_key_heads),
        ("Gated DeltaNet value heads", architecture.linear_num_value_heads),
    ):
        if heads % tp:
            yield Refusal(
                "tp_divides_heads", f"{heads} {name} cannot be divided by tensor_parallel_size {tp}."
            )
            return
    kv = architecture.num_key_value_heads
    if kv % tp and tp % kv:
        yield Refusal("tp_divides_heads", f"{kv} KV heads and tensor_parallel_size {tp} do not divide.")
    if tp > checkpoint.max_tensor_parallel_size:
        yield _cuts_group(checkpoint, "tensor_parallel_size", tp)
    elif not layout.enable_expert_parallel and experts > checkpoint.max_tensor_parallel_size:
        # Without expert parallelism vLLM cuts each expert over all TP x DP ranks.
        yield _cuts_group(checkpoint, "tensor_parallel_size * data_parallel_size", experts)
    if layout.enable_expert_parallel and architecture.num_experts % experts:
        yield Refusal(
            "ep_divides_experts", f"{architecture.num_experts} experts cannot be divided by {experts} ranks."
        )
    if layout.pipeline_parallel_size > architecture.num_hidden_layers:
        yield Refusal("pp_exceeds_layers", "More pipeline stages than layers.")


def context_parallel_refusal(architecture: Architecture, layout: Parallelism, size: int) -> Refusal | None:
    """Decode context parallelism takes the ranks that would repeat a KV head, and no others."""
    tp, kv = layout.tensor_parallel_size, architecture.num_key_value_heads
    if size == 1:
        return None
    if size > tp // kv:
        reason = f"at most {max(1, tp // kv)} at tensor_parallel_size {tp} with {kv} KV heads"
    elif tp % size or (architecture.num_attention_heads // kv) % size:
        reason = f"it must divide tensor_parallel_size {tp} and the query heads of a KV head"
    else:
        return None
    return Refusal(
        "context_parallel_size", f"decode_context_parallel_size {size}: {reason}.", CONTEXT_PARALLEL_LINK
    )


def _cuts_group(checkpoint: Checkpoint, what: str, size: int) -> Refusal:
    return Refusal(
        "tp_cuts_group",
        f"{what} {size} would cut a quantization group or expert of {checkpoint.id}; "
        f"at most {checkpoint.max_tensor_parallel_size}.",
        _ISSUE + "54178",
    )


def runs_flashinfer_gdn(spec: GpuSpec, backend: str | None, cuda_version: str | None) -> bool:
    """Whether GDN prefill runs on FlashInfer: on SM90, and on Blackwell with a CUDA 13 runtime.

    Elsewhere vLLM runs Triton, even where FlashInfer is asked for (``_resolve_gdn_prefill_backend``).
    A described node is taken to have the CUDA 13 that vLLM 0.33's wheel is built for.
    """
    if spec.vendor != "nvidia" or backend not in (None, "auto", "flashinfer"):
        return False
    if 9.0 <= spec.compute_capability < 10.0:
        return True
    major = int(cuda_version.split(".")[0]) if cuda_version else 13
    return spec.compute_capability >= 10.0 and major >= 13


class KernelChoice(NamedTuple):
    """Flags and environment that a GPU kind needs for a checkpoint, with the reasons."""

    moe_backend: str | None
    draft_moe_backend: str | None
    env: dict[str, str]
    notes: tuple[str, ...]


def experts_run_on_marlin(expert_compute: str, spec: GpuSpec) -> bool:
    """Whether routed experts with FP4 arithmetic of their own run on Marlin, which computes in BF16."""
    return expert_compute == "fp4" and spec.compute_capability >= 12.0


def kernel_choice(
    checkpoint: Checkpoint, expert_compute: str, spec: GpuSpec, *, expert_parallel: bool = False
) -> KernelChoice:
    """Per-GPU-kind flags; ``expert_compute`` is the arithmetic of the routed experts' format."""
    capability = spec.compute_capability
    moe: str | None = None
    draft = "triton" if expert_compute == "fp4" else None
    env: dict[str, str] = {}
    notes: list[str] = []
    if expert_compute == "fp8" and capability < 8.9 and spec.vendor == "nvidia":
        moe = "marlin"
        notes.append(
            f"{spec.name} has no FP8 arithmetic: weights stay FP8, kernels are Marlin ({FP8_ON_SM80_LINK})."
        )
    if expert_compute == "fp8" and expert_parallel and 9.0 <= capability < 10.0 and spec.vendor == "nvidia":
        moe = "triton"
        notes.append(
            "FP8 experts run on Triton: vLLM's default for expert parallelism here, FlashInfer CUTLASS, lost "
            f"accuracy ({EXPERTS_ON_CUTLASS_LINK})."
        )
    if expert_compute == "fp8" and capability >= 12.0:
        env["VLLM_USE_DEEP_GEMM"] = "0"
        notes.append(f"DeepGEMM is off: it is wrong or absent on SM120 ({FP8_ON_SM120_LINK}).")
    if experts_run_on_marlin(expert_compute, spec):
        moe = "marlin"
        notes.append(f"NVFP4 experts run on Marlin on SM120 ({NVFP4_ON_SM120_LINK}).")
    if spec.unified_memory and checkpoint.quantization in ("inc", "auto_gptq", "auto_awq"):
        notes.append(f"Leave VLLM_MARLIN_INPUT_DTYPE unset: fp8 corrupts output here ({MARLIN_SM121_LINK}).")
    if spec.vendor == "amd":
        env["VLLM_ROCM_USE_AITER"] = "1"
    return KernelChoice(moe, draft, env, tuple(notes))
