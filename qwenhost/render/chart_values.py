"""Values of the chart: the parts a plan decides. ``k8s/chart/values.yaml`` describes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from qwenhost.render.chart_report import pool_report, waiting_per_replica
from qwenhost.render.flags import environment, vllm_flags
from qwenhost.render.host_formats import config_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.plan import CheckpointRef, Plan
    from qwenhost.render.target import Target

RESOURCE: Final = "nvidia.com/gpu"
_LONGEST_NAME: Final = 20  # the chart puts it into names of objects and labels
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
    """Of the plan, which may have several engines itself."""
    nodes: int = 1
    """Of one replica."""
    report: str
    tolerations: tuple[Mapping[str, str], ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The entry of ``pools``."""
        plan, chosen = self.plan, self.plan.chosen
        gpu = plan.inputs.node.gpus[0]
        entry: dict[str, Any] = {
            "name": self.name[:_LONGEST_NAME].rstrip("-"),
            "replicas": self.replicas * chosen.parallelism.replicas,
            "nodes": self.nodes,
            "gpusPerNode": chosen.parallelism.engine_gpus // self.nodes,
            "accelerator": {
                "resource": RESOURCE,
                "products": list(self.products),
                "minMemoryMiB": gpu.memory_total_bytes // 2**20 - _MEMORY_SLACK_MIB,
            },
            "engine": {"config": engine_config(plan), "env": environment(chosen)},
            "capacity": _capacity(plan),
            "tolerations": [dict(one) for one in self.tolerations],
            "report": self.report,
        }
        if not entry["tolerations"]:
            del entry["tolerations"]
        return entry


def _capacity(plan: Plan) -> dict[str, Any]:
    """What the plan says of one pod: for autoscaling, alerts and the dashboard."""
    chosen, engines = plan.chosen, plan.chosen.parallelism.replicas
    capacity: dict[str, Any] = {
        "concurrency": max(1, round(chosen.estimate.concurrency.value / engines)),
        "outputTokensPerSecond": round(chosen.estimate.output_tokens_per_s.value / engines),
    }
    if chosen.usd_per_hour is not None:
        capacity["usdPerHour"] = round(chosen.usd_per_hour / engines, 4)
    return capacity | {"waitingPerReplica": waiting_per_replica(plan)}


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


def pinned_values(plan: Plan, target: Target) -> dict[str, Any]:
    """Values with one plan pinned: one pool of the GPUs it was made for."""
    layout, gpu = plan.chosen.parallelism, plan.inputs.node.gpus[0]
    pods = f"{layout.replicas} x {layout.engine_gpus} GPUs"
    pool = ChartPool(
        name=gpu.spec or "gpu",
        plan=plan,
        products=(product_label(gpu.name),),
        replicas=1,
        report=pool_report(plan, pods, replicas=1),
    )
    values = chart_values([pool])
    if target.local_model:
        # The nodes have the folder: no download, and no commit to speak of.
        del values["model"]["repoId"]
        values["model"].pop("revision", None)
        values["model"]["source"] = {"type": "hostPath", "hostPath": {"path": target.local_model}}
    elif target.model and target.model != plan.chosen.checkpoint.repo_id:
        values["model"]["repoId"] = target.model
        values["model"].pop("revision", None)
    return ({"image": image_parts(target.image)} if target.image else {}) | values


def image_parts(image: str) -> dict[str, str]:
    """``registry:5000/vllm:v1@sha256:...`` in its parts; those it lacks are left out."""
    name, _, digest = image.partition("@")
    folder, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    parts = {"repository": f"{folder}{slash}{last}", "tag": tag, "digest": digest}
    return {key: value for key, value in parts.items() if value}
