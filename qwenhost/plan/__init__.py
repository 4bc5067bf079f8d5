"""The decision as data: what was asked, what was chosen, what was rejected and why.

The first of two waists (planner -> render, launcher, simulate, cost, report). JSON keys follow the
``qwenhost.plan/1`` contract; more keys may come, these stay.
"""

from __future__ import annotations

from qwenhost.plan.document import (
    SCHEMA,
    Candidate,
    Fallback,
    Plan,
    PlanInputs,
    Rejection,
    load_plan,
    plan_from_json,
    plan_to_json,
)
from qwenhost.plan.engine import (
    DEFAULT_VLLM_VERSION,
    LORA_MODULES,
    LORA_RANKS,
    CheckpointRef,
    EngineArgs,
    LoraOptions,
    Parallelism,
    SpeculativeConfig,
)
from qwenhost.plan.estimates import Bound, Estimate, KvCache, MemoryBreakdown, SpeedEstimate, StepShape
from qwenhost.plan.request import GpuPriceRef, Objective, Pins, PlanRequest

__all__ = [
    "DEFAULT_VLLM_VERSION",
    "LORA_MODULES",
    "LORA_RANKS",
    "SCHEMA",
    "Bound",
    "Candidate",
    "CheckpointRef",
    "EngineArgs",
    "Estimate",
    "Fallback",
    "GpuPriceRef",
    "KvCache",
    "LoraOptions",
    "MemoryBreakdown",
    "Objective",
    "Parallelism",
    "Pins",
    "Plan",
    "PlanInputs",
    "PlanRequest",
    "Rejection",
    "SpeculativeConfig",
    "SpeedEstimate",
    "StepShape",
    "load_plan",
    "plan_from_json",
    "plan_to_json",
]
