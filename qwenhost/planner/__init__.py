"""Which checkpoint, layout and engine arguments serve a workload on a node best; pure decisions."""

from __future__ import annotations

from qwenhost.planner.arithmetic import why_not_arithmetic
from qwenhost.planner.decide import make_plan, plan_inputs, step_time_function
from qwenhost.planner.explain import explain, explain_rejections, why_not
from qwenhost.planner.pareto import pareto_front, pareto_points

__all__ = [
    "explain",
    "explain_rejections",
    "make_plan",
    "pareto_front",
    "pareto_points",
    "plan_inputs",
    "step_time_function",
    "why_not",
    "why_not_arithmetic",
]
