"""A cluster as pools of GPUs, alternatives of devices, and manifests that fit together. Pure."""

from __future__ import annotations

from qwenhost.kubernetes.check import STARTUP_ANNOTATION, check_manifests
from qwenhost.kubernetes.manifests import Finding, Manifest, read_manifests

__all__ = ["STARTUP_ANNOTATION", "Finding", "Manifest", "check_manifests", "read_manifests"]
