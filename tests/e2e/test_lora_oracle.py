"""Memory of LoRA slots equals what vLLM's own LoRA layers allocate, module by module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from e2e import oracles
from qwenhost.plan import LoraOptions, Parallelism
from qwenhost.planner.lora import slot_bytes
from qwenhost.profiles import load_catalog

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIG = Path(__file__).parents[1] / "data" / "configs" / "qwen3.5-122b-a10b.json"
CASES: list[dict[str, Any]] = [
    {"layout": {}, "max_loras": 1, "max_lora_rank": 16},
    {"layout": {"tensor_parallel_size": 2}, "max_loras": 3, "max_lora_rank": 32},
    {"layout": {"tensor_parallel_size": 8}, "max_loras": 2, "max_lora_rank": 8},
    {"layout": {"tensor_parallel_size": 4, "enable_expert_parallel": True},
     "max_loras": 1, "max_lora_rank": 64},
    {"layout": {"tensor_parallel_size": 2}, "max_loras": 4, "max_lora_rank": 16,
     "lora_target_modules": ["q_proj", "o_proj", "in_proj_z", "out_proj"]},
    {"layout": {"tensor_parallel_size": 2}, "max_loras": 1, "max_lora_rank": 128,
     "lora_target_modules": ["experts"]},
]  # fmt: skip


def test_slots_equal_vllm() -> None:
    """Six combinations of layout, slots, rank and target modules."""
    catalog = load_catalog()
    checkpoint = catalog.checkpoints["bf16"]
    asked = [
        {
            "config": str(CONFIG),
            "vision": False,
            **case["layout"],
            "engine_args": {"enable_lora": True, **{k: v for k, v in case.items() if k != "layout"}},
        }
        for case in CASES
    ]
    for case, theirs in zip(CASES, oracles.ask("lora_oracle.py", asked), strict=True):
        layout = Parallelism(**case["layout"])
        for modules in ((), *((module,) for module in theirs)):
            lora = LoraOptions(
                max_loras=case["max_loras"],
                max_lora_rank=case["max_lora_rank"],
                lora_target_modules=modules or tuple(case.get("lora_target_modules", ())),
            )
            ours = slot_bytes(catalog.architectures[checkpoint.architecture], checkpoint, layout, lora)
            assert ours == (theirs[modules[0]] if modules else sum(theirs.values())), (case, modules)
