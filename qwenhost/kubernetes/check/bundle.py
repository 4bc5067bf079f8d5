"""All manifests together: who runs pods, which pods a selector takes, what is defined here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qwenhost.kubernetes.manifests import Manifest, Place

# Where each kind keeps its pod: keys of the template, and whether its own selector must match it.
_TEMPLATES: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "Deployment": (("spec", "template"),),
    "ReplicaSet": (("spec", "template"),),
    "StatefulSet": (("spec", "template"),),
    "DaemonSet": (("spec", "template"),),
    "ReplicationController": (("spec", "template"),),
    "Job": (("spec", "template"),),
    "CronJob": (("spec", "jobTemplate", "spec", "template"),),
    "LeaderWorkerSet": (
        ("spec", "leaderWorkerTemplate", "leaderTemplate"),
        ("spec", "leaderWorkerTemplate", "workerTemplate"),
    ),
    "Pod": ((),),
}
SELECTING: Final = frozenset({"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"})
# Written into every pod by its controller, so that services and monitors may select by them.
_LWS_LABELS: Final = {
    "leaderworkerset.sigs.k8s.io/name": None,
    "leaderworkerset.sigs.k8s.io/worker-index": None,
    "leaderworkerset.sigs.k8s.io/group-index": None,
    "leaderworkerset.sigs.k8s.io/group-key": None,
}


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """The pods of one workload (or one role of it)."""

    owner: Manifest
    place: Place
    """Of the template: its metadata and spec."""

    @property
    def spec(self) -> Place:
        """The pod's spec."""
        return self.place.at("spec")

    @property
    def labels(self) -> dict[str, Any]:
        """Labels of the pods, those of their controller included where any value may stand."""
        own = self.place.at("metadata", "labels").mapping
        return {**(_LWS_LABELS if self.owner.kind == "LeaderWorkerSet" else {}), **own}

    def containers(self) -> Iterator[Place]:
        """The containers that run for good."""
        yield from self.spec.each("containers")

    def all_containers(self) -> Iterator[Place]:
        """Init containers first, as they run."""
        yield from self.spec.each("initContainers")
        yield from self.spec.each("containers")

    def ports(self) -> Iterator[Place]:
        """Every port of a container that runs for good, sidecars too."""
        for container in self.all_containers():
            if container.at("restartPolicy").text == "Always" or "containers" in container.path:
                yield from container.each("ports")

    @property
    def port_names(self) -> set[str]:
        """Names that a Service may use."""
        return {port.at("name").text for port in self.ports()} - {""}

    @property
    def port_numbers(self) -> set[int]:
        """Numbers that the containers declare."""
        return {port.at("containerPort").integer(0) for port in self.ports()} - {0}

    @property
    def is_test(self) -> bool:
        """Whether Helm runs it and takes it away again."""
        return "helm.sh/hook" in self.owner.root.at("metadata", "annotations").mapping


class Bundle:
    """Everything that is applied together."""

    def __init__(self, manifests: Sequence[Manifest]) -> None:
        self.manifests = tuple(manifests)

    @cached_property
    def pods(self) -> tuple[PodTemplate, ...]:
        """The pods of every workload; a LeaderWorkerSet without a leader of its own has workers alone."""
        found = []
        for manifest in self.manifests:
            for keys in _TEMPLATES.get(manifest.kind, ()):
                place = manifest.root.at(*keys)
                if place.mapping:
                    found.append(PodTemplate(manifest, place))
        return tuple(found)

    def of_kind(self, *kinds: str) -> Iterator[Manifest]:
        """The objects of these kinds."""
        return (manifest for manifest in self.manifests if manifest.kind in kinds)

    def find(self, kind: str, name: str, *, near: Manifest) -> Manifest | None:
        """The object of that name in the namespace of another; an unwritten namespace is any."""
        for manifest in self.of_kind(kind):
            same = not manifest.namespace or not near.namespace or manifest.namespace == near.namespace
            if manifest.name == name and same:
                return manifest
        return None

    def selected(self, selector: Place) -> list[PodTemplate]:
        """The pods in its namespace that a LabelSelector takes; an empty one takes all."""
        here = selector.manifest.namespace
        return [
            pod
            for pod in self.pods
            if (not here or not pod.owner.namespace or pod.owner.namespace == here)
            and matches(selector, pod.labels)
        ]


def matches(selector: Place, labels: Mapping[str, Any]) -> bool:
    """Whether labels satisfy ``matchLabels`` and ``matchExpressions``, or a plain map of labels."""
    body = selector.mapping
    plain = not ({"matchLabels", "matchExpressions"} & body.keys())
    wanted = body if plain else selector.at("matchLabels").mapping
    if not all(_has(labels, key, (str(value),)) for key, value in wanted.items()):
        return False
    return all(_satisfies(one, labels) for one in selector.each("matchExpressions"))


def _satisfies(expression: Place, labels: Mapping[str, Any]) -> bool:
    key, operator = expression.at("key").text, expression.at("operator").text
    values = tuple(str(one.value) for one in expression.each("values"))
    if operator == "In":
        return _has(labels, key, values)
    if operator == "NotIn":
        return key not in labels or labels[key] is None or str(labels[key]) not in values
    return (key in labels) == (operator == "Exists")


def _has(labels: Mapping[str, Any], key: str, values: tuple[str, ...]) -> bool:
    return key in labels and (labels[key] is None or str(labels[key]) in values)


def label_text(labels: Mapping[str, Any]) -> str:
    """``app=qwen, role=engine`` for messages."""
    return ", ".join(f"{key}={value}" for key, value in labels.items() if value is not None) or "none"


def is_engine(container: Place) -> bool:
    """Whether a container runs ``vllm serve``."""
    return bool(re.search(r"\bvllm\b.*\bserve\b|\bapi_server\b", " ".join(words(container)), re.DOTALL)) or (
        any(one.at("name").text == "VLLM_CACHE_ROOT" for one in container.each("env"))
        and container.at("name").text in {"engine", "vllm"}
    )


def words(container: Place) -> list[str]:
    """Command and arguments, shell scripts as one word."""
    return [str(one.value) for key in ("command", "args") for one in container.each(key)]


_UNITS: Final = {
    "": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "Ei": 2**60,
}  # fmt: skip


def quantity(value: Any) -> float | None:
    """A Kubernetes quantity (``1500m``, ``16Gi``, ``2``) as a number; None where it is none.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    found = re.fullmatch(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)([KMGTPE]i|[mkMGTPE]?)", str(value).strip())
    return float(found[1]) * _UNITS[found[2]] if found else None
