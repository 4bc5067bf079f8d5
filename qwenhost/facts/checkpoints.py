"""Checkpoints: which module is stored how, in how many bytes, and with what loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from qwenhost.facts.base import Basis, Source, Value
from qwenhost.facts.models import ModuleGroup


class WeightFormat(Value, frozen=True, kw_only=True):
    """How a group of weights is stored, scales included.

    ``bytes_per_parameter`` = bits/8 + scale_bits/8/scale_block_parameters + extra.
    """

    id: str
    source: Source
    bits: float
    """Bits per stored weight."""
    scale_bits: float = 0
    """Bits of one scale."""
    loaded_scale_bits: float | None = None
    """Bits of one scale in memory, where vLLM widens it on load (block FP8: float32); None = as stored."""
    scale_block: tuple[int, int] = (1, 1)
    """(rows, columns) of weights that share one scale; ``(1, 128)`` is group size 128."""
    zero_bits: float = 0
    """Bits of one zero point; same block as the scale."""
    dropped_bits: float = 0
    """Bits per scale block that the files hold and vLLM drops on load (zero points of symmetric GPTQ)."""
    compute: Literal["bf16", "fp8", "fp4"] = "bf16"
    """Arithmetic used where the GPU is native to it; otherwise weight-only through Marlin."""
    native_compute_capability: float = 0.0
    """Lowest capability whose tensor cores run ``compute`` directly; 0 = any."""

    @property
    def bytes_per_parameter(self) -> float:
        """Mean bytes per parameter in memory, scales and zero points included."""
        scale_bits = self.scale_bits if self.loaded_scale_bits is None else self.loaded_scale_bits
        return self._mean_bytes(scale_bits + self.zero_bits)

    @property
    def stored_bytes_per_parameter(self) -> float:
        """Mean bytes per parameter in the files, what vLLM drops on load included."""
        return self._mean_bytes(self.scale_bits + self.zero_bits + self.dropped_bits)

    def _mean_bytes(self, bits_per_block: float) -> float:
        rows, columns = self.scale_block
        return self.bits / 8 + bits_per_block / 8 / (rows * columns)

    @property
    def group_size(self) -> int:
        """Columns that share a scale; tensor parallel shards must not cut a group."""
        return self.scale_block[1] if self.scale_bits else 1


Sharding = Literal["tensor", "kv_heads", "vocabulary", "experts", "whole_experts", "replicated"]
"""How vLLM spreads a tensor over ranks: cut by tensor parallel size; K and V only down to one head;
rows of the padded vocabulary; experts over all TP x DP ranks, or over them only with expert
parallelism; or the same on every rank."""


class WeightPart(Value, frozen=True, kw_only=True):
    """Bytes of one module group that are sharded one way, as vLLM holds them after loading."""

    group: ModuleGroup
    sharding: Sharding
    bytes: int
    """All layers, all ranks."""
    layer_bytes: tuple[int, ...] = ()
    """By decoder layer, where those that have the group differ (pruned experts); sums to ``bytes``."""


class QualityNote(Value, frozen=True, kw_only=True):
    """A published score of this checkpoint beside its baseline."""

    benchmark: str
    baseline: float
    score: float
    source: Source


class Checkpoint(Value, frozen=True, kw_only=True):
    """A published set of weights: which module is stored how."""

    id: str
    """Short name for ``--checkpoint``, e.g. ``fp8``."""
    repo_id: str
    revision: str | None = None
    """Commit of the hub repository; None where none was seen, then the head is used and said so."""
    architecture: str
    """Id of the :class:`Architecture`."""
    quantization: str
    """vLLM's name of the method (``fp8``, ``gptq_marlin``, ``modelopt_fp4``...), ``none`` for BF16."""
    formats: Mapping[str, str]
    """WeightFormat id by module group; ``default`` for those not listed."""
    mtp: bool
    """Whether the checkpoint carries the MTP layer."""
    disk_bytes: int
    disk_bytes_basis: Basis
    min_compute_capability: float
    native_compute_capability: float = 0.0
    """Below this the kernels are weight-only (Marlin)."""
    max_tensor_parallel_size: int
    declared_kv_cache_dtype: str | None = None
    """KV type the checkpoint is calibrated for, if it says so."""
    replicated_groups: tuple[ModuleGroup, ...] = ()
    """Groups this quantization cannot shard, beyond those vLLM always replicates."""
    weights: tuple[WeightPart, ...] = ()
    """True sizes from the headers of the safetensors files; empty = computed from ``formats``."""
    measured_load_bytes: Mapping[str, int] = {}
    """"Model loading took" by tensor parallel size as text, from logs."""
    quality: tuple[QualityNote, ...] = ()
    official: bool = False
    """Published by the model's maker."""
    recommended: bool = True
    """False keeps it selectable by name but out of the search (unclear provenance or layout)."""
    caveats: tuple[str, ...] = ()
    source: Source

    def format_of(self, group: ModuleGroup) -> str:
        """Id of the weight format of a module group."""
        return self.formats.get(group, self.formats["default"])
