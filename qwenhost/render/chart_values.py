"""Values of the chart: the parts a plan decides. ``k8s/chart/values.yaml`` describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qwenhost.render.flags import environment, vllm_flags
from qwenhost.render.host_formats import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.plan import CheckpointRef, Plan

RESOURCE: Final = "nvidia.com/gpu"
# Labels of nodes differ by what a driver keeps to itself; other GPUs of a product differ by gigabytes.
_MEMORY_SLACK_MIB: Final = 1000
# Said elsewhere in the values, or decided by the chart.
_NOT_CONFIG: Final = frozenset({"model", "revision", "served_model_name", "host", "port"})


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartPool:
    """One kind of GPU behind the endpoint."""

    name: str
    plan: Plan
    """Of one replica."""
    products: tuple[str, ...]
    """Values of the label nvidia.com/gpu.product."""
    replicas: int
    nodes: int = 1
    """Of one replica."""
    waiting_per_replica: int
    """Waiting requests at which another pod is worth its start."""
    report: str
    tolerations: tuple[Mapping[str, str], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The entry of ``pools``."""
        plan, chosen = self.plan, self.plan.chosen
        gpu = plan.inputs.node.gpus[0]
        capacity: dict[str, Any] = {
            "concurrency": max(1, round(chosen.estimate.concurrency.value)),
            "outputTokensPerSecond": round(chosen.estimate.output_tokens_per_s.value),
        }
        if chosen.usd_per_hour is not None:
            capacity["usdPerHour"] = round(chosen.usd_per_hour, 4)
        capacity["waitingPerReplica"] = self.waiting_per_replica
        entry: dict[str, Any] = {
            "name": self.name,
            "replicas": self.replicas,
            "nodes": self.nodes,
            "gpusPerNode": chosen.parallelism.world_size // self.nodes,
            "accelerator": {
                "resource": RESOURCE,
                "products": list(self.products),
                "minMemoryMiB": gpu.memory_total_bytes // 2**20 - _MEMORY_SLACK_MIB,
            },
            "engine": {"config": engine_config(plan), "env": environment(chosen)},
            "capacity": capacity,
            "tolerations": [dict(one) for one in self.tolerations],
            "report": self.report,
        }
        if not entry["tolerations"]:
            del entry["tolerations"]
        return entry


def engine_config(plan: Plan) -> dict[str, Any]:
    """The config file of vLLM without what the chart says: model, names, address."""
    flags = vllm_flags(plan.chosen)
    return config_of({name: value for name, value in flags.items() if name not in _NOT_CONFIG})


def model_values(checkpoint: CheckpointRef) -> dict[str, Any]:
    """The chart's ``model``, as far as a plan decides it."""
    values = {
        "repoId": checkpoint.repo_id,
        "revision": checkpoint.revision or "",
        "weightsBytes": checkpoint.disk_bytes,
    }
    return {key: value for key, value in values.items() if value}


def chart_values(pools: Sequence[ChartPool]) -> dict[str, Any]:
    """A values file: the first pool's model, and in each other pool its own where it differs."""
    first = pools[0].plan
    entries = []
    for pool in pools:
        entry = pool.values
        own = pool.plan.chosen.checkpoint
        if own.repo_id != first.chosen.checkpoint.repo_id:
            entry["model"] = model_values(own)
        entries.append(entry)
    return {
        "model": model_values(first.chosen.checkpoint),
        "plan": {"mode": "pinned", "vllmVersion": first.inputs.vllm_version},
        "pools": entries,
    }


def product_label(nvml_name: str) -> str:
    """As GPU feature discovery writes nvidia.com/gpu.product."""
    return nvml_name.replace(" ", "-")
