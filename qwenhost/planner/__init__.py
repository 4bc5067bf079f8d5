"""Which checkpoint, layout and engine arguments serve a workload on a node best; pure decisions."""

from __future__ import annotations

from qwenhost.planner.decide import make_plan, step_time_function

__all__ = ["make_plan", "step_time_function"]
