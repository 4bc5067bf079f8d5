"""Install, upgrade, roll back, admission, scheduling, roll-out and drain on a real API server."""

from __future__ import annotations

import base64
import json

import live_cluster as cluster
import pytest
from chart_kit import CASES, rendered

pytestmark = pytest.mark.needs_cluster
# Claims without a storage class stay pending without a kubelet; a trial's volume does not.
VOLATILE = ("gpus=2xH200", "weights.type=emptyDir")


def test_server_accepts_every_rendering(namespace: str) -> None:
    """A dry run on the server: defaults, CEL rules, admission; kinds that it lacks are left out."""
    known = cluster.kubectl("api-resources", "--output", "name").stdout
    for name, case in CASES.items():
        needed = {
            "leaderworkersets": "LeaderWorkerSet",
            "scaledobjects": "ScaledObject",
            "httproutes": "HTTPRoute",
            "podmonitors": "PodMonitor",
            "inferencepools": "InferencePool",
            "certificates": "Certificate",
        }
        text = rendered(case).replace("namespace: qwen\n", f"namespace: {namespace}\n")
        if any(f"kind: {kind}\n" in text and plural not in known for plural, kind in needed.items()):
            continue
        done = cluster.subprocess.run(
            ["kubectl", "--kubeconfig", cluster.KUBECONFIG, "apply", "--dry-run=server", "-f", "-"],
            check=False,
            capture_output=True,
            text=True,
            input=text,
        )
        assert done.returncode == 0, f"{name}: {done.stderr}"


def test_install_upgrade_rollback(namespace: str) -> None:
    """Keys stay through an upgrade, also of a changed Job; a rollback restores the plan."""
    assert "violates PodSecurity" not in cluster.install(namespace, "gpus=2xH200").stderr
    before = cluster.get(namespace, "secret", "qwen-qwenhost-keys")["data"]
    changed = ("gpus=2xH200", "drain.requestSeconds=300", "weights.download.resources.limits.cpu=8")
    cluster.install(namespace, *changed, verb="upgrade")
    assert cluster.get(namespace, "secret", "qwen-qwenhost-keys")["data"] == before
    assert base64.b64decode(before["keys"]).startswith(b"client: ")
    deployment = cluster.get(namespace, "deployment", "qwen-qwenhost-h200")
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 330
    cluster.helm("rollback", "qwen", "--namespace", namespace)
    deployment = cluster.get(namespace, "deployment", "qwen-qwenhost-h200")
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 150


def test_restricted_namespace_admits_the_pods(namespace: str) -> None:
    """Pod Security "restricted" is enforced, and the pods exist."""
    cluster.install(namespace, *VOLATILE)
    cluster.until(lambda: len(cluster.pods(namespace)) == 1, "no pod was admitted")


def test_scheduler_finds_the_planned_gpus(namespace: str, gpu_nodes: tuple[str, ...]) -> None:
    """Two pods of two H200: one on the node that has them, one waits; slices and A100 are not taken."""
    cluster.install(namespace, *VOLATILE)
    cluster.kubectl("--namespace", namespace, "scale", "deployment/qwen-qwenhost-h200", "--replicas=2")
    cluster.until(lambda: len(cluster.pods(namespace)) == 2, "there are not two pods")
    cluster.until(lambda: any(map(cluster.scheduled, cluster.pods(namespace))), "no pod was scheduled")
    assert sorted(map(cluster.scheduled, cluster.pods(namespace))) == ["", gpu_nodes[0]]


def test_rollout_finishes_on_full_gpus(namespace: str, gpu_nodes: tuple[str, ...]) -> None:
    """With no GPU spare, an upgrade ends with the new pod running."""
    cluster.install(namespace, *VOLATILE)
    cluster.until(lambda: any(map(cluster.scheduled, cluster.pods(namespace))), "no pod was scheduled")
    cluster.pretend_ready(namespace)
    cluster.install(namespace, *VOLATILE, "drain.requestSeconds=60", verb="upgrade")

    def new_one_runs() -> bool:
        cluster.pretend_ready(namespace)
        running = cluster.pods(namespace)
        graces = [pod["spec"]["terminationGracePeriodSeconds"] for pod in running if cluster.scheduled(pod)]
        return graces == [90]

    cluster.until(new_one_runs, "the new pod was never scheduled")


