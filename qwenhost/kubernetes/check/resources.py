"""Rules about GPUs, memory and time: requests, shared memory, drain, start-up, roll-out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.bundle import is_engine, quantity, words
from qwenhost.kubernetes.check.containers import shutdown_timeout_s
from qwenhost.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.kubernetes.check.bundle import Bundle, PodTemplate
    from qwenhost.kubernetes.manifests import Finding, Place

STARTUP_ANNOTATION: Final = "qwenhost.io/startup-seconds"
"""On a pod: what its plan needs from the start of the engine to the first answer, in seconds."""
_DEFAULT_GRACE_S: Final = 30  # what Kubernetes takes when nothing is written
_DEFAULT_PROGRESS_S: Final = 600


def resource_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every pod."""
    for pod in bundle.pods:
        for container in pod.all_containers():
            yield from _amounts(container)
        engines = [container for container in pod.containers() if is_engine(container)]
        for container in engines:
            yield from _shared_memory(pod, container)
            yield from _drain(pod, container)
            yield from _startup(pod, container)
        if engines and not pod.is_test:
            yield from _rollout(pod, engines[0])


def _amounts(container: Place) -> Iterator[Finding]:
    requests, limits = container.at("resources", "requests"), container.at("resources", "limits")
    for name in sorted({**requests.mapping, **limits.mapping}):
        asked, limit = requests.at(name), limits.at(name)
        for one in (asked, limit):
            if one.present and quantity(one.value) is None:
                yield one.error("quantity", f"{name}: {one.value!r} is no quantity", "Write 2, 500m or 16Gi.")
        want, most = quantity(asked.value), quantity(limit.value)
        if "/" in name and not name.startswith("kubernetes.io/"):
            yield from _device(name, asked, limit, want, most)
        elif want is not None and most is not None and want > most:
            yield asked.error(
                "request_over_limit", f"{name}: request {asked.value} exceeds limit {limit.value}"
            )


def _device(
    name: str, asked: Place, limit: Place, want: float | None, most: float | None
) -> Iterator[Finding]:
    for one, number in ((asked, want), (limit, most)):
        if number is not None and number != int(number):
            yield one.error(
                "whole_device",
                f"{name}: {one.value} is no whole number",
                "Devices are given whole; a share of one needs MIG or time-slicing.",
            )
    if want is not None and most is None:
        yield asked.error("device_limit", f"{name}: requested without a limit", "Set the same limit.")
    elif want is not None and want != most:
        yield asked.error(
            "device_limit",
            f"{name}: request {asked.value} differs from limit {limit.value}",
            "Make them equal.",
        )


def _shared_memory(pod: PodTemplate, container: Place) -> Iterator[Finding]:
    limit = container.at("resources", "limits", "memory")
    most = quantity(limit.value)
    in_memory = {v.at("name").text: v for v in pod.spec.each("volumes") if _medium(v) == "Memory"}
    mounts = {one.at("mountPath").text: one.at("name").text for one in container.each("volumeMounts")}
    total = 0.0
    for name in sorted(set(mounts.values()) & in_memory.keys()):
        size = in_memory[name].at("emptyDir", "sizeLimit")
        amount = quantity(size.value)
        if amount is None and most is not None:
            yield in_memory[name].warning(
                "shm_size",
                f"volume {name!r} may fill the container's memory limit of {limit.value}",
                "Set emptyDir.sizeLimit.",
            )
        total += amount or 0
    if most is not None and total >= most:
        yield limit.error(
            "shm_size",
            f"volumes in memory of {format_bytes(total)} count against the memory limit of {limit.value}",
            "Raise the limit or shrink the volumes.",
        )
    if "/dev/shm" not in mounts and _ranks(container) > 1:  # noqa: S108 - a mount's path, no file of ours
        yield container.warning(
            "shm_missing",
            "tensor parallelism talks through /dev/shm, which is 64 MiB here",
            "Mount an emptyDir with medium Memory there.",
        )


def _medium(volume: Place) -> str:
    return volume.at("emptyDir", "medium").text


def _ranks(container: Place) -> int:
    found = re.search(r"--tensor-parallel-size[= ]+(\d+)", " ".join(words(container)))
    devices = container.at("resources", "limits").mapping
    gpus = [quantity(value) or 0 for name, value in devices.items() if name.endswith("/gpu")]
    return int(found[1]) if found else int(max(gpus, default=1))


