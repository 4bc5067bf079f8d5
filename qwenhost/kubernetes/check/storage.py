"""Rules about volumes, and about secrets, config maps and other objects that pods refer to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.containers import LABEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qwenhost.kubernetes.check.bundle import Bundle, PodTemplate
    from qwenhost.kubernetes.manifests import Finding, Place

    # What may carry ``optional``, the kind wanted, its name, and the keys wanted of it.
    Wanted = tuple[Place, str, Place, tuple[Place, ...]]

_NO_SOURCE: Final = frozenset({"name"})
_DATA: Final = {"Secret": ("data", "stringData"), "ConfigMap": ("data", "binaryData")}


def storage_rules(bundle: Bundle) -> Iterator[Finding]:
    """Every rule of this file on every pod."""
    for pod in bundle.pods:
        yield from _volumes(pod)
        yield from _mounts(pod)
        for place, kind, name, keys in _references(pod):
            yield from _reference(bundle, place, kind, name, keys)
        yield from _claims(bundle, pod)


def _volumes(pod: PodTemplate) -> Iterator[Finding]:
    seen: set[str] = set()
    used = {mount.at("name").text for c in pod.all_containers() for mount in _all_mounts(c)}
    for volume in pod.spec.each("volumes"):
        name = volume.at("name")
        if not LABEL.fullmatch(name.text):
            yield name.error("volume_name", f"{name.value!r} is no volume name")
        if name.text in seen:
            yield name.error("volume_name", f"two volumes are called {name.text!r}")
        seen.add(name.text)
        sources = volume.mapping.keys() - _NO_SOURCE
        if len(sources) != 1:
            given = ", ".join(sorted(sources)) or "none"
            yield volume.error("volume_source", f"volume {name.text!r} needs one source and has {given}")
        if name.text not in used:
            yield volume.warning("volume_unused", f"no container mounts volume {name.text!r}")


def _mounts(pod: PodTemplate) -> Iterator[Finding]:
    volumes = {volume.at("name").text for volume in pod.spec.each("volumes")}
    volumes |= {c.at("metadata", "name").text for c in pod.owner.root.each("spec", "volumeClaimTemplates")}
    for container in pod.all_containers():
        paths: set[str] = set()
        for mount in _all_mounts(container):
            name, path = mount.at("name"), mount.at("mountPath")
            if name.text not in volumes:
                yield name.error(
                    "mount_volume",
                    f"container {container.at('name').text!r} mounts {name.value!r}, no volume of the pod",
                    f"The pod has: {', '.join(sorted(volumes)) or 'none'}.",
                )
            if path.text and path.text in paths:
                yield path.error("mount_path", f"two volumes are mounted at {path.text}")
            if path.present and not path.text.startswith("/"):
                yield path.error("mount_path", f"{path.value!r} is no absolute path")
            paths.add(path.text)


def _all_mounts(container: Place) -> Iterator[Place]:
    yield from container.each("volumeMounts")
    yield from container.each("volumeDevices")


def _references(pod: PodTemplate) -> Iterator[Wanted]:
    """Everything the pod takes from elsewhere."""
    spec = pod.spec
    yield from _volume_references(spec)
    for container in pod.all_containers():
        yield from _env_references(container)
    for pull in spec.each("imagePullSecrets"):
        yield pull, "Secret", pull.at("name"), ()
    if spec.at("serviceAccountName").text != "default":
        yield spec, "ServiceAccount", spec.at("serviceAccountName"), ()
    if not spec.at("priorityClassName").text.startswith("system-"):
        yield spec, "PriorityClass", spec.at("priorityClassName"), ()
    yield spec, "RuntimeClass", spec.at("runtimeClassName"), ()
    for claim in spec.each("resourceClaims"):
        yield claim, "ResourceClaimTemplate", claim.at("resourceClaimTemplateName"), ()
        yield claim, "ResourceClaim", claim.at("resourceClaimName"), ()


def _volume_references(spec: Place) -> Iterator[Wanted]:
    for volume in spec.each("volumes"):
        yield from _data_source(volume.at("secret"), volume.at("configMap"), name="secretName")
        for source in volume.each("projected", "sources"):
            yield from _data_source(source.at("secret"), source.at("configMap"), name="name")
        claim = volume.at("persistentVolumeClaim")
        yield claim, "PersistentVolumeClaim", claim.at("claimName"), ()


def _env_references(container: Place) -> Iterator[Wanted]:
    for one in container.each("env"):
        for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            source = one.at("valueFrom", key)
            yield source, kind, source.at("name"), (source.at("key"),)
    for one in container.each("envFrom"):
        yield one.at("secretRef"), "Secret", one.at("secretRef", "name"), ()
        yield one.at("configMapRef"), "ConfigMap", one.at("configMapRef", "name"), ()


def _data_source(secret: Place, config_map: Place, *, name: str) -> Iterator[Wanted]:
    for place, kind, key in ((secret, "Secret", name), (config_map, "ConfigMap", "name")):
        yield place, kind, place.at(key), tuple(item.at("key") for item in place.each("items"))


def _reference(
    bundle: Bundle, place: Place, kind: str, name: Place, keys: tuple[Place, ...]
) -> Iterator[Finding]:
    if not name.text or place.at("optional").value is True:
        return
    found = bundle.find(kind, name.text, near=name.manifest)
    if found is None:
        yield name.warning(
            "missing_object",
            f"{kind} {name.text!r} is not among these manifests",
            "It must be in the cluster before the pod starts; see that the name is right.",
        )
        return
    if kind not in _DATA:
        return
    held: set[str] = set()
    for part in _DATA[kind]:
        held |= found.root.at(part).mapping.keys()
    for key in keys:
        if key.text and key.text not in held:
            yield key.error(
                "missing_key",
                f"{kind} {name.text!r} has no key {key.text!r}",
                f"It has: {', '.join(sorted(held)) or 'none'}.",
            )


def _claims(bundle: Bundle, pod: PodTemplate) -> Iterator[Finding]:
    """Devices that containers claim are claimed by the pod too, by requests that the template has."""
    claims = {claim.at("name").text: claim for claim in pod.spec.each("resourceClaims")}
    for container in pod.all_containers():
        for one in container.each("resources", "claims"):
            claim = claims.get(one.at("name").text)
            if claim is None:
                yield one.error(
                    "claim_missing",
                    f"container {container.at('name').text!r} uses claim {one.at('name').value!r}, "
                    "which is not among the pod's resourceClaims",
                )
                continue
            template = claim.at("resourceClaimTemplateName").text
            found = bundle.find("ResourceClaimTemplate", template, near=pod.owner)
            request = one.at("request")
            if found is None or not request.text:
                continue
            names = {r.at("name").text for r in found.root.each("spec", "spec", "devices", "requests")}
            if request.text not in names:
                yield request.error(
                    "claim_missing", f"ResourceClaimTemplate {template!r} has no request {request.text!r}"
                )