def test_a_node_can_be_drained(namespace: str, gpu_nodes: tuple[str, ...]) -> None:
    """The disruption budget lets one pod go."""
    cluster.install(namespace, *VOLATILE)
    cluster.until(lambda: any(map(cluster.scheduled, cluster.pods(namespace))), "no pod was scheduled")
    cluster.pretend_ready(namespace)
    budget = lambda: cluster.get(namespace, "pdb", "qwen-qwenhost-h200")["status"]["disruptionsAllowed"]  # noqa: E731
    cluster.until(lambda: budget() == 1, "the budget allows nothing")
    pod = next(pod["metadata"]["name"] for pod in cluster.pods(namespace))
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    done = cluster.kubectl("create", "--raw", path, "-f", "-", given=eviction)
    assert json.loads(done.stdout)["status"] == "Success"


def test_ladder_takes_what_there_is(namespace: str, gpu_nodes: tuple[str, ...]) -> None:
    """The scheduler takes the first alternative that there is: two H200, though eight A100 are free too."""
    if "resourceslices" not in cluster.kubectl("api-resources", "--output", "name").stdout:
        pytest.skip("this cluster has no Dynamic Resource Allocation (resource.k8s.io/v1)")
    devices = {
        gpu_nodes[0]: ("NVIDIA H200", "141Gi", 2, "9.0.0"),
        gpu_nodes[1]: ("NVIDIA A100-SXM4-80GB", "80Gi", 8, "8.0.0"),
    }
    device_class = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": namespace},
        "spec": {"selectors": [{"cel": {"expression": 'device.driver == "gpu.nvidia.com"'}}]},
    }
    cluster.kubectl("apply", "-f", "-", given=device_class)
    try:
        for node, (product, memory, count, capability) in devices.items():
            cluster.kubectl("apply", "-f", "-", given=_slice(node, product, memory, count, capability))
        rungs = (
            "dra.ladder[0].name=two",
            "dra.ladder[0].count=2",
            "dra.ladder[0].minMemory=138Gi",
            "dra.ladder[1].name=eight",
            "dra.ladder[1].count=8",
            "dra.ladder[1].minMemory=39Gi",
        )
        cluster.install(
            namespace, "plan.mode=dra", f"dra.deviceClass={namespace}", "weights.type=emptyDir", *rungs
        )
        cluster.until(lambda: any(map(cluster.scheduled, cluster.pods(namespace))), "no pod was scheduled")
        assert [cluster.scheduled(pod) for pod in cluster.pods(namespace)] == [gpu_nodes[0]]
        claim = cluster.get(namespace, "resourceclaims")["items"][0]
        results = claim["status"]["allocation"]["devices"]["results"]
        assert [result["request"] for result in results] == ["gpus/two", "gpus/two"]
    finally:
        cluster.kubectl("delete", "deviceclass", namespace, check=False)
        for node in devices:
            cluster.kubectl("delete", "resourceslice", f"{node}-gpus", check=False)


def _slice(node: str, product: str, memory: str, count: int, capability: str) -> dict[str, object]:
    """What NVIDIA's driver would publish of a node."""
    device = {
        "attributes": {
            "type": {"string": "gpu"},
            "productName": {"string": product},
            "cudaComputeCapability": {"version": capability},
        },
        "capacity": {"memory": {"value": memory}},
    }
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{node}-gpus"},
        "spec": {
            "driver": "gpu.nvidia.com",
            "nodeName": node,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": f"gpu-{number}", **device} for number in range(count)],
        },
    }
