"""Time of one engine step: a roofline per kernel class with fitted efficiencies.

Each kernel takes t0 + (memory_time^p + compute_time^p)^(1/p). Constants come from
``profiles/calibration``; the equations are those the constants were fitted with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

from qwenhost.planner.cache import (
    CacheOptions,
    kv_bytes_per_token_per_layer,
    state_bytes_per_layer,
)
from qwenhost.planner.experts import DistinctExperts
from qwenhost.planner.links import Collective
from qwenhost.planner.rules import experts_run_on_marlin
from qwenhost.planner.tally import Kernel, Stack, StepCost, Tally, positive

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.facts import Architecture, Checkpoint, GpuSpec, ModuleGroup, WeightFormat
    from qwenhost.plan import Parallelism, StepShape
    from qwenhost.planner.constants import Constants

BF16_BYTES: Final = 2
# Bytes of activations read and written around the grouped GEMM, per token, hidden channel and expert.
MOE_ACTIVATION_BYTES: Final = 8
MOST_ACCEPTED_DRAFTS: Final = 3  # positions with a measured acceptance; further drafts count as refused


class StepOptions(NamedTuple):
    """The engine arguments that move step time."""

    kv_cache_dtype: str = "auto"
    mamba_ssm_cache_dtype: str = "auto"
    num_speculative_tokens: int = 0
    enforce_eager: bool = False


class StepModel:
    """Step time of one data-parallel replica of one configuration."""

    def __init__(
        self,
        *,
        architecture: Architecture,
        checkpoint: Checkpoint,
        parameters: Mapping[ModuleGroup, int],
        formats: Mapping[ModuleGroup, WeightFormat],
        parallelism: Parallelism,
        options: StepOptions,
        spec: GpuSpec,
        constants: Constants,
        interconnect: str,
    ) -> None:
        self._arch, self._checkpoint, self._formats = architecture, checkpoint, formats
        self._parallel, self._options = parallelism, options
        self._spec, self._constants = spec, constants
        self._tp = parallelism.tensor_parallel_size
        self._ranks = self._tp * parallelism.data_parallel_size
        self._exponent = constants["kernel_sum_exponent"]
        self._multiplier = constants["step_time_multiplier"] * self._imbalance()
        self._collective = Collective(spec, constants, interconnect)
        self._parameters = parameters
        self._fixed_s = self._fixed_seconds()
        self._launch_all_s = architecture.num_hidden_layers * constants["eager_layer_s"]
        drafts = range(1, min(options.num_speculative_tokens, MOST_ACCEPTED_DRAFTS) + 1)
        accepted = math.fsum(constants[f"mtp_acceptance_{i}"] for i in drafts)
        self.tokens_per_step = 1 + accepted
        """Output tokens a sequence gains per step: 1 plus accepted drafts."""
        low = constants["mtp_acceptance_low_1"] / constants["mtp_acceptance_1"]
        self.tokens_per_step_low = 1 + accepted * low
        """The same for text that is hard to draft."""
        self.distinct = DistinctExperts(
            architecture.num_experts, architecture.num_experts_per_tok, constants["expert_skew_decay"]
        )
        self._layers = self._build_layers()
        self._shared = Stack([self._gemm("shared_expert", architecture.num_hidden_layers * 2)])
        self._most_overlapped = constants["shared_expert_overlap_max_tokens"]
        self._head = Stack([self._gemm("lm_head", 1)])
        self._moe = self._build_moe("routed_experts", architecture.num_hidden_layers)
        self._draft = self._build_draft()
        self._draft_moe = self._build_moe("mtp_routed_experts", 1)
        self._build_state_traffic()

    # ----------------------------------------------------------------- public

    def cost(self, shape: StepShape) -> StepCost:
        """Time of one engine step of this replica; nothing to do takes none."""
        if shape.decode_sequences + shape.prefill_tokens <= 0:
            return StepCost(0.0, 0.0, 0.0, 0.0, 0.0)
        return self.cost_of(shape, self.distinct)

    def cost_of(self, shape: StepShape, distinct: Callable[[float], float]) -> StepCost:
        """The equations: for one step, or with arrays in ``shape`` for many (``planner.vectors``).

        With pipeline parallelism a step is the time in which every sequence advances once: each
        micro-batch of 1/PP of the work passes all stages while the others keep the rest busy.

        Args:
            shape: at least one token in every step.
            distinct: expected distinct experts of so many routed tokens.
        """
        pp = self._parallel.pipeline_parallel_size
        decode, prefill = shape.decode_sequences / pp, shape.prefill_tokens / pp
        drafts = self._options.num_speculative_tokens
        tokens = decode * (1 + drafts) + prefill
        total = Tally(self._exponent, self._spec.hbm_bytes_per_s)
        total.stack(self._layers, tokens)
        total.stack(self._shared, tokens)
        # A second stream runs the shared expert beside the others: that hides launches, not bandwidth.
        total.host_s -= self._shared.launch_s * (tokens <= self._most_overlapped)
        chunks = shape.prefill_sequences + (shape.prefill_sequences < 1)
        total.stack(self._head, decode * (1 + drafts) + chunks * (prefill > 0))
        self._add_moe(total, self._moe, tokens, distinct)
        self._add_state(total, decode, shape.decode_context_tokens / pp)
        self._add_prefill(total, shape, chunks, pp)
        total.host_s += self._fixed_s + self._sequence_s * decode
        if drafts:
            self._add_drafts(total, decode, distinct)
        total.flops_s *= self._constants["flops_time_multiplier"]
        total.link_s += self._link_seconds(tokens)
        if self._options.enforce_eager:
            # The host launches every kernel while the GPU works: the step takes the longer of the two.
            total.host_s += positive(self._launch_all_s - total.seconds)
        return total.cost(self._multiplier)

    def seconds(self, shape: StepShape) -> float:
        """Seconds of one engine step."""
        return self.cost(shape).seconds

    # ----------------------------------------------------------------- what is fixed

    def _fixed_seconds(self) -> float:
        c, layers = self._constants, self._arch.num_hidden_layers
        small = layers * c["elementwise_per_layer"] * c["elementwise_s"]
        return c["t_fix_s"] + small

    def _imbalance(self) -> float:
        """Ranks that wait for one another take longer than the mean rank."""
        parallel, factor = self._parallel, 1.0
        if parallel.data_parallel_size > 1 or (parallel.enable_expert_parallel and self._tp > 1):
            factor *= self._constants["rank_imbalance_step_multiplier"]
        if parallel.pipeline_parallel_size > 1:
            factor *= self._constants["pipeline_step_multiplier"]
        return factor

    def _build_layers(self) -> Stack:
        arch = self._arch
        linear, full = arch.num_linear_attention_layers, arch.num_full_attention_layers
        return Stack(
            [
                self._gemm("linear_attn", linear * 2),
                self._gemm("linear_attn_small", linear),
                self._gemm("self_attn", full * 2),
                self._gemm("router", arch.num_hidden_layers, sharded=False),
            ]
        )

    def _build_draft(self) -> Stack:
        if not self._options.num_speculative_tokens:
            return Stack([])
        return Stack([self._gemm("mtp_fc", 1), self._gemm("mtp_self_attn", 2), self._gemm("lm_head", 1)])

    def _build_moe(self, group: ModuleGroup, layers: int) -> Kernel:
        arch = self._arch
        expert_bytes = arch.expert_parameters * self._formats[group].bytes_per_parameter
        name, peak = self._kernel_class(self._formats[group], "moe")
        constants = self._constants.kernel(name)
        efficiency = constants.flops_efficiency
        if experts_run_on_marlin(self._formats[group].compute, self._spec):  # a weight-only kernel
            peak, efficiency = self._spec.bf16_flops, self._constants.kernel("moe_int4").flops_efficiency
        return Kernel(
            launch_s=layers * constants.t0_s,
            weight_bytes=layers * expert_bytes / self._ranks,  # of one expert, every layer
            expert_s=layers * constants.expert_s,
            bytes_per_token=layers * MOE_ACTIVATION_BYTES * arch.hidden_size * arch.num_experts_per_tok,
            flops_per_token=layers * 2 * arch.num_experts_per_tok * arch.expert_parameters / self._ranks,
            bytes_per_s=self._spec.hbm_bytes_per_s * constants.bandwidth_efficiency,
            flops_per_s=peak * efficiency,
            peak_flops=peak,
        )

    def _gemm(self, group: ModuleGroup, count: int, *, sharded: bool = True) -> Kernel:
        share = self._tp if sharded else 1
        parameters = self._parameters[group] / share
        weight_format = self._formats[group]
        name, peak = self._kernel_class(weight_format, "gemm")
        constants = self._constants.kernel(name)
        return Kernel(
            launch_s=count * constants.t0_s,
            weight_bytes=parameters * weight_format.bytes_per_parameter,
            bytes_per_token=0.0,
            flops_per_token=2 * parameters,
            bytes_per_s=self._spec.hbm_bytes_per_s * constants.bandwidth_efficiency,
            flops_per_s=peak * constants.flops_efficiency,
            peak_flops=peak,
        )

    def _kernel_class(self, weight_format: WeightFormat, kind: str) -> tuple[str, float]:
        """Kernel class and the tensor-core rate it runs at; weight-only kernels compute in BF16."""
        spec = self._spec
        native = spec.compute_capability >= weight_format.native_compute_capability
        if weight_format.bits >= 16:
            return f"{kind}_bf16", spec.bf16_flops
        if weight_format.compute == "fp8":
            return f"{kind}_fp8", (spec.fp8_flops if native and spec.fp8_flops else spec.bf16_flops)
        if weight_format.compute == "fp4":
            return f"{kind}_fp4", (spec.fp4_flops if native and spec.fp4_flops else spec.bf16_flops)
        return f"{kind}_int4", spec.bf16_flops

    def _build_state_traffic(self) -> None:
        arch, options = self._arch, self._options
        cache = CacheOptions(
            tensor_parallel_size=self._tp,
            kv_cache_dtype=options.kv_cache_dtype,
            mamba_ssm_cache_dtype=options.mamba_ssm_cache_dtype,
        )
        drafts = options.num_speculative_tokens
        # One read, one write, and one more state written per draft token.
        state = (2 + drafts) * state_bytes_per_layer(arch, cache) * arch.num_linear_attention_layers
        self._state_bytes_per_sequence = state
        self._gdn, self._attention = (
            self._constants.kernel("gdn_decode"),
            self._constants.kernel("attention_decode"),
        )
        self._decode_launch_s = (
            arch.num_linear_attention_layers * self._gdn.t0_s
            + arch.num_full_attention_layers * self._attention.t0_s
        )
        self._sequence_s = self._constants["t_seq_s"]
        layers = arch.num_full_attention_layers
        self._kv_bytes_per_token = kv_bytes_per_token_per_layer(arch, cache) * layers
        heads = arch.num_attention_heads / self._tp
        self._attention_flops = 4 * layers * heads * arch.head_dim  # per (query token, context token)
        kv = "fp8" if options.kv_cache_dtype.startswith("fp8") else "bf16"
        self._attention_prefill_flops_per_s = (
            self._spec.bf16_flops * self._constants[f"attention_prefill_efficiency_{kv}_kv"]
        )
        per_head = (
            self._constants["gdn_prefill_s_per_token_head"]
            + self._constants["gdn_conv_prefill_s_per_token_head"]
        )
        self._gdn_prefill_s_per_token = (
            per_head * arch.linear_num_value_heads / self._tp * arch.num_linear_attention_layers
        )

    # ----------------------------------------------------------------- what a step adds

    def _add_moe(
        self, total: Tally, moe: Kernel, tokens: float, distinct: Callable[[float], float], times: int = 1
    ) -> None:
        # All data-parallel ranks meet in the experts.
        routed = tokens * self._parallel.data_parallel_size
        hit, busiest, holders = distinct(routed), 1.0, 1
        if self._parallel.enable_expert_parallel and self._ranks > 1:
            holders = self._ranks
            hit = self._hit_on_fullest_rank(hit) * holders
            busiest = self._constants["expert_parallel_hot_rank"]
        read = moe.weight_bytes * hit + moe.bytes_per_token * tokens
        total.kernel(moe, read, moe.flops_per_token * routed * busiest, times)
        total.hbm_s += times * moe.expert_s * hit / holders

    def _hit_on_fullest_rank(self, hit: float) -> float:
        """Expert parallel: the mean rank's share and the fullest's expected excess, at most all it holds."""
        experts, ranks = self._arch.num_experts, self._ranks
        share = hit / ranks
        spread = 2 * math.log(ranks) * share * (1 - hit / experts)
        excess: float = positive(spread) ** 0.5
        fullest = share + excess
        return fullest - positive(fullest - experts / ranks)

    def _add_state(self, total: Tally, decode: float, context_tokens: float) -> None:
        """Gated DeltaNet state and KV cache of the decoding sequences."""
        total.stream(self._state_bytes_per_sequence * decode, self._gdn.bandwidth_efficiency)
        total.stream(self._kv_bytes_per_token * context_tokens, self._attention.bandwidth_efficiency)
        total.host_s += self._decode_launch_s * (decode > 0)

    def _add_prefill(self, total: Tally, shape: StepShape, chunks: float, pp: int) -> None:
        """Attention of each chunk to what stands before it and inside it; linear attention by the token."""
        before = shape.prefill_tokens * shape.prefill_context_tokens / chunks
        inside = shape.prefill_tokens**2 / 2 / chunks
        flops = self._attention_flops * (before + inside) / pp
        total.compute(flops, self._attention_prefill_flops_per_s, self._spec.bf16_flops)
        total.flops_s += self._gdn_prefill_s_per_token * shape.prefill_tokens / pp

    def _add_drafts(self, total: Tally, decode: float, distinct: Callable[[float], float]) -> None:
        drafts, some = self._options.num_speculative_tokens, decode > 0
        total.stack(self._draft, decode, drafts * some)
        self._add_moe(total, self._draft_moe, decode, distinct, drafts * some)
        total.host_s += drafts * some * self._constants["draft_token_s"]

    def _link_seconds(self, tokens: float) -> float:
        layers, hidden = self._arch.num_hidden_layers, self._arch.hidden_size
        size = tokens * hidden * BF16_BYTES
        attention = self._collective.all_reduce(size, self._tp)
        dp = self._parallel.data_parallel_size
        experts = attention
        if dp > 1:
            experts = self._collective.gather_and_scatter(size * dp, self._ranks)
            experts += self._collective.gather(size, self._tp)
        stages = self._collective.hand_over(size) * (self._parallel.pipeline_parallel_size - 1)
        norms = self._arch.norm_all_reduces_per_layer * self._collective.all_reduce(8 * tokens, self._tp)
        return layers * (attention + experts + norms) + attention + stages
