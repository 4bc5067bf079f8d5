"""Rules about what leads to pods: services, routes, ingresses, network policies, inference pools."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.bundle import label_text, matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qwenhost.kubernetes.check.bundle import Bundle, PodTemplate
    from qwenhost.kubernetes.manifests import Finding, Manifest, Place

_UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def traffic_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every object."""
    for service in bundle.of_kind("Service"):
        yield from _service(bundle, service)
    for route in bundle.of_kind("HTTPRoute"):
        yield from _route(bundle, route)
    for ingress in bundle.of_kind("Ingress"):
        yield from _ingress(bundle, ingress)
    for policy in bundle.of_kind("NetworkPolicy"):
        yield from _policy(bundle, policy)
    for pool in bundle.of_kind("InferencePool"):
        yield from _pool(bundle, pool)


def no_pods(bundle: Bundle, selector: Place) -> Finding | None:
    """The finding where a selector takes no pod of these manifests."""
    if bundle.selected(selector):
        return None
    near = [f"{pod.owner.title}: {label_text(pod.labels)}" for pod in bundle.pods]
    return selector.error(
        "selector_matches_nothing",
        "the selector matches no pod of these manifests",
        f"Labels of the pods: {'; '.join(near) or 'there are no pods'}.",
    )


def _service(bundle: Bundle, service: Manifest) -> Iterator[Finding]:
    selector = service.root.at("spec", "selector")
    ports = list(service.root.each("spec", "ports"))
    yield from _service_ports(ports)
    if service.name.startswith("vllm") and any(
        pod.spec.at("enableServiceLinks").value is not False for pod in bundle.pods
    ):
        yield service.root.at("metadata", "name").warning(
            "service_name",
            f"Service {service.name!r} gives pods variables VLLM_*, which vLLM takes for its own settings",
            "Rename it, or set enableServiceLinks: false on the pods.",
        )
    if not selector.mapping:
        return
    missing = no_pods(bundle, selector)
    if missing:
        yield missing
        return
    for port in ports:
        target = port.at("targetPort") if port.at("targetPort").present else port.at("port")
        yield from _target(target, bundle.selected(selector))


def _service_ports(ports: Sequence[Place]) -> Iterator[Finding]:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for port in ports:
        name, number = port.at("name"), port.at("port")
        key = (number.integer(0), port.at("protocol").text or "TCP")
        if not name.text and len(ports) > 1:
            yield port.error("service_port", "a port of a Service with several needs a name")
        if name.text and name.text in names:
            yield name.error("service_port", f"two ports are called {name.text!r}")
        if not 1 <= number.integer(0) <= 65535:
            yield number.error("service_port", f"port {number.value!r} is not within 1 to 65535")
        elif key in numbers:
            yield number.error("service_port", f"port {number.value} stands twice")
        names.add(name.text)
        numbers.add(key)


def _target(target: Place, pods: Sequence[PodTemplate]) -> Iterator[Finding]:
    """A name must be one of each pod's ports; a number should be."""
    for pod in pods:
        if target.text and target.text not in pod.port_names:
            yield target.error(
                "target_port",
                f"{pod.owner.title} has no port called {target.text!r}",
                f"It has: {', '.join(sorted(pod.port_names)) or 'no named port'}.",
            )
        elif isinstance(target.value, int) and target.value not in pod.port_numbers:
            yield target.warning(
                "target_port",
                f"{pod.owner.title} declares no port {target.value}",
                "Declare it, or name the port that is meant.",
            )


def _backend(bundle: Bundle, ref: Place, name: Place, port: Place) -> Iterator[Finding]:
    """A Service that exists and has the port, by number or name."""
    service = bundle.find("Service", name.text, near=ref.manifest)
    if service is None:
        known = ", ".join(sorted(one.name for one in bundle.of_kind("Service"))) or "none"
        yield name.error(
            "backend", f"no Service {name.value!r} among these manifests", f"There are: {known}."
        )
        return
    offered = list(service.root.each("spec", "ports"))
    numbers = {one.at("port").value for one in offered} | {one.at("name").text for one in offered} - {""}
    if port.present and port.value not in numbers:
        listed = ", ".join(sorted(map(str, numbers)))
        yield port.error("backend", f"Service {name.text!r} has no port {port.value!r}", f"It has: {listed}.")


