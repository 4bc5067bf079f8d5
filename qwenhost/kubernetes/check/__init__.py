"""Do rendered manifests fit together? What schema validators pass and a server, or nothing, refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.kubernetes.check.bundle import Bundle
from qwenhost.kubernetes.check.containers import container_rules
from qwenhost.kubernetes.check.devices import device_rules
from qwenhost.kubernetes.check.resources import STARTUP_ANNOTATION, resource_rules
from qwenhost.kubernetes.check.storage import storage_rules
from qwenhost.kubernetes.check.traffic import traffic_rules
from qwenhost.kubernetes.check.workloads import workload_rules

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.kubernetes.manifests import Finding, Manifest

__all__ = ["STARTUP_ANNOTATION", "check_manifests"]
_RULES: Final = (
    workload_rules,
    container_rules,
    storage_rules,
    resource_rules,
    traffic_rules,
    device_rules,
)


def check_manifests(manifests: Sequence[Manifest]) -> list[Finding]:
    """Every finding on the manifests together, by file and line; errors first on one line."""
    bundle = Bundle(manifests)
    found = [finding for rules in _RULES for finding in rules(bundle)]
    return sorted(found, key=lambda one: (one.file, one.line, one.severity, one.path, one.rule))