def _drain(pod: PodTemplate, container: Place) -> Iterator[Finding]:
    grace = pod.spec.at("terminationGracePeriodSeconds")
    given, pause = grace.integer(_DEFAULT_GRACE_S), _pre_stop_s(container)
    drain = shutdown_timeout_s(container)
    if pause + (drain or 0) >= given:
        yield (grace if grace.present else pod.spec).error(
            "grace_period",
            f"terminationGracePeriodSeconds {given} does not exceed preStop {pause:g} s "
            f"+ --shutdown-timeout {drain or 0:g} s: requests in flight are killed",
            f"Set it above {pause + (drain or 0):g}.",
        )
    if drain is None and not _configured(container) and not pod.is_test:
        yield container.warning(
            "no_drain",
            "vLLM aborts requests in flight when it is stopped without --shutdown-timeout",
            "Give the seconds that the longest answer may take.",
        )


def _configured(container: Place) -> bool:
    """Whether flags come from a file that is not shown here."""
    return any(word.startswith("--config") for word in words(container))


def _pre_stop_s(container: Place) -> float:
    hook = container.at("lifecycle", "preStop")
    seconds = hook.at("sleep", "seconds").integer(0)
    command = " ".join(str(one.value) for one in hook.each("exec", "command"))
    found = re.search(r"\bsleep\s+(\d+(?:\.\d+)?)", command)
    return max(seconds, float(found[1]) if found else 0)


def _startup(pod: PodTemplate, container: Place) -> Iterator[Finding]:
    startup, liveness = container.at("startupProbe"), container.at("livenessProbe")
    if not startup.present and not liveness.present:
        return
    probe, name = (startup, "startupProbe") if startup.present else (liveness, "livenessProbe")
    budget = _budget_s(probe)
    annotation = pod.place.at("metadata", "annotations").at(STARTUP_ANNOTATION)
    needed = quantity(annotation.value)
    if needed is not None and budget < needed:
        yield probe.error(
            "startup_budget",
            f"{name} kills the engine after {budget} s; its plan needs {needed:g} s to start",
            f"Make initialDelaySeconds + periodSeconds * failureThreshold at least {needed:g}.",
        )
    elif needed is None and not startup.present:
        yield liveness.error(
            "startup_budget",
            f"livenessProbe kills the engine {budget} s after its start, while it loads weights",
            "Add a startupProbe.",
        )
    yield from _progress(pod, budget if needed is None else int(needed))


def _progress(pod: PodTemplate, needed: int) -> Iterator[Finding]:
    if pod.owner.kind != "Deployment":
        return
    progress = pod.owner.root.at("spec", "progressDeadlineSeconds")
    given = progress.integer(_DEFAULT_PROGRESS_S)
    if given < needed:
        yield (progress if progress.present else pod.owner.root.at("spec")).warning(
            "progress_deadline",
            f"a roll-out is given up after {given} s, while a start may take {needed} s",
            f"Set progressDeadlineSeconds to {needed} or more.",
        )


def _budget_s(probe: Place) -> int:
    period, failures = probe.at("periodSeconds").integer(10), probe.at("failureThreshold").integer(3)
    return probe.at("initialDelaySeconds").integer(0) + period * failures


def _rollout(pod: PodTemplate, engine: Place) -> Iterator[Finding]:
    """A new pod beside the old ones needs GPUs that a full node does not have."""
    if pod.owner.kind != "Deployment" or not _has_devices(engine):
        return
    strategy = pod.owner.root.at("spec", "strategy")
    if strategy.at("type").text == "Recreate":
        return
    surge = strategy.at("rollingUpdate", "maxSurge")
    if str(surge.value) not in {"0", "0%"}:
        yield (surge if surge.present else pod.owner.root.at("spec")).warning(
            "rollout_surge",
            "a roll-out starts a new pod before it stops an old one: without spare GPUs it never ends",
            "Set strategy.rollingUpdate.maxSurge 0 and maxUnavailable 1.",
        )


def _has_devices(container: Place) -> bool:
    resources = container.at("resources")
    return bool(list(resources.each("claims"))) or any("/" in name for name in resources.at("limits").mapping)
