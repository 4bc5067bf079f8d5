"""Rules about workloads and what acts on them: selectors, budgets, scaling, monitors."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.bundle import SELECTING, label_text, matches
from qwenhost.kubernetes.check.traffic import no_pods

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.kubernetes.check.bundle import Bundle, PodTemplate
    from qwenhost.kubernetes.manifests import Finding, Manifest

_NAME: Final = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE: Final = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
# Their names are not DNS names: roles have colons.
_FREE_NAMES: Final = frozenset({"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"})


def workload_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every object."""
    yield from _objects(bundle)
    for pod in bundle.pods:
        yield from _pod(pod)
    for budget in bundle.of_kind("PodDisruptionBudget"):
        yield from _budget(bundle, budget)
    scaled: Counter[str] = Counter()
    for scaler in bundle.of_kind("ScaledObject", "HorizontalPodAutoscaler"):
        yield from _scaler(bundle, scaler, scaled)
    for monitor in bundle.of_kind("PodMonitor", "ServiceMonitor"):
        yield from _monitor(bundle, monitor)


def _objects(bundle: Bundle) -> Iterator[Finding]:
    seen: set[tuple[str, ...]] = set()
    for manifest in bundle.manifests:
        name = manifest.root.at("metadata", "name")
        if not name.present and manifest.root.at("metadata", "generateName").present:
            continue
        if manifest.kind not in _FREE_NAMES and not _NAME.fullmatch(name.text):
            yield name.error(
                "object_name", f"{name.value!r} is no name of an object", "Use a-z, 0-9, - and dots."
            )
        key = (manifest.group, manifest.kind, manifest.namespace, manifest.name)
        if key in seen:
            yield name.error("object_twice", f"{manifest.title} stands twice; the last one applied wins")
        seen.add(key)
        labels = manifest.root.at("metadata", "labels")
        for key_name, value in labels.mapping.items():
            if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
                yield labels.at(key_name).error("label", f"{value!r} is no value of a label")


def _pod(pod: PodTemplate) -> Iterator[Finding]:
    selector = pod.owner.root.at("spec", "selector")
    if pod.owner.kind in SELECTING and not matches(selector, pod.labels):
        yield selector.error(
            "selector_mismatch",
            "the selector does not match the labels of its own template",
            f"The template has: {label_text(pod.labels)}.",
        )
    if pod.owner.kind in SELECTING and not selector.mapping:
        yield selector.error("selector_mismatch", "the workload has no selector")
    policy = pod.spec.at("restartPolicy")
    if pod.owner.kind in {"Job", "CronJob"} and policy.text not in {"OnFailure", "Never"}:
        yield policy.error("restart_policy", "a Job's pods need restartPolicy OnFailure or Never")
    labels = pod.place.at("metadata", "labels")
    for name, value in labels.mapping.items():
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            yield labels.at(name).error("label", f"{value!r} is no value of a label")


def _budget(bundle: Bundle, budget: Manifest) -> Iterator[Finding]:
    spec = budget.root.at("spec")
    missing = no_pods(bundle, spec.at("selector"))
    if missing:
        yield missing
    least, most = spec.at("minAvailable"), spec.at("maxUnavailable")
    if least.present and most.present:
        yield spec.error("disruption_budget", "both minAvailable and maxUnavailable are given", "Keep one.")
    if str(most.value) in {"0", "0%"} or str(least.value) == "100%":
        yield (most if most.present else least).warning(
            "disruption_budget", "no pod may ever be evicted: kubectl drain waits for ever", "Allow one."
        )


def _scaler(bundle: Bundle, scaler: Manifest, scaled: Counter[str]) -> Iterator[Finding]:
    spec = scaler.root.at("spec")
    target = spec.at("scaleTargetRef")
    kind, name = target.at("kind").text or "Deployment", target.at("name").text
    found = bundle.find(kind, name, near=scaler)
    if found is None:
        yield target.error(
            "scale_target",
            f"no {kind} {name!r} among these manifests",
            f"There are: {', '.join(sorted({p.owner.title for p in bundle.pods})) or 'no workloads'}.",
        )
    elif found.root.at("spec", "replicas").present:
        yield found.root.at("spec", "replicas").warning(
            "scaled_replicas",
            f"replicas is written while {scaler.title} scales it: every upgrade resets it",
            "Leave replicas out.",
        )
    scaled[f"{kind}/{name}"] += 1
    if scaled[f"{kind}/{name}"] == 2:
        yield target.error("scale_target", f"two autoscalers scale {kind}/{name}")
    keda = scaler.kind == "ScaledObject"
    low = spec.at("minReplicaCount" if keda else "minReplicas")
    high = spec.at("maxReplicaCount" if keda else "maxReplicas")
    if low.integer(0 if keda else 1) > high.integer(100 if keda else 1):
        yield low.error("scale_range", f"the least of {low.value} exceeds the most of {high.value}")
    if keda and not list(spec.each("triggers")):
        yield spec.error("scale_trigger", "a ScaledObject needs a trigger")


def _monitor(bundle: Bundle, monitor: Manifest) -> Iterator[Finding]:
    pods_only = monitor.kind == "PodMonitor"
    selector = monitor.root.at("spec", "selector")
    key = "podMetricsEndpoints" if pods_only else "endpoints"
    if pods_only:
        missing = no_pods(bundle, selector)
        if missing:
            yield missing
            return
        names = set().union(*(pod.port_names for pod in bundle.selected(selector)))
    else:
        services = [
            one
            for one in bundle.of_kind("Service")
            if matches(selector, one.root.at("metadata", "labels").mapping)
        ]
        if not services:
            yield selector.error(
                "selector_matches_nothing", "the selector matches no Service of these manifests"
            )
            return
        names = {port.at("name").text for one in services for port in one.root.each("spec", "ports")}
    for endpoint in monitor.root.each("spec", key):
        port = endpoint.at("port")
        if port.text and port.text not in names:
            yield port.error(
                "monitor_port",
                f"nothing that is selected has a port called {port.text!r}",
                f"There are: {', '.join(sorted(names - {''})) or 'no named ports'}.",
            )
