"""Weight bytes on one GPU, by vLLM's sharding rules.

Column and row parallel layers are cut by the tensor parallel size; embeddings and head by the padded
vocabulary; K and V projections only down to one head; routers, gates and norms are replicated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from qwenhost.facts import Value
from qwenhost.planner.stages import Stage, stages

if TYPE_CHECKING:
    from qwenhost.facts import Architecture, Checkpoint, ModuleGroup, WeightFormat
    from qwenhost.plan import Parallelism

VOCAB_PADDING: Final = 64  # vLLM vocab_parallel_embedding.py DEFAULT_VOCAB_PADDING_SIZE
_PER_LAYER: Final = frozenset(("router", "routed_experts", "shared_expert", "shared_expert_gate", "norms"))
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
    """Weight bytes by rank for one checkpoint; parameter counts are taken once."""

    def __init__(
        self, architecture: Architecture, checkpoint: Checkpoint, formats: Mapping[str, WeightFormat]
    ) -> None:
        self._architecture = architecture
        self._checkpoint = checkpoint
        self._parameters = architecture.parameters
        self.bytes_per_parameter: dict[ModuleGroup, float] = {
            group: formats[checkpoint.format_of(group)].bytes_per_parameter for group in self._parameters
        }

    def per_rank(self, parallelism: Parallelism, *, vision: bool, mtp: bool) -> RankWeights:
        """Bytes on the fullest rank, with or without the vision tower and the MTP layer."""
        sharded = {
            group: self._rank_parameters(group, parallelism) * self.bytes_per_parameter[group]
            for group in self._parameters
            if (vision or group != "vision") and (mtp or not group.startswith("mtp_"))
        }
        by_stage = [
            {group: round(size * self._share(group, stage)) for group, size in sharded.items()}
            | self._draft_embedding(sharded, stage, mtp=mtp)
            for stage in stages(self._architecture, parallelism.pipeline_parallel_size)
        ]
        return RankWeights(bytes_by_group=max(by_stage, key=lambda parts: sum(parts.values())))

    def _rank_parameters(self, group: ModuleGroup, parallelism: Parallelism) -> float:
        """Parameters of a group on one rank, all layers."""
        tp, total = parallelism.tensor_parallel_size, self._parameters[group]
        if group in ("embed_tokens", "lm_head"):
            return total and self._padded_vocab(tp) / tp * self._architecture.hidden_size
        if group in ("self_attn", "mtp_self_attn"):
            return self._self_attn(group, tp)
        if group in ("routed_experts", "mtp_routed_experts"):
            # vLLM cuts experts over all ranks of TP x DP, whole ones with expert parallelism.
            return total * self._expert_share(parallelism)
        if group == "linear_attn_small":
            return self._linear_attn_small(tp)
        if group in ("linear_attn", "shared_expert", "mtp_shared_expert", "mtp_fc", "vision"):
            return total if group in self._checkpoint.replicated_groups else total / tp
        return total  # routers, gates and norms

    def _padded_vocab(self, tp: int) -> int:
        unit = max(VOCAB_PADDING, tp)
        return -(-self._architecture.vocab_size // unit) * unit

    def _self_attn(self, group: ModuleGroup, tp: int) -> float:
        arch = self._architecture
        if not self._parameters[group]:
            return 0
        layers = arch.num_full_attention_layers if group == "self_attn" else arch.mtp_num_hidden_layers
        kv = 2 * arch.hidden_size * arch.head_dim * arch.num_key_value_heads
        kv_rank = 2 * arch.hidden_size * arch.head_dim * max(1, arch.num_key_value_heads // tp)
        norms = self._parameters[group] - layers * arch.self_attn_layer_parameters
        return layers * ((arch.self_attn_layer_parameters - kv) / tp + kv_rank) + norms

    def _linear_attn_small(self, tp: int) -> float:
        arch, layers = self._architecture, self._architecture.num_linear_attention_layers
        in_proj_ba = layers * 2 * arch.hidden_size * arch.linear_num_value_heads
        norm = layers * arch.linear_value_head_dim
        rest = self._parameters["linear_attn_small"] - in_proj_ba - norm
        # vLLM replicates in_proj_ba under GPTQ, AWQ and AutoRound: Marlin needs 64 columns (#35924).
        replicated = "linear_attn_small" in self._checkpoint.replicated_groups
        return (in_proj_ba if replicated else in_proj_ba / tp) + rest / tp + norm

    def _expert_share(self, parallelism: Parallelism) -> float:
        ranks = parallelism.tensor_parallel_size * parallelism.data_parallel_size
        if not parallelism.enable_expert_parallel:
            return 1 / ranks
        return -(-self._architecture.num_experts // ranks) / self._architecture.num_experts

    def _share(self, group: ModuleGroup, stage: Stage) -> float:
        """Part of a group's layers that this pipeline stage holds."""
        arch = self._architecture
        if group in _PER_LAYER:
            return stage.layers / arch.num_hidden_layers
        if group in _PER_LINEAR_LAYER:
            return stage.linear_attention_layers / arch.num_linear_attention_layers
        if group in _PER_FULL_LAYER:
            return stage.full_attention_layers / arch.num_full_attention_layers
        if group in ("embed_tokens", "vision"):
            return float(stage.is_first)
        return float(stage.is_last)  # lm_head and MTP

    @staticmethod
    def _draft_embedding(sharded: Mapping[ModuleGroup, float], stage: Stage, *, mtp: bool) -> dict[str, int]:
        """The draft layer shares the target's embedding only where both are on one stage."""
        if mtp and stage.is_last and not stage.is_first:
            return {"mtp_embed_tokens": round(sharded["embed_tokens"])}
        return {}
