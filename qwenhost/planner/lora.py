"""LoRA adapters: memory of the slots vLLM allocates, and what it refuses.

Each module that takes adapters holds, for every slot, A of (rank, inputs) and B of (outputs, rank) in
BF16. Column-parallel layers cut B, row-parallel ones cut A, and the other half is whole on every rank.
Source: https://github.com/vllm-project/vllm/tree/v0.33.0/vllm/lora/layers, held against those classes by
``tests/e2e/test_lora_oracle.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.plan import LORA_MODULES, LORA_RANKS
from qwenhost.planner.rules import Refusal
from qwenhost.planner.stages import stages
from qwenhost.planner.weights import is_sequence_parallel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.facts import Architecture, Checkpoint
    from qwenhost.plan import LoraOptions, Parallelism
    from qwenhost.planner.stages import Stage

BF16_BYTES: Final = 2
_TREE: Final = "https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/"
RANKS_LINK: Final = _TREE + "config/lora.py#L25"
SEQUENCE_PARALLEL_LINK: Final = _TREE + "lora/layers/fused_moe.py#L248"
VOCABULARY_LINK: Final = _TREE + "lora/layers/logits_processor.py#L91"
MOST_VOCABULARY: Final = 258_048


class _Slot(NamedTuple):
    """One module's A and B on one rank, in columns or rows of one rank dimension."""

    module: str
    where: str
    """``full``, ``linear``, ``layer``, ``any`` or ``last``: which layers or stages have it."""
    width: int
    """Inputs of all A and outputs of all B, together."""


def slot_bytes(
    architecture: Architecture, checkpoint: Checkpoint, layout: Parallelism, lora: LoraOptions
) -> int:
    """Every slot on the rank of the stage that holds most."""
    chosen = targeted(lora.lora_target_modules)
    slots = [slot for slot in _slots(architecture, checkpoint, layout) if slot.module in chosen]
    widest = max(
        sum(slot.width * _times(slot.where, stage) for slot in slots)
        for stage in stages(architecture, layout.pipeline_parallel_size)
    )
    return (
        lora.max_loras
        * lora.max_lora_rank
        * widest
        * BF16_BYTES
    )  # fmt: skip


def lora_refusal(architecture: Architecture, layout: Parallelism, lora: LoraOptions) -> Refusal | None:
    """Why vLLM refuses these adapters, or these with this layout."""
    if lora.max_lora_rank not in LORA_RANKS:
        ranks = ", ".join(map(str, LORA_RANKS))
        return Refusal(
            "lora_rank", f"max_lora_rank {lora.max_lora_rank} is none of vLLM's: {ranks}.", RANKS_LINK
        )
    modules = targeted(lora.lora_target_modules)
    if "lm_head" in modules and architecture.vocab_size > MOST_VOCABULARY:
        return Refusal(
            "lora_vocabulary",
            f"adapters of lm_head need at most {MOST_VOCABULARY:,} tokens, "
            f"{architecture.id} has {architecture.vocab_size:,}.",
            VOCABULARY_LINK,
        )
    if "experts" in modules and is_sequence_parallel(layout):
        return Refusal(
            "lora_with_sequence_parallel_experts",
            f"adapters of experts do not work in {layout.label}: with expert parallelism, TP and DP "
            "together vLLM runs experts on shards of the sequence; leave experts out of "
            "lora_target_modules or one of the three.",
            SEQUENCE_PARALLEL_LINK,
        )
    return None


def targeted(target_modules: tuple[str, ...]) -> set[str]:
    """The modules of vLLM that take adapters; all where no filter is given."""
    wanted = set(target_modules)
    return {
        module
        for module, merged in LORA_MODULES.items()
        if not wanted or module in wanted or wanted.intersection(merged)
    }


def _slots(arch: Architecture, checkpoint: Checkpoint, layout: Parallelism) -> Iterator[_Slot]:
    tp, h = layout.tensor_parallel_size, arch.hidden_size
    q, heads = arch.num_attention_heads * arch.head_dim, arch.linear_num_value_heads
    kv = max(1, arch.num_key_value_heads // tp) * arch.head_dim
    gated = 2 if arch.attn_output_gate else 1
    ba_ranks = 1 if "linear_attn_small" in checkpoint.replicated_groups else tp
    shared_ranks = 1 if is_sequence_parallel(layout) else tp
    shared = arch.shared_expert_intermediate_size // shared_ranks
    yield _Slot("qkv_proj", "full", 3 * h + gated * q // tp + 2 * kv)
    yield _Slot("o_proj", "full", q // tp + h)
    yield _Slot("in_proj_qkvz", "linear", 4 * h + (arch.linear_conv_dim + arch.linear_value_dim) // tp)
    yield _Slot("in_proj_ba", "linear", 2 * h + 2 * heads // ba_ranks)
    yield _Slot("conv1d", "linear", arch.linear_conv_kernel_dim + arch.linear_conv_dim // tp)
    yield _Slot("out_proj", "linear", arch.linear_value_dim // tp + h)
    yield _Slot("gate", "layer", h + arch.num_experts)
    yield _Slot("shared_expert_gate", "layer", h + 1)
    yield _Slot("gate_up_proj", "layer", 2 * h + 2 * shared)
    yield _Slot("down_proj", "layer", shared + h)
    yield _Slot("experts", "layer", _experts_width(arch, layout))
    # Both hold the whole vocabulary on every rank.
    yield _Slot("embed_tokens", "any", arch.vocab_size + h)
    yield _Slot("lm_head", "last", h + arch.vocab_size)


def _experts_width(arch: Architecture, layout: Parallelism) -> int:
    """Gate and up share one A (``FusedMoE3DWithLoRA``); experts are split whole, or each cut."""
    ranks = layout.tensor_parallel_size * layout.data_parallel_size
    whole = layout.enable_expert_parallel and ranks > 1
    experts = -(-arch.num_experts // ranks) if whole else arch.num_experts
    inner = arch.moe_intermediate_size // (1 if whole else ranks)
    return experts * (arch.hidden_size + 2 * inner + inner + arch.hidden_size)


def _times(where: str, stage: Stage) -> int:
    """How often a stage has a module."""
    return {
        "full": stage.full_attention_layers,
        "linear": stage.linear_attention_layers,
        "layer": stage.layers,
        "any": 1,
        "last": int(stage.is_last),
    }[where]
