"""What every combination shares: the node's GPU, its calibration, the request, sizes taken once."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.planner.cache import block_layout
from qwenhost.planner.constants import Constants
from qwenhost.planner.context_parallel import ContextParallelModel
from qwenhost.planner.lora import slot_bytes
from qwenhost.planner.overheads import outside_bytes
from qwenhost.planner.performance import StepModel, StepOptions
from qwenhost.planner.rules import KernelChoice, kernel_choice, runs_flashinfer_gdn
from qwenhost.planner.weights import WeightSizes
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.facts import Architecture, Catalog, Checkpoint, GpuSpec, ModuleGroup, WeightFormat
    from qwenhost.node import Node
    from qwenhost.plan import Parallelism, PlanRequest
    from qwenhost.planner.cache import BlockLayout, CacheOptions
    from qwenhost.planner.option import Option

MIXED_REMEDY: Final = "Plan for one kind at a time: set CUDA_VISIBLE_DEVICES, or describe it with --gpus."


class Context:
    """The request with everything looked up."""

    def __init__(self, request: PlanRequest, catalog: Catalog) -> None:
        self.request, self.catalog = request, catalog
        self.spec = gpu_spec(request.node, catalog)
        self.constants = Constants(self.spec, catalog.calibrations, request.vllm_version)
        self.total_bytes = min(gpu.memory_total_bytes for gpu in request.node.gpus)
        self._used_bytes = max(gpu.memory_used_bytes for gpu in request.node.gpus)
        self._weights: dict[str, WeightSizes] = {}
        self._lora: dict[tuple[str, Parallelism], int] = {}
        self._parameters: dict[str, dict[ModuleGroup, int]] = {}
        self._formats: dict[str, dict[ModuleGroup, WeightFormat]] = {}
        self._loaded: dict[tuple[str, Parallelism, bool, bool], int] = {}
        self._groups: dict[tuple[str, Parallelism], Mapping[str, int]] = {}
        self._blocks: dict[tuple[str, CacheOptions], BlockLayout] = {}
        margin = self.constants["weights_relative_margin"]
        self._loaded_over_computed = 1 + margin

    # ----------------------------------------------------------------- lookups

    def checkpoint(self, option: Option) -> Checkpoint:
        """The option's checkpoint."""
        return self.catalog.checkpoints[option.checkpoint]

    def architecture_of(self, option: Option) -> Architecture:
        """The option's architecture."""
        return self.catalog.architectures[self.checkpoint(option).architecture]

    def weights_bytes(self, option: Option, *, vision: bool) -> int:
        """Weights of the fullest rank as vLLM loads them; computed sizes fall a little short of logs."""
        key = (option.checkpoint, option.layout, vision, option.num_speculative_tokens > 0)
        if key not in self._loaded:
            computed = self._computed_bytes(option.checkpoint, option.layout, vision=vision, mtp=key[3])
            self._loaded[key] = round(computed * self._loaded_over_computed)
        return self._loaded[key]

    def _computed_bytes(self, checkpoint: str, layout: Parallelism, *, vision: bool, mtp: bool) -> int:
        sizes = self._weights.get(checkpoint)
        if sizes is None:
            row = self.catalog.checkpoints[checkpoint]
            architecture = self.catalog.architectures[row.architecture]
            sizes = self._weights[checkpoint] = WeightSizes(architecture, row, self.catalog.formats)
        if layout.pipeline_parallel_size > 1:  # which stage is the fullest depends on what is loaded
            return sizes.per_rank(layout, vision=vision, mtp=mtp).total_bytes
        groups = self._groups.get((checkpoint, layout))
        if groups is None:
            whole = sizes.per_rank(layout, vision=True, mtp=True)
            groups = self._groups[checkpoint, layout] = whole.bytes_by_group
        return sum(
            size
            for group, size in groups.items()
            if (vision or group != "vision") and (mtp or not group.startswith("mtp_"))
        )

    def block_layout(self, architecture: Architecture, options: CacheOptions) -> BlockLayout:
        """The block geometry; the same few are asked for again and again."""
        key = (architecture.id, options)
        if key not in self._blocks:
            self._blocks[key] = block_layout(architecture, options)
        return self._blocks[key]

    def lora_bytes(self, option: Option) -> int:
        """Slots of LoRA adapters on the fullest rank; 0 without adapters."""
        lora = self.request.lora
        if lora is None:
            return 0
        key = (option.checkpoint, option.layout)
        if key not in self._lora:
            self._lora[key] = slot_bytes(
                self.architecture_of(option), self.checkpoint(option), option.layout, lora
            )
        return self._lora[key]

    def kernels(self, option: Option) -> KernelChoice:
        """Flags this GPU kind needs for the checkpoint."""
        checkpoint = self.checkpoint(option)
        parallel = option.layout.enable_expert_parallel
        return kernel_choice(checkpoint, self.expert_compute(checkpoint), self.spec, expert_parallel=parallel)

    def expert_compute(self, checkpoint: Checkpoint) -> str:
        """Arithmetic of the routed experts: ``bf16`` (also of int4 weights), ``fp8``, ``fp4``."""
        expert = self.catalog.formats[checkpoint.format_of("routed_experts")]
        return expert.compute if expert.bits < 16 else "bf16"

    def can_use_marlin(self, option: Option) -> bool:
        """Whether the experts are quantized and not on Marlin already."""
        expert = self.catalog.formats[self.checkpoint(option).format_of("routed_experts")]
        native = expert.compute != "bf16" and self.spec.compute_capability >= expert.native_compute_capability
        return native and self.kernels(option).moe_backend in (None, "triton")

    def step_model(self, option: Option, *, enforce_eager: bool = False) -> StepModel:
        """Step times of one replica of the option."""
        architecture, checkpoint = self.architecture_of(option), self.checkpoint(option)
        kind = ContextParallelModel if option.layout.decode_context_parallel_size > 1 else StepModel
        return kind(
            architecture=architecture,
            checkpoint=checkpoint,
            parameters=self._parameters_of(architecture),
            formats=self._formats_of(checkpoint),
            parallelism=option.layout,
            options=StepOptions(
                kv_cache_dtype=option.kv_cache_dtype,
                mamba_ssm_cache_dtype=self.request.pins.mamba_ssm_cache_dtype or "auto",
                num_speculative_tokens=option.num_speculative_tokens,
                enforce_eager=enforce_eager,
            ),
            spec=self.spec,
            constants=self.constants,
            interconnect=self.request.node.interconnect,
        )

    def _parameters_of(self, architecture: Architecture) -> dict[ModuleGroup, int]:
        """Counted once: every combination needs them."""
        if architecture.id not in self._parameters:
            self._parameters[architecture.id] = architecture.parameters
        return self._parameters[architecture.id]

    def _formats_of(self, checkpoint: Checkpoint) -> dict[ModuleGroup, WeightFormat]:
        if checkpoint.id not in self._formats:
            groups = self._parameters_of(self.catalog.architectures[checkpoint.architecture])
            self._formats[checkpoint.id] = {
                group: self.catalog.formats[checkpoint.format_of(group)] for group in groups
            }
        return self._formats[checkpoint.id]

    # ----------------------------------------------------------------- what the request implies

    @property
    def typical_tokens(self) -> int:
        """Tokens of the workload's mean request at its end."""
        workload = self.request.workload
        return max(1, math.ceil(workload.input_tokens.mean + workload.output_tokens.mean))

    @property
    def default_batched_tokens(self) -> int:
        """The tiers of vLLM by memory (engine/arg_utils.py); an A100 has room for the upper one."""
        if self.total_bytes >= 160 * GIB:
            return 16384
        return 8192 if self.total_bytes >= 70 * GIB else 2048

    def wanted_sequences(self, layout: Parallelism) -> int:
        """Sequences of one replica: the asked concurrency's share, else as many as vLLM would allow."""
        if self.request.concurrency is None:
            return 1024
        share = math.ceil(self.request.concurrency / layout.serving_groups)
        steps = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
        return next((step for step in steps if step >= share), 1024)

    def utilization(self, layout: Parallelism, wanted: float) -> float:
        """The pinned share, else the wanted one as far as free memory and the GPU's kind allow it."""
        pinned = self.request.pins.gpu_memory_utilization
        if pinned is not None:
            return pinned
        return min(wanted, self.constants.get("gpu_memory_utilization", 1.0), self.most_utilization(layout))

    def most_utilization(self, layout: Parallelism) -> float:
        """The most vLLM starts with: no more than is free once CUDA and NCCL took theirs."""
        hidden = self.constants["nvml_minus_cuda_total_bytes"]
        free = self.total_bytes - self._used_bytes - outside_bytes(layout, self.constants)
        return math.floor(100 * max(0.0, free) / (self.total_bytes - hidden)) / 100

    def flashinfer_gdn(self, backend: str | None) -> bool:
        """Whether GDN prefill runs on FlashInfer."""
        return runs_flashinfer_gdn(self.spec, backend, self.request.node.cuda_version)


