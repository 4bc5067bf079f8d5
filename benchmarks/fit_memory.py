"""Fit the memory terms beside weights and cache to strangers' logs; print the errors with each log left out.

The observation of a log is what vLLM could use, less the model, less the cache it was left with. Terms
enter through the planner's own formula (``overheads``), so that a maximum stays a maximum. Each constant
has a prior, 50 % around what vLLM's source lets one count; a log's error counts by its absolute value
beyond 0.5 GiB, so that no single log decides. Prints the numbers that stand in
``profiles/calibration/memory.yaml`` and fails where those differ.
"""

from __future__ import annotations

import math
import statistics
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from common import write_result
from strangers import Record, blocks_of, records

from qwenhost.planner.overheads import EngineShape, Overheads, overheads
from qwenhost.planner.sizing import size_as_given
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Mapping

# Logs with the utilization, the flags and the checkpoint known, on a GPU whose total is known.
FITTED = (
    "397b-nvidia-nvfp4-nomtp-4xrtxpro6000",
    "397b-lukealonso-nvfp4-mtp-4xrtxpro6000",
    "qwen35-35b-bf16-spark-262k",
    "qwen36-35b-bf16-spark-131k-textonly",
    "qwen36-27b-nvfp4-nvidia-nomtp-util070",
    "qwen36-35b-nvfp4-5090-131k",
    "qwen38-27b-fp8-2x5090-tp2",
    "qwen3next-80b-awq-2xr9700-tp2-rocmattn",
    "qwen36-27b-fp8-h100-mamba-856",
    "qwen38-27b-fp8-2x3090-tp2-talos",
)
# Two starts of one machine that differ in a flag: the step in "GPU KV cache size" is a step in activations.
DIFFERENCES = (
    # (record, tokens before, flags before, tokens after, flags after), length 32,768, eager, FP8 cache
    ("qwen38-27b-1x5090-recipe-eager", 91022, {}, 135926, {"vision": False}),
    (
        "qwen38-27b-1x5090-recipe-eager",
        135926,
        {"vision": False},
        152917,
        {"vision": False, "max_num_seqs": 8},
    ),
)
PRIOR = {
    # 15.03 GiB consumed less 14.28 GiB of weights in one log: buffers of the attention and MoE backends.
    "persistent_buffer_bytes": 8.0e8,
    "activation_base_bytes": 4.0e8,
    # Residual, norm, projections and their outputs that torch holds at once.
    "activation_hidden_copies": 8.0,
    # BF16 logits, their FP32 copy, probabilities, and what top-k/top-p needs beside them.
    "sampler_bytes_per_row_vocab": 12.5,
    # The largest image: 65,536 patches through a tower 1,152 wide.
    "vision_profile_bytes": 2.0e9,
    # Graphs share one pool: a base, and little for each size.
    "cudagraph_base_bytes": 1.0e8,
    "cudagraph_bytes_per_capture_size": 1.2e7,
}
PRIOR_SPREAD = math.log(1.5)
ERROR_SCALE_GIB = 0.5
ROUNDS = 60
SAME = 0.02


@dataclass(frozen=True)
class Observation:
    """Bytes that terms of the formula must add up to."""

    name: str
    gib: float
    record: Record
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    graphs: bool = False


class Changed:
    """Constants with some of them replaced."""

    def __init__(self, base: Any, values: Mapping[str, float]) -> None:
        self._base, self._values = base, values

    def __getitem__(self, name: str) -> float:
        return self._values[name] if name in self._values else self._base[name]

    def get(self, name: str, default: float) -> float:
        """As Constants.get."""
        return self._values.get(name, self._base.get(name, default))


def observations() -> list[Observation]:
    """What the logs say, less what is computed exactly."""
    known = {record.id: record for record in records()}
    found = [Observation(name, residual_gib(known[name]), known[name]) for name in FITTED]
    for name, tokens, before, fewer, after in DIFFERENCES:
        record = known[name]
        start = record.start
        blocks, _, _ = size_as_given(start.context, start.option, start.settings)
        charged = blocks.blocks_charged(start.max_model_len)
        step = (fewer - tokens) / start.max_model_len * charged * blocks.block_bytes / GIB
        if after.get("vision") is False and not before:
            architecture = start.context.architecture_of(start.option)
            step -= architecture.parameters["vision"] * 2 / GIB  # the tower's own weights
        found.append(Observation(f"{name} {after}", step, record, before, after))
    for record in known.values():
        graphs = record.observed.get("cudagraph_estimated_gib") or record.observed.get("cudagraph_gib")
        if graphs:
            found.append(Observation(f"{record.id} graphs", graphs, record, graphs=True))
    return found


