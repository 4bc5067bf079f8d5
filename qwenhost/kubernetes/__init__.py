"""A cluster as pools of GPUs, alternatives of devices, and manifests that fit together. Pure."""

from __future__ import annotations

from qwenhost.kubernetes.check import STARTUP_ANNOTATION, check_manifests
from qwenhost.kubernetes.init_request import (
    InitRequest,
    cache_key,
    env_text,
    mounted_catalog,
    option_words,
    read_request,
    whole_machine,
)
from qwenhost.kubernetes.ladder import COUNTS, Rung, claim_template, ladder
from qwenhost.kubernetes.manifests import Finding, Manifest, read_manifests
from qwenhost.kubernetes.nodes import Cluster, GpuPool, RefusedNode, pool_name, read_cluster
from qwenhost.kubernetes.pods import PodShape, PoolPlan, plan_pool

__all__ = [
    "COUNTS",
    "STARTUP_ANNOTATION",
    "Cluster",
    "Finding",
    "GpuPool",
    "InitRequest",
    "Manifest",
    "PodShape",
    "PoolPlan",
    "RefusedNode",
    "Rung",
    "cache_key",
    "check_manifests",
    "claim_template",
    "env_text",
    "ladder",
    "mounted_catalog",
    "option_words",
    "plan_pool",
    "pool_name",
    "read_cluster",
    "read_manifests",
    "read_request",
    "whole_machine",
]
