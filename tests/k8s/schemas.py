"""Strict schemas: Kubernetes' own of several versions, and those of the custom resources in crds/."""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs

CRDS = Path(__file__).parent / "crds"
_INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


class NoSchemaError(Exception):
    """No version of Kubernetes and no custom resource has this kind."""


def problems(manifest: dict[str, Any], version: str) -> list[str]:
    """What a server of the version would refuse, each with its path.

    Raises:
        NoSchemaError: a kind that neither has.
    """
    validator = _validator(manifest["apiVersion"], manifest["kind"], version)
    return [
        f"{'.'.join(map(str, error.instance_path))}: {error.message[:300]}"
        for error in validator.iter_errors(manifest)
    ]


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema_rs.Draft202012Validator:
    for custom in _custom():
        if (custom["apiVersion"], custom["kind"]) == (api_version, kind):
            return jsonschema_rs.Draft202012Validator(_understood(custom["schema"]))
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    path = folder / f"{kind.lower()}-{group}.json"
    if not path.is_file():
        raise NoSchemaError(f"{api_version} {kind} in Kubernetes {version}")
    return jsonschema_rs.Draft202012Validator(json.loads(path.read_text()), registry=_definitions(version))


@functools.cache
def _definitions(version: str) -> jsonschema_rs.Registry:
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    contents = json.loads((folder / "_definitions.json").read_text())
    return jsonschema_rs.Registry([("json-schema:///_definitions.json", contents)])


@functools.cache
def _custom() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(path.read_text()) for path in sorted(CRDS.glob("*.json")))


def _understood(schema: Any) -> Any:
    """Kubernetes' extensions in JSON schema's words."""
    if isinstance(schema, list):
        return [_understood(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return _INT_OR_STRING
    return {key: _understood(value) for key, value in schema.items() if not key.startswith("x-kubernetes")}