def residual_gib(record: Record) -> float:
    """Usable memory less the model and the cache."""
    start, observed = record.start, record.observed
    blocks, memory, _ = size_as_given(start.context, start.option, start.settings)
    loaded = observed.get("model_loading_gib") or memory.weights_bytes / GIB
    available = observed.get("available_kv_gib")
    if available is None:
        available = blocks_of(record) * blocks.block_bytes / GIB
    graphs = observed.get("cudagraph_estimated_gib", 0.0)
    return memory.usable_bytes / GIB - loaded - available - graphs


def predicted_gib(observation: Observation, values: Mapping[str, float]) -> float:
    """The same by the planner's formula."""
    if observation.graphs:
        return _overheads(observation.record, values, {}).cudagraph_bytes / GIB
    if observation.before is not None and observation.after is not None:
        return _terms(observation.record, values, observation.before) - _terms(
            observation.record, values, observation.after
        )
    return _terms(observation.record, values, {})


def _terms(record: Record, values: Mapping[str, float], changes: dict[str, Any]) -> float:
    found = _overheads(record, values, changes)
    # Logs that print an estimate had it taken off above; those before 0.20 never counted graphs.
    counted = not record.start.is_before_graphs and "cudagraph_estimated_gib" not in record.observed
    return (found.total_bytes - (0 if counted else found.cudagraph_bytes)) / GIB


def _overheads(record: Record, values: Mapping[str, float], changes: dict[str, Any]) -> Overheads:
    start = record.start
    context, option, settings = start.context, start.option, start.settings
    shape = EngineShape(
        max_num_seqs=changes.get("max_num_seqs", settings.most_sequences),
        max_num_batched_tokens=settings.max_num_batched_tokens,
        num_speculative_tokens=option.num_speculative_tokens,
        vision=changes.get("vision", settings.vision),
        enforce_eager=settings.enforce_eager,
        v2_runner=False,
    )
    constants: Any = Changed(context.constants, values)
    return overheads(
        context.architecture_of(option), option.layout, shape, constants, context.spec.compute_capability
    )


def fit(rows: list[Observation]) -> dict[str, float]:
    """Cyclic search on a logarithmic grid that narrows."""
    values, step = dict(PRIOR), 0.4
    for _ in range(ROUNDS):
        for name in PRIOR:
            choices = [values | {name: values[name] * math.exp(k * step)} for k in (-1, 0, 1)]
            values = min(choices, key=lambda tried: loss(rows, tried))
        step = max(0.002, step * 0.85)
    return values


def loss(rows: list[Observation], values: Mapping[str, float]) -> float:
    """Errors beyond half a GiB linearly, priors quadratically."""
    prior = sum((math.log(values[name] / PRIOR[name]) / PRIOR_SPREAD) ** 2 for name in PRIOR)
    errors = ((predicted_gib(row, values) - row.gib) / ERROR_SCALE_GIB for row in rows)
    return prior + sum(math.sqrt(1 + error**2) - 1 for error in errors)


def main() -> int:
    """Fit, leave each out, compare with the catalog."""
    rows = observations()
    values = fit(rows)
    print(f"{'log':<62} {'observed':>9} {'fitted':>7} {'left out':>9}  GiB")
    left_out = []
    for index, row in enumerate(rows):
        alone = predicted_gib(row, fit(rows[:index] + rows[index + 1 :]))
        left_out.append(alone - row.gib)
        print(f"{row.name[:62]:<62} {row.gib:9.2f} {predicted_gib(row, values):7.2f} {alone:9.2f}")
    inside = [predicted_gib(row, values) - row.gib for row in rows]
    median_inside, median_out = (statistics.median(map(abs, errors)) for errors in (inside, left_out))
    print(
        f"median absolute error {median_inside:.2f} GiB, {median_out:.2f} GiB with the log itself left out; "
        f"worst {max(map(abs, left_out)):.2f} GiB"
    )
    wrong = []
    for name, value in values.items():
        stands = rows[0].record.start.context.constants[name]
        differs = abs(math.log(stands / value)) > SAME
        wrong += [name] if differs else []
        print(f"  {name}: {value:.3g}" + (f"   (memory.yaml: {stands:.3g})" if differs else ""))
    path = write_result(
        "fit_memory",
        {
            "constants": values,
            "median_absolute_error_gib": median_inside,
            "left_out_median_absolute_error_gib": median_out,
            "left_out_errors_gib": dict(zip((row.name for row in rows), left_out, strict=True)),
        },
    )
    print(f"kept {path.name}")
    if wrong:
        print(f"memory.yaml holds other numbers: {', '.join(wrong)}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
