"""A cluster's nodes, as ``kubectl get nodes -o json`` prints them, as pools of equal GPUs.

Labels are those of NVIDIA's GPU feature discovery; no rights in the cluster are needed, a saved file is
as good. Source: https://github.com/NVIDIA/k8s-device-plugin/tree/main/docs/gpu-feature-discovery
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.files import NOT_JSON
from qwenhost.node import Gpu, Node, match_gpu_spec
from qwenhost.units import MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from qwenhost.facts import GpuSpec

RESOURCE: Final = "nvidia.com/gpu"
_LABEL: Final = "nvidia.com/gpu."
_HOW: Final = "Save them with: kubectl get nodes -o json > nodes.json"
# Taints that say what a GPU node is, and that the chart tolerates or a pool's own toleration names.
_GPU_TAINTS: Final = frozenset({"nvidia.com/gpu", "sku", "accelerator", "gpu"})
_UNFIT: Final = "node.kubernetes.io/"
_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
_MOST_DIGITS: Final = 16
_LONGEST_NAME: Final = 20  # the chart puts it into names of objects and labels


class Toleration(Value, frozen=True, kw_only=True):
    """Of a taint that keeps pods off."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    @property
    def text(self) -> str:
        """``sku=gpu:NoSchedule``."""
        return f"{self.key}{'=' if self.value else ''}{self.value}:{self.effect}"


class RefusedNode(Value, frozen=True, kw_only=True):
    """A node with GPUs that no plan is made for."""

    node: str
    reason: str


class GpuPool(Value, frozen=True, kw_only=True):
    """Nodes with the same number of the same GPU."""

    name: str
    """E.g. ``h200``, or ``h200-4`` where nodes with other counts of it are there too."""
    spec: str
    products: tuple[str, ...]
    """Values of the label ``nvidia.com/gpu.product``."""
    gpus_per_node: int
    memory_mib: int
    """The least of its GPUs."""
    nodes: tuple[str, ...]
    tolerations: tuple[Toleration, ...] = ()
    """Beside that of ``nvidia.com/gpu``, which the chart has."""

    def machine(self, specs: Mapping[str, GpuSpec], gpus: int) -> Node:
        """So many of its GPUs as the planner takes them."""
        spec = specs[self.spec]
        return Node(
            gpus=tuple(
                Gpu(
                    index=index,
                    name=spec.name,
                    spec=spec.id,
                    memory_total_bytes=self.memory_mib * MIB,
                    compute_capability=spec.compute_capability,
                    power_limit_w=spec.power_w,
                )
                for index in range(gpus)
            ),
            interconnect="none" if gpus == 1 else spec.link,
            origin="described",
            description=f"{gpus}x {spec.name}",
        )


class Cluster(Value, frozen=True, kw_only=True):
    """What a list of nodes says about GPUs."""

    pools: tuple[GpuPool, ...]
    refused: tuple[RefusedNode, ...]
    nodes: int
    """All of them, those without GPUs too."""


class _Taint(msgspec.Struct):
    key: str
    effect: str
    value: str = ""


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Metadata(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}


class _Spec(msgspec.Struct):
    unschedulable: bool = False
    taints: list[_Taint] = []


class _Status(msgspec.Struct):
    allocatable: dict[str, str] = {}
    conditions: list[_Condition] = []


