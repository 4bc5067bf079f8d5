"""Rules about one pod's containers: names, ports, variables, probes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.bundle import is_engine, words

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.kubernetes.check.bundle import Bundle, PodTemplate
    from qwenhost.kubernetes.manifests import Finding, Place

LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME: Final = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9](-?[a-z0-9])*")
_ENV_NAME: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_REFERENCE: Final = re.compile(r"(?<!\$)\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
# https://kubernetes.io/docs/concepts/workloads/pods/downward-api/: what fieldRef offers as a variable.
_FIELDS: Final = frozenset(
    {
        "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
        "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
    }
)  # fmt: skip
_KEYED_FIELD: Final = re.compile(r"metadata\.(annotations|labels)\['[^']+'\]")
_SOURCES: Final = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_HANDLERS: Final = ("httpGet", "tcpSocket", "exec", "grpc")
_PROBES: Final = ("startupProbe", "livenessProbe", "readinessProbe")
# A saturated engine answers /health late; one second restarts it under load.
_SHORTEST_TIMEOUT_S: Final = 5
_SET_BY_LWS: Final = frozenset(
    {"LWS_LEADER_ADDRESS", "LWS_GROUP_SIZE", "LWS_WORKER_INDEX", "LWS_NAME", "LWS_GROUP_INDEX"}
)


def container_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every pod."""
    for pod in bundle.pods:
        if not list(pod.containers()):
            yield pod.spec.at("containers").error("no_container", "the pod has no container")
        yield from _names(pod)
        for container in pod.all_containers():
            yield from _ports(container)
            yield from _env(container, pod)
            yield from _probes(container)


def _names(pod: PodTemplate) -> Iterator[Finding]:
    seen: set[str] = set()
    for container in pod.all_containers():
        name = container.at("name")
        if not LABEL.fullmatch(name.text):
            yield name.error(
                "container_name",
                f"{name.value!r} is no container name",
                "Use at most 63 of a-z, 0-9 and -, not first or last.",
            )
        if name.text in seen:
            yield name.error("container_name", f"two containers are called {name.text!r}")
        seen.add(name.text)
        if not container.at("image").text:
            yield container.at("image").error("no_image", f"container {name.text!r} has no image")


def _ports(container: Place) -> Iterator[Finding]:
    names: set[str] = set()
    numbers: set[tuple[int, str]] = set()
    for port in container.each("ports"):
        name, number = port.at("name"), port.at("containerPort")
        protocol = port.at("protocol").text or "TCP"
        if name.present and not _PORT_NAME.fullmatch(name.text):
            yield name.error(
                "port_name",
                f"{name.value!r} is no port name",
                "Use at most 15 of a-z, 0-9 and single -, with one letter.",
            )
        if name.text and name.text in names:
            yield name.error("port_name", f"two ports are called {name.text!r}")
        if not 1 <= number.integer(0) <= 65535:
            yield number.error("port_number", f"containerPort {number.value!r} is not within 1 to 65535")
        elif (number.value, protocol) in numbers:
            yield number.warning("port_number", f"port {number.value}/{protocol} is declared twice")
        names.add(name.text)
        numbers.add((number.integer(0), protocol))


def _env(container: Place, pod: PodTemplate) -> Iterator[Finding]:
    seen: set[str] = set()
    for one in container.each("env"):
        name = one.at("name")
        if not _ENV_NAME.fullmatch(name.text):
            yield name.error("env_name", f"{name.value!r} is no name of a variable")
        if name.text in seen:
            yield name.warning("env_name", f"{name.text} is set twice; the last one counts")
        seen.add(name.text)
        yield from _env_value(one, pod)
    if not list(container.each("envFrom")):
        known = seen | (_SET_BY_LWS if pod.owner.kind == "LeaderWorkerSet" else set())
        yield from _references(container, known)


def _env_value(one: Place, pod: PodTemplate) -> Iterator[Finding]:
    name, value, source = one.at("name").text, one.at("value"), one.at("valueFrom")
    if value.present and not isinstance(value.value, str):
        yield value.error("env_value", f"{name} is {value.value!r}: a variable is a string", "Quote it.")
    if not source.present:
        return
    if value.value not in (None, ""):
        yield one.error("env_value", f"{name} has both value and valueFrom", "Keep one of them.")
    given = [key for key in _SOURCES if source.at(key).present]
    if len(given) != 1:
        yield source.error("env_value", f"{name}: valueFrom names {len(given)} sources, not one")
    field = source.at("fieldRef", "fieldPath")
    if field.present and field.text not in _FIELDS and not _KEYED_FIELD.fullmatch(field.text):
        yield field.error(
            "field_path",
            f"{field.value!r} is not offered as a variable",
            f"Choose one of {', '.join(sorted(_FIELDS))}, or metadata.labels['key'].",
        )
    other = source.at("resourceFieldRef", "containerName")
    if other.text and other.text not in {c.at("name").text for c in pod.all_containers()}:
        yield other.error("env_value", f"no container of the pod is called {other.text!r}")


def _references(container: Place, known: set[str]) -> Iterator[Finding]:
    """``$(NAME)`` that nothing defines reaches the program as it stands."""
    for key in ("command", "args"):
        for word in container.each(key):
            # A shell's own $(command) has the same form; only names that look like variables count.
            names = {n for n in _REFERENCE.findall(word.text) if n.isupper()} - known
            if names and "\n" not in word.text:
                yield word.error(
                    "env_reference",
                    f"$({min(names)}) is not a variable of container {container.at('name').text!r}",
                    "Define it under env; Kubernetes passes an unknown one on unchanged.",
                )


def _probes(container: Place) -> Iterator[Finding]:
    ports = {port.at("name").text for port in container.each("ports")} - {""}
    for key in _PROBES:
        probe = container.at(key)
        if not probe.present:
            continue
        handlers = [one for one in _HANDLERS if probe.at(one).present]
        if len(handlers) != 1:
            yield probe.error("probe_handler", f"{key} has {len(handlers)} handlers, not one")
        for handler in ("httpGet", "tcpSocket"):
            port = probe.at(handler, "port")
            if port.text and port.text not in ports:
                yield port.error(
                    "probe_port",
                    f"{key} asks port {port.text!r}; the container has {_listed(ports)}",
                    "Name one of its ports.",
                )
        threshold = probe.at("successThreshold")
        if key != "readinessProbe" and threshold.integer(1) != 1:
            yield threshold.error("probe_threshold", f"successThreshold of a {key} must be 1")
        timeout = probe.at("timeoutSeconds")
        if is_engine(container) and probe.at("httpGet").present and timeout.integer(1) < _SHORTEST_TIMEOUT_S:
            yield (timeout if timeout.present else probe).warning(
                "probe_timeout",
                f"{key} gives a busy engine {timeout.integer(1)} s to answer",
                f"Set timeoutSeconds to {_SHORTEST_TIMEOUT_S} or more.",
            )


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "no named port"


def shutdown_timeout_s(container: Place) -> float | None:
    """What ``--shutdown-timeout`` gives requests in flight; None where it is not said."""
    found = re.search(r"--shutdown-timeout[= ]+'?\"?(\d+(?:\.\d+)?)", " ".join(words(container)))
    return float(found[1]) if found else None
