"""What a LoRA costs to train and serve, and the gain in solved tasks at which it pays back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.cost.assumptions import assumption
from qwenhost.facts import Value
from qwenhost.units import DAYS_PER_MONTH, SECONDS_PER_HOUR

if TYPE_CHECKING:
    from qwenhost.cost.comparison import Comparison
    from qwenhost.facts import Catalog, GpuSpec

ACTIVE_PARAMETERS = 10e9
"""Of 122B-A10B."""
FLOPS_PER_PARAMETER_TOKEN = 6
"""Forward and backward, an upper bound for LoRA, which needs no gradients of frozen weights (4)."""
WEEKS_PER_YEAR = 52


class FineTuning(Value, frozen=True, kw_only=True):
    """One adapter on the self-hosted side."""

    gpu_hours: float
    """All runs: runs * 6 * active parameters * tokens / (GPU rate * utilisation)."""
    usd_training: float
    """At the rent of the comparison."""
    usd_work: float
    usd_serving_per_month: float
    """Nodes' rent times the capacity an adapter takes."""
    usd_per_month: float
    """Training and work over the adapter's life, and serving."""
    gain_to_pay_back: float | None
    """Share of tasks it must solve beyond what Qwen solves now, each saving one request (session) at the
    baseline; None = more than is left to solve."""
    left_to_solve: float | None
    """1 - success rate now, by the scores in question."""
    assumptions: tuple[str, ...]


def fine_tuning(
    catalog: Catalog, comparison: Comparison, gpu: GpuSpec, *, qwen_rate: float | None
) -> FineTuning:
    """Price an adapter from the catalog's assumptions."""
    tokens = assumption(catalog, "lora_training_tokens")
    runs = assumption(catalog, "lora_runs")
    utilisation = assumption(catalog, "lora_flops_utilisation")
    weeks = assumption(catalog, "lora_engineer_weeks")
    life = assumption(catalog, "lora_life_months")
    slower = assumption(catalog, "lora_serving_slowdown")
    salary = assumption(catalog, "staff_usd_per_fte_year")
    side = comparison.self_host
    flops = runs.value * FLOPS_PER_PARAMETER_TOKEN * ACTIVE_PARAMETERS * tokens.value
    gpu_hours = flops / (gpu.bf16_flops * utilisation.value) / SECONDS_PER_HOUR
    training = gpu_hours * side.usd_per_gpu_hour.value
    work = weeks.value * salary.value / WEEKS_PER_YEAR
    serving = side.monthly.nodes * slower.value
    monthly = (training + work) / life.value + serving
    at_baseline = comparison.baseline.usd_per_request * comparison.requests_per_day * DAYS_PER_MONTH
    gain = monthly / at_baseline
    left = None if qwen_rate is None else 1 - qwen_rate
    used = (tokens, runs, utilisation, weeks, life, slower)
    return FineTuning(
        gpu_hours=gpu_hours,
        usd_training=training,
        usd_work=work,
        usd_serving_per_month=serving,
        usd_per_month=monthly,
        gain_to_pay_back=gain if gain <= (1.0 if left is None else left) else None,
        left_to_solve=left,
        assumptions=tuple(
            f"{row.why} {row.value:,g} {row.unit} ({row.low:,g} to {row.high:,g}; {row.source.where})"
            for row in used
        ),
    )
