"""A real API server, named by QWENHOST_TEST_KUBECONFIG: a namespace of the test's own, pretended GPUs.

Written for Kubernetes 1.36 with or without kubelets: what one would do (bind a claim, run a container) is
not asserted. Where there is no kubelet, :func:`pretend_ready` marks bound pods as running. Needs kubectl.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

from chart_kit import CHART, HELM

if TYPE_CHECKING:
    from collections.abc import Callable

KUBECONFIG = os.environ.get("QWENHOST_TEST_KUBECONFIG", "")
DEADLINE_S = 90.0


def kubectl(*words: str, given: Any = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run kubectl; ``given`` goes to its input as JSON."""
    text = None if given is None else json.dumps(given)
    return subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *words],
        check=check,
        capture_output=True,
        text=True,
        input=text,
    )


def helm(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run helm against the cluster."""
    return subprocess.run(
        [HELM, "--kubeconfig", KUBECONFIG, *words], check=check, capture_output=True, text=True
    )


def install(
    namespace: str, *settings: str, verb: str = "install", check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Install or upgrade the release qwen without waiting."""
    words = [word for setting in settings for word in ("--set", setting)]
    return helm(verb, "qwen", str(CHART), "--namespace", namespace, *words, check=check)


def get(namespace: str, *words: str) -> Any:
    """Objects as kubectl prints them in JSON."""
    return json.loads(kubectl("--namespace", namespace, "get", *words, "--output", "json").stdout)


def gpu_node(name: str, product: str, memory_mib: int, count: int, **labels: str) -> None:
    """A node that offers GPUs, with the labels of GPU feature discovery."""
    marks = {
        "kubernetes.io/hostname": name,
        "nvidia.com/gpu.product": product,
        "nvidia.com/gpu.memory": str(memory_mib),
        "nvidia.com/gpu.present": "true",
        "qwenhost.io/pretended": "true",
        **labels,
    }
    kubectl(
        "apply",
        "-f",
        "-",
        given={"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": marks}},
    )
    amounts = {
        "cpu": "128",
        "memory": "1Ti",
        "pods": "110",
        "ephemeral-storage": "1Ti",
        "nvidia.com/gpu": str(count),
    }
    status = {
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kubectl(
        "patch", "node", name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status})
    )
    kubectl("taint", "node", name, "node.kubernetes.io/not-ready-", check=False)


def pods(namespace: str, component: str = "engine") -> list[dict[str, Any]]:
    """Pods of the release that are not going."""
    selector = f"app.kubernetes.io/component={component}"
    found = get(namespace, "pods", "--selector", selector)["items"]
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def scheduled(pod: dict[str, Any]) -> str:
    """The node of a pod, or nothing."""
    return str(pod["spec"].get("nodeName", ""))


def pretend_ready(namespace: str) -> None:
    """Mark bound pods ready and remove those that are going, as a kubelet would."""
    for pod in get(namespace, "pods")["items"]:
        name = pod["metadata"]["name"]
        if "deletionTimestamp" in pod["metadata"]:
            kubectl(
                "--namespace", namespace, "delete", "pod", name, "--force", "--grace-period=0", check=False
            )
        elif scheduled(pod):
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            kubectl(
                "--namespace",
                namespace,
                "patch",
                "pod",
                name,
                "--subresource=status",
                "--type=merge",
                "-p",
                json.dumps({"status": ready}),
                check=False,
            )


def until(holds: Callable[[], bool], what: str) -> None:
    """Wait for it.

    Raises:
        AssertionError: it did not come true in time.
    """
    give_up = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < give_up, what
        time.sleep(1)
