"""A ladder of device requests: the fewest GPUs first, each rung with the least memory that the planner takes.

``firstAvailable`` of Dynamic Resource Allocation asks for the first rung that fits on a node, so that one
claim is served by two large GPUs here and by eight small ones there.
Source: https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/#prioritized-list
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.facts import Value
from qwenhost.node import Gpu, Node
from qwenhost.plan import Plan
from qwenhost.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qwenhost.facts import GpuSpec

    # The plan for a machine that serves as it should, or None.
    Feasible = Callable[[Node], Plan | None]

COUNTS: Final = (1, 2, 4, 8)
_LEAST_GIB: Final = 8
DEVICE_CLASS: Final = "gpu.nvidia.com"


class Rung(Value, frozen=True, kw_only=True):
    """So many GPUs of at least so much memory each."""

    name: str
    """E.g. ``2x-74gi``; a DNS label."""
    count: int
    min_memory_gib: int
    min_compute_capability: float
    plan: Plan
    """On the neediest kind of GPU with just this memory."""

    @property
    def values(self) -> dict[str, Any]:
        """The entry of the chart's ``dra.ladder``."""
        return {
            "name": self.name,
            "count": self.count,
            "minMemory": f"{self.min_memory_gib}Gi",
            "minComputeCapability": str(self.min_compute_capability),
        }


def ladder(specs: Sequence[GpuSpec], feasible: Feasible, counts: Iterable[int] = COUNTS) -> list[Rung]:
    """The rungs, fewest GPUs first.

    Args:
        specs: every GPU that a claim may be given; each is tried with its memory varied, since kernels and
            what they hold differ. None is let through with less memory than the neediest of them wants.
        feasible: plans on a machine, or says None where nothing serves as it should.
        counts: of GPUs.
    """
    rungs: list[Rung] = []
    capability = min((spec.compute_capability for spec in specs), default=0.0)
    most = max((spec.memory_bytes for spec in specs), default=0) // GIB
    for count in sorted(counts):
        least = [_least(spec, count, most, feasible) for spec in specs]
        found = [one for one in least if one is not None]
        if not found or len(found) < len(least):
            continue
        gib, plan = max(found, key=lambda one: one[0])
        if rungs and gib >= rungs[-1].min_memory_gib:
            continue
        rungs.append(
            Rung(
                name=f"{count}x-{gib}gi",
                count=count,
                min_memory_gib=gib,
                min_compute_capability=capability,
                plan=plan,
            )
        )
    return rungs


def _least(spec: GpuSpec, count: int, most_gib: int, feasible: Feasible) -> tuple[int, Plan] | None:
    """The least memory, in GiB, with its plan; None where not even the largest GPU's suffices."""
    plan = feasible(_machine(spec, count, most_gib))
    if plan is None:
        return None
    low, high = _LEAST_GIB, most_gib
    while low < high:
        middle = (low + high) // 2
        tried = feasible(_machine(spec, count, middle))
        if tried is None:
            low = middle + 1
        else:
            high, plan = middle, tried
    return high, plan


def _machine(spec: GpuSpec, count: int, memory_gib: int) -> Node:
    sized = msgspec.structs.replace(spec, memory_bytes=memory_gib * GIB)
    gpus = tuple(
        Gpu(
            index=index,
            name=sized.name,
            spec=sized.id,
            memory_total_bytes=sized.memory_bytes,
            compute_capability=sized.compute_capability,
        )
        for index in range(count)
    )
    link = "none" if count == 1 else spec.link
    return Node(gpus=gpus, interconnect=link, origin="described", description=f"{count}x {memory_gib} GiB")


def claim_template(rungs: Iterable[Rung], name: str, *, same_product: bool = True) -> dict[str, Any]:
    """A ResourceClaimTemplate (``resource.k8s.io/v1``) with the ladder, for use without the chart."""
    choices = [
        {
            "name": rung.name,
            "deviceClassName": DEVICE_CLASS,
            "allocationMode": "ExactCount",
            "count": rung.count,
            "selectors": [{"cel": {"expression": _expression(rung)}}],
        }
        for rung in rungs
    ]
    devices: dict[str, Any] = {"requests": [{"name": "gpus", "firstAvailable": choices}]}
    if same_product:
        devices["constraints"] = [{"requests": ["gpus"], "matchAttribute": f"{DEVICE_CLASS}/productName"}]
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name},
        "spec": {"spec": {"devices": devices}},
    }


def _expression(rung: Rung) -> str:
    attributes = f"device.attributes['{DEVICE_CLASS}']"
    return (
        f"{attributes}.type == 'gpu' && "
        f"device.capacity['{DEVICE_CLASS}'].memory.compareTo(quantity('{rung.min_memory_gib}Gi')) >= 0 && "
        f"{attributes}.cudaComputeCapability.compareTo(semver('{rung.min_compute_capability}.0')) >= 0"
    )
