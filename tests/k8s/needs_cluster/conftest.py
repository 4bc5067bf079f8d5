"""A namespace for each test; everything is skipped, and says so, without a cluster."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import live_cluster as cluster
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NODES = ("qwenhost-h200-a", "qwenhost-a100-a", "qwenhost-sliced-a")


@pytest.fixture(autouse=True)
def _cluster_there() -> None:
    if not cluster.KUBECONFIG:
        pytest.skip("needs a cluster: set QWENHOST_TEST_KUBECONFIG to a kubeconfig of one for tests")


@pytest.fixture
def namespace() -> Iterator[str]:
    """One that Pod Security holds to "restricted"."""
    name = f"qwenhost-test-{uuid.uuid4().hex[:8]}"
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    cluster.kubectl(
        "apply",
        "-f",
        "-",
        given={"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
    )
    yield name
    cluster.helm("uninstall", "qwen", "--namespace", name, check=False)
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def gpu_nodes(namespace: str) -> Iterator[tuple[str, ...]]:
    """One with two H200, one with eight A100, one whose H200 are time-sliced."""
    cluster.gpu_node(NODES[0], "NVIDIA-H200", 143771, 2)
    cluster.gpu_node(NODES[1], "NVIDIA-A100-SXM4-80GB", 81920, 8)
    cluster.gpu_node(
        NODES[2], "NVIDIA-H200", 143771, 8, **{"nvidia.com/gpu.sharing-strategy": "time-slicing"}
    )
    yield NODES
    for name in NODES:
        cluster.kubectl("delete", "node", name, "--wait=false", check=False)