def _route(bundle: Bundle, route: Manifest) -> Iterator[Finding]:
    for rule in route.root.each("spec", "rules"):
        for match in rule.each("matches"):
            path = match.at("path", "value")
            kind = match.at("path", "type").text or "PathPrefix"
            if path.present and kind != "RegularExpression" and not path.text.startswith("/"):
                yield path.error("route_path", f"{path.value!r} is no path: it does not begin with /")
        for ref in rule.each("backendRefs"):
            kind = ref.at("kind").text or "Service"
            if ref.at("namespace").text not in {"", route.namespace}:
                continue
            if kind == "Service":
                yield from _backend(bundle, ref, ref.at("name"), ref.at("port"))
                if not ref.at("port").present:
                    yield ref.error("backend", "a backendRef to a Service needs a port")
            elif kind == "InferencePool" and not bundle.find(kind, ref.at("name").text, near=route):
                yield ref.at("name").error(
                    "backend", f"no InferencePool {ref.at('name').value!r} among these manifests"
                )
        yield from _timeouts(rule)


def _timeouts(rule: Place) -> Iterator[Finding]:
    whole, backend = rule.at("timeouts", "request"), rule.at("timeouts", "backendRequest")
    for one in (whole, backend):
        if one.present and duration_s(one.text) is None:
            yield one.error(
                "route_timeout", f"{one.value!r} is no duration", "Write for example 600s or 10m."
            )
    most, tried = duration_s(whole.text), duration_s(backend.text)
    if most and tried is not None and (tried > most or tried == 0):
        yield backend.error(
            "route_timeout", f"backendRequest {backend.text} exceeds the request's own {whole.text}"
        )


def duration_s(text: str) -> float | None:
    """Seconds of a Gateway API duration (``1h30m``, ``500ms``); None where it is none.

    Source: https://gateway-api.sigs.k8s.io/geps/gep-2257/
    """
    if not re.fullmatch(r"([0-9]{1,5}(h|m|s|ms)){1,4}", text):
        return None
    return sum(int(n) * _UNITS_S[unit] for n, unit in re.findall(r"([0-9]+)(ms|h|m|s)", text))


def _ingress(bundle: Bundle, ingress: Manifest) -> Iterator[Finding]:
    default = ingress.root.at("spec", "defaultBackend", "service")
    if default.present:
        yield from _ingress_backend(bundle, default)
    for rule in ingress.root.each("spec", "rules"):
        for path in rule.each("http", "paths"):
            value = path.at("path")
            specific = path.at("pathType").text == "ImplementationSpecific"
            if not specific and not value.text.startswith("/"):
                yield value.error("route_path", f"{value.value!r} is no path: it does not begin with /")
            if path.at("backend", "service").present:
                yield from _ingress_backend(bundle, path.at("backend", "service"))


def _ingress_backend(bundle: Bundle, service: Place) -> Iterator[Finding]:
    by_name, number = service.at("port", "name"), service.at("port", "number")
    yield from _backend(bundle, service, service.at("name"), by_name if by_name.present else number)


def _policy(bundle: Bundle, policy: Manifest) -> Iterator[Finding]:
    selector = policy.root.at("spec", "podSelector")
    chosen = bundle.selected(selector)
    if selector.mapping and not chosen:
        found = no_pods(bundle, selector)
        if found:
            yield found
    types = {one.text for one in policy.root.each("spec", "policyTypes")}
    for direction, peers, name in (("ingress", "from", "Ingress"), ("egress", "to", "Egress")):
        rules = list(policy.root.each("spec", direction))
        if rules and types and name not in types:
            yield policy.root.at("spec", direction).error(
                "policy_type", f"{direction} rules stand without {name} in policyTypes: they do nothing"
            )
        for rule in rules:
            for port in rule.each("ports"):
                if direction == "ingress" and port.at("port").text:
                    yield from _policy_port(port.at("port"), chosen)
            for peer in rule.each(peers):
                yield from _peer(bundle, peer)


def _policy_port(port: Place, chosen: Sequence[PodTemplate]) -> Iterator[Finding]:
    if chosen and not any(port.text in pod.port_names for pod in chosen):
        yield port.error("policy_port", f"no pod that the policy selects has a port called {port.text!r}")


def _peer(bundle: Bundle, peer: Place) -> Iterator[Finding]:
    """Pods of this namespace are in these manifests or somebody else's; of another, always somebody's."""
    selector = peer.at("podSelector")
    if not selector.mapping or peer.at("namespaceSelector").present:
        return
    if not any(matches(selector, pod.labels) for pod in bundle.pods):
        yield selector.warning(
            "policy_peer",
            "no pod of these manifests has the labels of this peer, and it is looked for in this namespace",
            "Add a namespaceSelector where the peer lives elsewhere.",
        )


def _pool(bundle: Bundle, pool: Manifest) -> Iterator[Finding]:
    selector = pool.root.at("spec", "selector")
    missing = no_pods(bundle, selector)
    if missing:
        yield missing
        return
    for port in pool.root.each("spec", "targetPorts"):
        yield from _target(port.at("number"), bundle.selected(selector))
    reference = pool.root.at("spec", "endpointPickerRef")
    if reference.present and (reference.at("kind").text or "Service") == "Service":
        yield from _backend(bundle, reference, reference.at("name"), reference.at("port", "number"))
