"""A ladder of GPU claims: on whatever a rung lets through, the planner finds a plan."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from cluster_kit import node, node_list

from qwenhost.cli import k8s_setup
from qwenhost.errors import InfeasibleError
from qwenhost.kubernetes import Rung, check_manifests, ladder, read_manifests
from qwenhost.node import Gpu, Node
from qwenhost.profiles import load_catalog
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import GpuSpec

KNOWN = load_catalog([])
GPUS = [spec for spec in KNOWN.gpus.values() if spec.vendor == "nvidia" and not spec.unified_memory]


def made(**options: Any) -> list[Rung]:
    return k8s_setup.rungs(KNOWN, {"workload": "chat", **options}, None)


@pytest.fixture(scope="module")
def fp8() -> dict[int, Rung]:
    """The rungs for FP8 by their number of GPUs."""
    return {one.count: one for one in made(checkpoint="fp8")}


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "qwenhost.cli.main", "k8s", "plan", "--dra", *arguments]
    return subprocess.run(command, check=False, capture_output=True, input=stdin)


def machine(spec: GpuSpec, count: int) -> Node:
    gpus = tuple(
        Gpu(index=i, name=spec.name, spec=spec.id, memory_total_bytes=spec.memory_bytes,
            compute_capability=spec.compute_capability)
        for i in range(count)
    )  # fmt: skip
    link = "none" if count == 1 else spec.link
    return Node(gpus=gpus, interconnect=link, origin="described", description=f"{count}x {spec.name}")


def test_fewer_gpus_come_first_and_are_larger(fp8: dict[int, Rung]) -> None:
    """So the scheduler takes no more GPUs than it must."""
    assert list(fp8) == [1, 2, 4, 8]
    memory = [one.min_memory_gib for one in fp8.values()]
    assert memory == sorted(memory, reverse=True)
    # 127.15 GB of weights alone, before any cache.
    for rung in fp8.values():
        assert rung.count * rung.min_memory_gib * GIB > 127_150_000_000


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_every_gpu_that_a_rung_admits_has_a_plan_with_the_whole_context(
    count: int, fp8: dict[int, Rung]
) -> None:
    """The init container finds a plan on all of them: a claim is never given GPUs that cannot serve."""
    rung, feasible = fp8[count], k8s_setup.rung_planner(KNOWN, {"checkpoint": "fp8"}, least_context=262_144)
    admitted = [spec for spec in GPUS if spec.memory_bytes >= rung.min_memory_gib * GIB]
    assert admitted
    for spec in admitted:
        assert feasible(machine(spec, rung.count)) is not None, spec.id


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_a_gibibyte_less_would_not_do(count: int, fp8: dict[int, Rung]) -> None:
    """On at least one kind of GPU, so the bound is no larger than it must be."""
    rung, feasible = fp8[count], k8s_setup.rung_planner(KNOWN, {"checkpoint": "fp8"}, least_context=262_144)
    smaller = [msgspec.structs.replace(spec, memory_bytes=(rung.min_memory_gib - 1) * GIB) for spec in GPUS]
    assert any(feasible(machine(spec, rung.count)) is None for spec in smaller)


def test_a_larger_checkpoint_wants_larger_gpus(fp8: dict[int, Rung]) -> None:
    """BF16 is twice FP8."""
    wanted = {one.count: one.min_memory_gib for one in made(checkpoint="bf16")}
    assert {2, 4, 8} <= wanted.keys()
    assert all(wanted[one.count] > one.min_memory_gib * 1.5 for one in fp8.values() if one.count in wanted)


def test_the_gpus_of_a_cluster_bound_the_ladder() -> None:
    """No node has more than four GPUs; nothing is asked of kinds that are not there."""
    nodes = node_list(node("a", "h100", 4), node("b", "h200", 2))
    found = json.loads(run("-", "--checkpoint", "fp8", "--json", stdin=nodes).stdout)
    assert [one["count"] for one in found["ladder"]] == [2, 4]
    assert {one["minComputeCapability"] for one in found["ladder"]} == {"9.0"}


def test_where_nothing_fits_there_is_no_ladder() -> None:
    """Exit code 3."""
    nodes = node_list(node("a", "3090", 2))
    done = run("-", "--checkpoint", "fp8", stdin=nodes)
    assert (done.returncode, done.stdout) == (3, b"")
    assert b"No number of GPUs serves" in done.stderr


def test_values_hold_the_alternatives_and_their_weights() -> None:
    """What the chart makes a claim of, and what the init container may choose from."""
    values = yaml.safe_load(run("--checkpoint", "fp8").stdout)
    assert values["plan"]["mode"] == "dra"
    assert [one["id"] for one in values["plan"]["checkpoints"]] == ["fp8"]
    assert [one["count"] for one in values["dra"]["ladder"]] == [1, 2, 4, 8]
    assert all(one["minMemory"].endswith("Gi") for one in values["dra"]["ladder"])


def test_the_claim_template_alone(fp8: dict[int, Rung]) -> None:
    """For those who write their own pods: sound by our own check, alternatives in order."""
    text = run("--checkpoint", "fp8", "--claim-template", "qwen").stdout.decode()
    manifests, twice = read_manifests(text, "x")
    assert [*twice, *check_manifests(manifests)] == []
    (claim,) = manifests
    (request,) = claim.body["spec"]["spec"]["devices"]["requests"]
    assert [one["count"] for one in request["firstAvailable"]] == [1, 2, 4, 8]
    expression = request["firstAvailable"][1]["selectors"][0]["cel"]["expression"]
    assert f"compareTo(quantity('{fp8[2].min_memory_gib}Gi')) >= 0" in expression


def test_no_kind_of_gpu_gives_no_rung() -> None:
    """And a planner that never finds anything neither."""
    assert ladder([], lambda _: None) == []
    assert ladder(GPUS[:1], lambda _: None) == []
    with pytest.raises(InfeasibleError, match="No number of GPUs"):
        made(checkpoint="bf16", gpu_memory_utilization=0.1)
