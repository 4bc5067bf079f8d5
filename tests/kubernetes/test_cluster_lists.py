"""Lists of nodes drawn at random: every node with GPUs is used or refused, once, with its reason."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.kubernetes.nodes import Cluster, Toleration, pool_name, read_cluster
from qwenhost.profiles import load_catalog

SPECS = load_catalog().gpus
H200 = {
    "nvidia.com/gpu.present": "true", "nvidia.com/gpu.product": "NVIDIA-H200",
    "nvidia.com/gpu.memory": "143771",
    "nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0",
}  # fmt: skip


def node(name: str = "n", *, gpus: int | str | None = 8, **given: Any) -> dict[str, Any]:
    """A healthy node of H200; keywords change labels, taints, conditions, resources."""
    labels = {k: v for k, v in (H200 | given.get("labels", {})).items() if v is not None}
    allocatable = {"cpu": "96", **({"nvidia.com/gpu": str(gpus)} if gpus is not None else {})}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": given.get("taints", []), "unschedulable": given.get("cordoned", False)},
        "status": {
            "allocatable": allocatable | given.get("resources", {}),
            "conditions": [{"type": "Ready", "status": given.get("ready", "True")}],
        },
    }


def read(*nodes: dict[str, Any], kind: str = "List", tolerate: tuple[str, ...] = ()) -> Cluster:
    data = json.dumps({"kind": kind, "items": list(nodes)}).encode()
    return read_cluster(data, SPECS, name="nodes.json", tolerate=tolerate)


def taint(key: str, effect: str = "NoSchedule", value: str = "") -> dict[str, str]:
    return {"key": key, "effect": effect, "value": value}


def test_a_plain_node_is_a_pool() -> None:
    (pool,) = read(node("a"), node("b")).pools
    assert (pool.name, pool.spec, pool.gpus_per_node, pool.nodes) == ("h200", "h200", 8, ("a", "b"))
    assert pool.memory_mib == 143_771
    assert pool.tolerations == ()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"cordoned": True}, "cordoned"),
        ({"ready": "False"}, "not ready (condition Ready is False)"),
        ({"ready": "Unknown"}, "condition Ready is Unknown"),
        ({"taints": [taint("node.kubernetes.io/disk-pressure")]}, "has the taint node.kubernetes.io/disk"),
        ({"taints": [taint("team", value="ml")]}, "tainted team=ml:NoSchedule"),
        ({"taints": [taint("team", "NoExecute")]}, "tainted team:NoExecute"),
        ({"gpus": 0}, "no allocatable nvidia.com/gpu"),
        ({"gpus": None}, "no allocatable nvidia.com/gpu"),
        ({"gpus": "many"}, "no allocatable nvidia.com/gpu"),
        ({"labels": {"nvidia.com/gpu.product": None}}, "without the label nvidia.com/gpu.product"),
        ({"labels": {"nvidia.com/gpu.product": "NVIDIA-H200-SHARED"}}, "shared by time-slicing"),
        ({"labels": {"nvidia.com/gpu.sharing-strategy": "mps", "nvidia.com/gpu.replicas": "4"}}, "by mps, 4"),
        ({"labels": {"nvidia.com/gpu.replicas": "2"}}, "shared by time-slicing, 2 pods each"),
        ({"labels": {"nvidia.com/gpu.product": "NVIDIA-H200-MIG-3g.71gb"}}, "MIG slices"),
        ({"gpus": 0, "resources": {"nvidia.com/mig-3g.71gb": "2"}}, "MIG slices (nvidia.com/mig-3g.71gb)"),
        ({"gpus": None, "resources": {"amd.com/gpu": "8"}}, "AMD GPUs"),
        ({"labels": {"nvidia.com/gpu.product": "NVIDIA-H900"}}, "the catalog has no such GPU (NVIDIA-H900"),
        ({"labels": {"nvidia.com/gpu.memory": "71000"}}, "71000 MiB, capability 9.0"),
    ],
)
def test_a_node_that_is_not_for_us_says_why(given: dict[str, Any], reason: str) -> None:
    found = read(node("x", **given))
    assert found.pools == ()
    (refused,) = found.refused
    assert refused.node == "x"
    assert reason in refused.reason


@pytest.mark.parametrize(
    "given",
    [
        {"taints": [taint("nvidia.com/gpu")]},
        {"taints": [taint("sku", value="gpu")]},
        {"taints": [taint("team", "PreferNoSchedule")]},  # keeps nobody off
        {"labels": {"nvidia.com/gpu.memory": None}},
        {"labels": {"nvidia.com/gpu.compute.major": None}},
        {"labels": {"nvidia.com/gpu.sharing-strategy": "none", "nvidia.com/gpu.replicas": "1"}},
        {"labels": {"nvidia.com/gpu.memory": "9" * 40}},  # no number that could be meant
        {"resources": {"nvidia.com/mig-1g.18gb": "0"}},
    ],
)
def test_a_node_with_oddities_that_do_no_harm_is_taken(given: dict[str, Any]) -> None:
    assert [pool.spec for pool in read(node(**given)).pools] == ["h200"]


def test_a_foreign_taint_may_be_borne_when_asked_and_is_then_tolerated() -> None:
    """The GPU's own taint is not repeated: the chart tolerates it already."""
    tainted = node(
        taints=[taint("team", value="ml"), taint("nvidia.com/gpu"), taint("x", "PreferNoSchedule")]
    )
    (pool,) = read(tainted, tolerate=("team",)).pools
    assert pool.tolerations == (Toleration(key="team", value="ml"),)
    assert pool.tolerations[0].text == "team=ml:NoSchedule"