class _Node(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _NodeList(msgspec.Struct):
    kind: str
    items: list[_Node]


def read_cluster(
    data: bytes, specs: Mapping[str, GpuSpec], *, name: str, tolerate: Iterable[str] = ()
) -> Cluster:
    """The GPU pools of a list of nodes, and the nodes with GPUs that are not for us, each with its reason.

    Args:
        data: JSON of a List or NodeList.
        specs: the catalog's GPUs by id.
        name: what the user calls the file.
        tolerate: keys of taints that pods may bear, beside those that mark GPU nodes.

    Raises:
        BadInputError: not a list of nodes.
    """
    try:
        listed = msgspec.json.decode(data, type=_NodeList)
    except NOT_JSON as error:
        raise BadInputError(f"{name}: not a list of nodes: {error}", remedy=_HOW) from error
    if listed.kind not in {"List", "NodeList"}:
        raise BadInputError(f"{name}: kind is {listed.kind!r}, expected a List of nodes", remedy=_HOW)
    accepted = _GPU_TAINTS | set(tolerate)
    found: list[GpuPool] = []
    refused: list[RefusedNode] = []
    for node in sorted(listed.items, key=lambda one: one.metadata.name):
        if not _has_gpus(node):
            continue
        pool = _pool_of(node, specs, accepted)
        if isinstance(pool, str):
            refused.append(RefusedNode(node=node.metadata.name, reason=pool))
        else:
            found.append(pool)
    return Cluster(pools=_grouped(found), refused=tuple(refused), nodes=len(listed.items))


def _has_gpus(node: _Node) -> bool:
    resources = node.status.allocatable
    labelled = node.metadata.labels.get(f"{_LABEL}present") == "true"
    return labelled or any(re.fullmatch(r"(nvidia\.com/(gpu|mig-).*|amd\.com/gpu)", key) for key in resources)


def _pool_of(node: _Node, specs: Mapping[str, GpuSpec], accepted: set[str] | frozenset[str]) -> GpuPool | str:
    """The node as a pool of its own, or why not."""
    reason = _not_ready(node) or _not_whole(node) or _not_ours(node, accepted)
    if reason:
        return reason
    labels = node.metadata.labels
    product, count = labels.get(f"{_LABEL}product"), _count(node, RESOURCE)
    if not product:
        return (
            f"{count} GPUs without the label {_LABEL}product: install NVIDIA's GPU feature discovery, "
            "or plan by hand with qwenhost render --gpus"
        )
    memory, capability = labels.get(f"{_LABEL}memory", ""), _capability(labels)
    name = product.replace("-", " ")
    spec = (
        match_gpu_spec(name, int(memory) * MIB, capability, specs.values())
        if _is_count(memory) and capability
        else next((one for one in specs.values() if re.search(one.nvml_pattern, name, re.IGNORECASE)), None)
    )
    if spec is None:
        told = f"{product}, {memory or 'unknown'} MiB, capability {capability or 'unknown'}"
        return f"the catalog has no such GPU ({told}): see qwenhost profiles list gpus"
    return GpuPool(
        name=spec.id,
        spec=spec.id,
        products=(product,),
        gpus_per_node=count,
        memory_mib=int(memory) if _is_count(memory) else spec.memory_bytes // MIB,
        nodes=(node.metadata.name,),
        tolerations=tuple(
            Toleration(key=taint.key, value=taint.value, effect=taint.effect)
            for taint in node.spec.taints
            if taint.effect in _EFFECTS and taint.key != RESOURCE
        ),
    )


def _not_ready(node: _Node) -> str | None:
    if node.spec.unschedulable:
        return "it is cordoned (kubectl uncordon makes it schedulable)"
    ready = next((one.status for one in node.status.conditions if one.type == "Ready"), "True")
    if ready != "True":
        return f"it is not ready (condition Ready is {ready})"
    unfit = [t.key for t in node.spec.taints if t.key.startswith(_UNFIT) and t.effect in _EFFECTS]
    return f"it has the taint {unfit[0]}" if unfit else None


def _not_whole(node: _Node) -> str | None:
    """Shared and sliced GPUs: the planner sizes for memory and bandwidth that one engine has to itself."""
    labels, resources = node.metadata.labels, node.status.allocatable
    product = labels.get(f"{_LABEL}product", "")
    sharing = labels.get(f"{_LABEL}sharing-strategy", "none")
    copies = labels.get(f"{_LABEL}replicas", "1")
    if product.endswith("-SHARED") or sharing not in {"none", ""} or (_is_count(copies) and int(copies) > 1):
        how = sharing if sharing not in {"none", ""} else "time-slicing"
        return f"its GPUs are shared by {how}, {copies} pods each: an engine needs whole GPUs"
    slices = sorted(key for key in resources if "/mig-" in key and _count(node, key))
    if "-MIG-" in product or (slices and not _count(node, RESOURCE)):
        what = product if "-MIG-" in product else ", ".join(slices)
        return f"its GPUs are MIG slices ({what}): an engine needs whole GPUs; turn MIG off there"
    return None


def _not_ours(node: _Node, accepted: set[str] | frozenset[str]) -> str | None:
    if "amd.com/gpu" in node.status.allocatable:
        return "AMD GPUs: the chart's image is vLLM's build for CUDA"
    foreign = [t for t in node.spec.taints if t.effect in _EFFECTS and t.key not in accepted]
    if foreign:
        taint = Toleration(key=foreign[0].key, value=foreign[0].value, effect=foreign[0].effect)
        return f"it is tainted {taint.text}, so it may be somebody else's: --tolerate {taint.key} takes it"
    if not _count(node, RESOURCE):
        return f"it has no allocatable {RESOURCE}: the device plugin does not run, or all GPUs are unhealthy"
    return None


def _count(node: _Node, resource: str) -> int:
    text = node.status.allocatable.get(resource, "0")
    return int(text) if _is_count(text) else 0


def _is_count(text: str) -> bool:
    """Digits of ASCII, fewer than Python refuses to turn into a number."""
    return text.isascii() and text.isdigit() and len(text) < _MOST_DIGITS


def _capability(labels: Mapping[str, str]) -> float | None:
    major, minor = labels.get(f"{_LABEL}compute.major", ""), labels.get(f"{_LABEL}compute.minor", "0")
    return float(f"{major}.{minor}") if _is_count(major) and _is_count(minor) else None


def pool_name(spec: str, suffix: str = "") -> str:
    """A name of at most 20 letters, as the chart asks."""
    return spec[: _LONGEST_NAME - len(suffix)].rstrip("-") + suffix


def _grouped(found: Sequence[GpuPool]) -> tuple[GpuPool, ...]:
    """Nodes alike in one pool, the largest pools' GPUs first; counts in the name where they differ."""
    groups: dict[tuple[Any, ...], list[GpuPool]] = {}
    for pool in found:
        groups.setdefault((pool.spec, pool.gpus_per_node, pool.tolerations), []).append(pool)
    ordered = sorted(groups.values(), key=lambda alike: (-len(alike) * alike[0].gpus_per_node, alike[0].name))
    taken: set[str] = set()
    pools = []
    for alike in ordered:
        first = alike[0]
        suffixes = ("", f"-{first.gpus_per_node}", *(f"-{n}" for n in range(2, len(groups) + 2)))
        name = next(n for n in (pool_name(first.spec, suffix) for suffix in suffixes) if n not in taken)
        taken.add(name)
        pools.append(
            msgspec.structs.replace(
                first,
                name=name,
                products=tuple(sorted({p for one in alike for p in one.products})),
                memory_mib=min(one.memory_mib for one in alike),
                nodes=tuple(n for one in alike for n in one.nodes),
            )
        )
    return tuple(pools)
