"""Weight bytes on one GPU, by vLLM's sharding rules.

A checkpoint is a list of parts, each a module group's bytes that are sharded one way: true ones from
the headers of its files, else computed from the architecture's shapes and the checkpoint's formats.
Source: vLLM 0.33 ``models/qwen3_5.py``, ``models/qwen3_next.py``, ``models/qwen3_5_mtp.py``,
``models/qwen3_vl.py``; ``tests/e2e/test_weight_oracle.py`` holds the result against those classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.facts import Value
from qwenhost.planner.parts import computed_parts
from qwenhost.planner.stages import Stage, stages

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Checkpoint, ModuleGroup, WeightFormat, WeightPart
    from qwenhost.plan import Parallelism

VisionMode = Literal["weights", "data"]
"""vLLM's ``--mm-encoder-tp-mode``: the tower cut by tensor parallel size, or whole on every rank."""
Share = tuple[int, int]
"""Numerator and denominator, so that bytes stay whole."""
VOCAB_PADDING: Final = 64  # vLLM vocab_parallel_embedding.py DEFAULT_VOCAB_PADDING_SIZE
_PER_LAYER: Final = frozenset(("router", "routed_experts", "shared_expert", "shared_expert_gate"))
_PER_LINEAR_LAYER: Final = frozenset(("linear_attn", "linear_attn_small"))
_PER_FULL_LAYER: Final = frozenset(("self_attn", "qk_norm"))


class RankWeights(Value, frozen=True, kw_only=True):
    """Weights of the fullest rank."""

    bytes_by_group: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """Sum over groups."""
        return sum(self.bytes_by_group.values())


class WeightSizes:
    """Weight bytes by rank for one checkpoint; its parts are taken once."""

    def __init__(
        self, architecture: Architecture, checkpoint: Checkpoint, formats: Mapping[str, WeightFormat]
    ) -> None:
        self._architecture = architecture
        self._parts: tuple[WeightPart, ...] = checkpoint.weights or tuple(
            computed_parts(architecture, checkpoint, formats)
        )

    def per_rank(
        self, parallelism: Parallelism, *, vision: bool, mtp: bool, vision_mode: VisionMode = "weights"
    ) -> RankWeights:
        """Bytes on the fullest rank, with or without the vision tower and the MTP layer."""
        loaded = [
            (part, self._rank_share(part, parallelism, vision_mode))
            for part in self._parts
            if (vision or part.group != "vision") and (mtp or not part.group.startswith("mtp_"))
        ]
        by_stage = [
            self._stage_bytes(loaded, stage, mtp=mtp)
            for stage in stages(self._architecture, parallelism.pipeline_parallel_size)
        ]
        return RankWeights(bytes_by_group=max(by_stage, key=lambda groups: sum(groups.values())))

    def _stage_bytes(
        self, loaded: list[tuple[WeightPart, Share]], stage: Stage, *, mtp: bool
    ) -> dict[str, int]:
        found: dict[str, int] = {}
        for part, (held, ranks) in loaded:
            size, layers = self._bytes_on(part, stage)
            found[part.group] = found.get(part.group, 0) + -(-size * held // (layers * ranks))
            # The draft shares the target's head, and its embedding unless there is a pipeline.
            # https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/v1/worker/gpu/spec_decode/eagle/utils.py#L54
            if part.group == "embed_tokens" and mtp and stage.is_last and not stage.is_first:
                found["mtp_embed_tokens"] = -(-part.bytes * held // ranks)
        return found

    def _rank_share(self, part: WeightPart, parallelism: Parallelism, vision_mode: VisionMode) -> Share:
        """What one rank holds of a part, 1 where it is replicated."""
        tp = parallelism.tensor_parallel_size
        if part.sharding == "vocabulary":
            return self._padded_vocab(tp), tp * self._architecture.vocab_size
        if part.sharding == "kv_heads":
            return 1, min(tp, self._architecture.num_key_value_heads)
        if part.sharding == "experts" or (
            part.sharding == "whole_experts" and parallelism.enable_expert_parallel
        ):
            return self._expert_share(parallelism)
        whole = (
            part.sharding in ("replicated", "whole_experts")
            or (part.group == "vision" and vision_mode == "data")
            or (part.group in ("shared_expert", "mtp_shared_expert") and is_sequence_parallel(parallelism))
        )
        return (1, 1) if whole else (1, tp)

    def _padded_vocab(self, tp: int) -> int:
        unit = math.lcm(VOCAB_PADDING, tp)
        return -(-self._architecture.vocab_size // unit) * unit

    def _expert_share(self, parallelism: Parallelism) -> Share:
        """Experts are cut over all ranks of TP x DP; whole ones with expert parallelism."""
        ranks = parallelism.tensor_parallel_size * parallelism.data_parallel_size
        if not parallelism.enable_expert_parallel:
            return 1, ranks
        return -(-self._architecture.num_experts // ranks), self._architecture.num_experts

    def _bytes_on(self, part: WeightPart, stage: Stage) -> Share:
        """What the layers of a pipeline stage hold of a part, all its ranks together, as a quotient."""
        if part.layer_bytes:
            return sum(part.layer_bytes[stage.first_layer : stage.first_layer + stage.layers]), 1
        here, of = self._layer_share(part.group, stage)
        return part.bytes * here, of

    def _layer_share(self, group: ModuleGroup, stage: Stage) -> Share:
        """Part of a group's layers that a pipeline stage holds."""
        arch = self._architecture
        if group in _PER_LAYER:
            return stage.layers, arch.num_hidden_layers
        if group in _PER_LINEAR_LAYER:
            return stage.linear_attention_layers, arch.num_linear_attention_layers
        if group in _PER_FULL_LAYER:
            return stage.full_attention_layers, arch.num_full_attention_layers
        if group == "norms":  # two in each layer, and one behind the last
            return 2 * stage.layers + stage.is_last, 2 * arch.num_hidden_layers + 1
        if group in ("embed_tokens", "vision"):
            # Built by every stage, though only the first uses them:
            # https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/model_executor/models/qwen3_5.py#L251
            return 1, 1
        return int(stage.is_last), 1  # lm_head and MTP


def is_sequence_parallel(parallelism: Parallelism) -> bool:
    """Whether MoE layers run on sequence shards, each rank with whole shared experts.

    Source: https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/config/parallel.py#L768
    and ``models/qwen2_moe.py Qwen2MoeMLP`` (``disable_tp``).
    """
    return (
        parallelism.enable_expert_parallel
        and parallelism.tensor_parallel_size > 1
        and parallelism.data_parallel_size > 1
    )