def test_nodes_without_gpus_are_counted_only() -> None:
    plain = {"metadata": {"name": "cpu"}}
    found = read(plain, node())
    assert (found.nodes, len(found.pools), found.refused) == (2, 1, ())


def test_pools_of_the_same_gpu_are_told_apart_by_count_then_by_number() -> None:
    """The largest first, since that is what most is planned for."""
    cluster = read(
        node("a", gpus=4), node("b"), node("c"), node("d", taints=[taint("sku")]), node("e", gpus=2)
    )
    assert [(p.name, p.gpus_per_node, p.nodes) for p in cluster.pools] == [
        ("h200", 8, ("b", "c")),
        ("h200-8", 8, ("d",)),
        ("h200-4", 4, ("a",)),
        ("h200-2", 2, ("e",)),
    ]


@pytest.mark.parametrize("spec", sorted(SPECS))
@pytest.mark.parametrize("suffix", ["", "-8", "-12345"])
def test_names_fit_the_chart(spec: str, suffix: str) -> None:
    name = pool_name(spec, suffix)
    assert len(name) <= 20
    assert name.endswith(suffix)
    assert "--" not in name


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a list of nodes"),
        (b"[]", "not a list of nodes"),
        (b"\xff", "not a list of nodes"),
        (b"[" * 100_000, "not a list of nodes"),
        (b'{"kind": "Pod", "items": []}', "kind is 'Pod', expected a List of nodes"),
        (b'{"kind": "List"}', "missing required field `items`"),
        (b'{"kind": "List", "items": [{}]}', r"$.items[0]"),
        (b'{"kind": "List", "items": [{"metadata": {"name": 5}}]}', r"$.items[0].metadata.name"),
    ],
)
def test_what_is_no_list_names_its_key(data: bytes, said: str) -> None:
    with pytest.raises(BadInputError, match=r"nodes\.json: ") as caught:
        read_cluster(data, SPECS, name="nodes.json")
    assert said in caught.value.message
    assert "kubectl get nodes -o json" in caught.value.remedy


NODES = st.builds(
    lambda name, gpus, product, ready, cordoned, key: node(
        name, gpus=gpus, labels={"nvidia.com/gpu.product": product}, ready=ready, cordoned=cordoned,
        taints=[taint(key)] if key else [],
    ),
    st.text(st.characters(codec="ascii", categories=("Ll", "Nd")), min_size=1, max_size=8),
    st.sampled_from([None, 0, 1, 2, 4, 8]),
    st.sampled_from([None, "NVIDIA-H200", "NVIDIA-H200-SHARED", "NVIDIA-B200", "Tesla-T4"]),
    st.sampled_from(["True", "True", "False"]),
    st.sampled_from([False, False, True]),
    st.sampled_from(["", "", "sku", "team"]),
)  # fmt: skip


@given(st.lists(NODES, max_size=10, unique_by=lambda one: one["metadata"]["name"]))
def test_every_node_with_gpus_is_used_or_refused_once(nodes: list[dict[str, Any]]) -> None:
    found = read(*nodes)
    used = [name for pool in found.pools for name in pool.nodes]
    refused = [one.node for one in found.refused]
    assert sorted(used + refused) == sorted(one["metadata"]["name"] for one in nodes)
    assert len({pool.name for pool in found.pools}) == len(found.pools)
    assert all(one.reason for one in found.refused)
    for pool in found.pools:
        machine = pool.machine(SPECS, pool.gpus_per_node)
        assert machine.gpu_count == pool.gpus_per_node > 0
        assert machine.is_uniform
        assert (machine.interconnect == "none") == (pool.gpus_per_node == 1)


@given(st.lists(NODES, max_size=6, unique_by=lambda one: one["metadata"]["name"]), st.randoms())
def test_the_order_of_the_list_does_not_count(nodes: list[dict[str, Any]], chance: Any) -> None:
    shuffled = list(nodes)
    chance.shuffle(shuffled)
    assert read(*shuffled) == read(*nodes)