def gpu_spec(node: Node, catalog: Catalog) -> GpuSpec:
    """The one GPU kind of the node.

    Raises:
        InfeasibleError: no GPU, different GPUs, or MIG.
        BadInputError: a GPU the catalog does not know.
    """
    if not node.gpus:
        raise InfeasibleError(
            "This machine has no GPU.", remedy="Describe one with --gpus, e.g. --gpus 2xH200."
        )
    if any(gpu.mig_enabled for gpu in node.gpus):
        names = ", ".join(str(gpu.index) for gpu in node.gpus if gpu.mig_enabled)
        raise InfeasibleError(
            f"MIG is on (GPU {names}): a MIG slice is too small for this model and vLLM cannot join slices.",
            remedy="Turn it off: nvidia-smi -i INDEX -mig 0, or leave those GPUs out.",
        )
    if not node.is_uniform:
        kinds = ", ".join(sorted({gpu.name for gpu in node.gpus}))
        raise InfeasibleError(f"The GPUs differ ({kinds}): vLLM needs equal ranks.", remedy=MIXED_REMEDY)
    gpu = node.gpus[0]
    if gpu.spec is None or gpu.spec not in catalog.gpus:
        raise BadInputError(
            f"{gpu.name} (compute capability {gpu.compute_capability}) is not in the catalog.",
            remedy="Add it to gpus.yaml in a folder given with --profiles; see: qwenhost profiles schema.",
        )
    return catalog.gpus[gpu.spec]
