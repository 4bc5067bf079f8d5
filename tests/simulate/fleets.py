"""Small fleets for tests: one-second steps, or steps of no length but one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.fleet_config import FleetConfig, Pool, Range, StartUp

if TYPE_CHECKING:
    from qwenhost.plan import StepShape


def engine_limits(**changes: Any) -> EngineConfig:
    """Room for everything, no prefix cache."""
    values: dict[str, Any] = {
        "max_model_len": 4096, "max_num_seqs": 64, "max_num_batched_tokens": 4096, "num_blocks": 4001,
        "block_size": 16, "enable_prefix_caching": False,
    }  # fmt: skip
    return EngineConfig(**(values | changes))


def one_second(shape: StepShape) -> float:
    """Every step takes a second."""
    assert shape.prefill_tokens or shape.decode_sequences
    return 1.0


def pool(low: int, high: int | None = None, **changes: Any) -> Pool:
    """A pool of 10-dollar replicas that start in 60 s, or 20 s where they ran."""
    values: dict[str, Any] = {
        "name": "pool",
        "config": engine_limits(),
        "replicas": Range(low=low, high=low if high is None else high),
        "start": StartUp(cold={"weights": 60.0}, warm={"weights": 20.0}),
        "gpus_per_replica": 2,
        "usd_per_hour": 10.0,
    }
    return Pool(**(values | changes))


def fleet(*pools: Pool, **changes: Any) -> FleetConfig:
    """A fleet of pools with distinct names."""
    return FleetConfig(pools=pools, **changes)
