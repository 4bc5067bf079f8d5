"""A cluster's nodes become pools of equal GPUs; what is not whole, free or known is left out, with reason."""

from __future__ import annotations

import pytest
from cluster_kit import node, node_list

from qwenhost.errors import BadInputError
from qwenhost.kubernetes import Cluster, read_cluster
from qwenhost.profiles import load_catalog

SPECS = load_catalog([]).gpus


def read(*nodes: dict[str, object], tolerate: tuple[str, ...] = ()) -> Cluster:
    return read_cluster(node_list(*nodes), SPECS, name="nodes.json", tolerate=tolerate)


def test_equal_nodes_are_one_pool() -> None:
    """The larger pool first; the node without GPUs is counted and no more."""
    cluster = read(node("b", "h200", 8), node("l", "l40s", 2), node("a", "h200", 8))
    assert cluster.nodes == 4
    assert cluster.refused == ()
    assert [(p.name, p.spec, p.gpus_per_node, p.nodes) for p in cluster.pools] == [
        ("h200", "h200", 8, ("a", "b")),
        ("l40s", "l40s", 2, ("l",)),
    ]
    assert cluster.pools[0].products == ("NVIDIA-H200",)
    assert cluster.pools[0].memory_mib == 143_771


def test_other_numbers_of_a_gpu_are_another_pool() -> None:
    """A pod for eight does not fit on a node with four."""
    cluster = read(node("a", "h200", 8), node("b", "h200", 4))
    assert [(p.name, p.gpus_per_node) for p in cluster.pools] == [("h200", 8), ("h200-4", 4)]


def test_what_kubernetes_would_give_is_what_counts() -> None:
    """Allocatable, not the label: a broken GPU is taken off it by the device plugin."""
    sick = node("a", "h200", 8, allocatable={"nvidia.com/gpu": "7"})
    assert read(sick).pools[0].gpus_per_node == 7


def test_long_names_are_cut_to_what_labels_bear() -> None:
    """The chart takes at most 20 letters, whatever else is there."""
    cluster = read(node("a", "rtx", 8), node("b", "rtx", 4), node("c", "rtx", 2))
    names = [pool.name for pool in cluster.pools]
    assert names == ["rtx-pro-6000-worksta", "rtx-pro-6000-works-4", "rtx-pro-6000-works-2"]


SHARED = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-SHARED",
    "nvidia.com/gpu.replicas": "4",
    "nvidia.com/gpu.sharing-strategy": "time-slicing",
}
SLICED = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3-MIG-3g.40gb", "nvidia.com/mig.strategy": "single"}


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (node("n", "h100", 8, labels=SHARED), "shared by time-slicing, 4 pods each"),
        (node("n", "h100", 8, labels={"nvidia.com/gpu.sharing-strategy": "mps"}), "shared by mps"),
        (node("n", "h100", 8, labels={"nvidia.com/gpu.replicas": "2"}), "shared by time-slicing, 2 pods"),
        (node("n", "h100", 16, labels=SLICED), "MIG slices (NVIDIA-H100-80GB-HBM3-MIG-3g.40gb)"),
        (
            node("n", "h100", 8, allocatable={"nvidia.com/gpu": "0", "nvidia.com/mig-3g.40gb": "16"}),
            "MIG slices (nvidia.com/mig-3g.40gb)",
        ),
        (node("n", "h100", 8, cordoned=True), "cordoned"),
        (node("n", "h100", 8, ready="Unknown"), "not ready (condition Ready is Unknown)"),
        (
            node(
                "n", "h100", 8, taints=[{"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]
            ),
            "node.kubernetes.io/disk-pressure",
        ),
        (
            node("n", "h100", 8, taints=[{"key": "team", "value": "a", "effect": "NoSchedule"}]),
            "tainted team=a:NoSchedule, so it may be somebody else's: --tolerate team takes it",
        ),
        (node("n", "h100", 8, allocatable={"nvidia.com/gpu": "0"}), "no allocatable nvidia.com/gpu"),
        (node("n", "h100", 8, allocatable={"amd.com/gpu": "8"}), "AMD GPUs"),
        (
            node("n", "h100", 8, labels={"nvidia.com/gpu.product": "NVIDIA-H999"}),
            "the catalog has no such GPU",
        ),
        (node("n", "h100", 8, labels={"nvidia.com/gpu.memory": "40000"}), "the catalog has no such GPU"),
        (
            node("n", "h100", 8, labels={"nvidia.com/gpu.product": ""}),
            "install NVIDIA's GPU feature discovery",
        ),
    ],
)
def test_a_node_that_is_not_for_us_is_refused_with_its_reason(
    refused: dict[str, object], reason: str
) -> None:
    """Nothing is planned for it, and a person reads why."""
    cluster = read(refused)
    assert cluster.pools == ()
    assert [one.node for one in cluster.refused] == ["n"]
    assert reason in cluster.refused[0].reason


def test_taints_that_mark_gpu_nodes_are_tolerated() -> None:
    """The chart tolerates nvidia.com/gpu itself; others go into the pool's values."""
    gpu_taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    aks = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    soft = {"key": "team", "value": "a", "effect": "PreferNoSchedule"}
    (pool,) = read(node("a", "h200", 8, taints=[gpu_taint, aks, soft])).pools
    assert [one.text for one in pool.tolerations] == ["sku=gpu:NoSchedule"]


def test_a_taint_is_borne_when_asked_for() -> None:
    """And keeps its nodes apart from those without it."""
    mine = {"key": "team", "value": "a", "effect": "NoExecute"}
    cluster = read(node("a", "h200", 8, taints=[mine]), node("b", "h200", 8), tolerate=("team",))
    assert {tuple(t.text for t in p.tolerations): p.nodes for p in cluster.pools} == {
        ("team=a:NoExecute",): ("a",),
        (): ("b",),
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a list of nodes"),
        (b"{", "not a list of nodes"),
        (b"\xff", "not a list of nodes"),
        (b'{"kind": "Pod", "items": []}', "kind is 'Pod', expected a List of nodes"),
        (b'{"kind": "List", "items": [{"metadata": {}}]}', r"missing required field `name` - at `\$.items"),
        (b'{"kind": "List", "items": {"a": 1}}', "not a list of nodes"),
    ],
)
def test_what_is_no_list_of_nodes_is_refused(data: bytes, message: str) -> None:
    """With the file's name and how to get one."""
    with pytest.raises(BadInputError, match=f"nodes.json: .*{message}|nodes.json: {message}") as caught:
        read_cluster(data, SPECS, name="nodes.json")
    assert "kubectl get nodes -o json" in caught.value.remedy
