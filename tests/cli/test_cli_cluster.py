"""``qwenhost k8s``: clusters from a file or stdin, values that are the plans', manifests checked by hand."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_kit import Cli

PRODUCTS = {"H200": ("NVIDIA-H200", 143_771), "L40S": ("NVIDIA-L40S", 46_068)}


def node(name: str, kind: str = "H200", gpus: int = 2, *, taint: str = "") -> dict[str, Any]:
    """As ``kubectl get nodes -o json`` prints it, with GPU feature discovery's labels."""
    product, memory = PRODUCTS[kind]
    labels = {"product": product, "count": str(gpus), "memory": str(memory)}
    return {
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {f"nvidia.com/gpu.{key}": value for key, value in labels.items()},
        },
        "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "64", "memory": "1000Gi"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.fixture
def cluster(tmp_path: Path) -> Callable[..., Path]:
    """``cluster(node("a"), node("b"))`` as a file."""

    def write(*nodes: dict[str, Any]) -> Path:
        path = tmp_path / "nodes.json"
        path.write_text(json.dumps({"kind": "List", "items": nodes}))
        return path

    return write


class Stdin:
    """A piped stdin."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)

    def isatty(self) -> bool:
        return False


class TestPlan:
    def test_equal_nodes_are_one_pool(self, cli: Cli, cluster: Any) -> None:
        """Two nodes of two H200: the plan is that of two H200, or of its parts as pods."""
        done = cli("k8s", "plan", cluster(node("a"), node("b")), "--json")
        assert done.code == 0, done.err
        (pool,) = done.data["pools"]
        assert sorted(pool["nodes"]) == ["a", "b"]
        assert {gpu["spec"] for gpu in pool["plan"]["inputs"]["node"]["gpus"]} == {"h200"}
        values = yaml.safe_load(done.data["values"])
        assert pool["plan"]["chosen"]["checkpoint"]["repo_id"] in json.dumps(values)

    def test_different_nodes_are_different_pools(self, cli: Cli, cluster: Any) -> None:
        path = cluster(node("a"), node("b", "L40S", 8))
        data = cli("k8s", "plan", path, "--json").data
        assert len(data["pools"]) + len(data["unfit"]) == 2

    def test_text_json_and_file_are_the_same_values(self, cli: Cli, cluster: Any, tmp_path: Path) -> None:
        path = cluster(node("a"))
        text = cli("k8s", "plan", path).out
        out = tmp_path / "values.yaml"
        written = cli("k8s", "plan", path, "-o", out, "--json")
        assert out.read_text() == text == written.data["values"]
        assert f"Wrote {out}." in written.err
        assert yaml.safe_load(text)

    def test_stdin_is_a_dash(self, cli: Cli, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same values; only where they come from is told differently."""
        path = cluster(node("a"))
        monkeypatch.setattr("sys.stdin", Stdin(path.read_bytes()))
        piped, named = cli("k8s", "plan", "-"), cli("k8s", "plan", path)
        assert piped.code == 0
        assert piped.out == named.out.replace(f"from {path}", "from stdin")

    def test_a_taint_keeps_nodes_out_until_it_is_tolerated(self, cli: Cli, cluster: Any) -> None:
        path = cluster(node("a"), node("b", taint="team"))
        data = cli("k8s", "plan", path, "--json").data
        assert [one["node"] for one in data["refused"]] == ["b"]
        both = cli("k8s", "plan", path, "--tolerate", "team", "--json").data
        assert not both["refused"]
        assert {name for pool in both["pools"] for name in pool["nodes"]} == {"a", "b"}

    def test_nodes_left_out_are_told_why(self, cli: Cli, cluster: Any) -> None:
        done = cli("k8s", "plan", cluster(node("a"), node("b", taint="team")))
        assert any(line.startswith("Left out b: ") for line in done.err.splitlines())

    def test_a_cluster_without_gpus_is_3(self, cli: Cli, cluster: Any) -> None:
        bare = {"kind": "Node", "metadata": {"name": "cpu"}, "spec": {}, "status": {"allocatable": {}}}
        done = cli("k8s", "plan", cluster(bare))
        assert (done.code, done.out) == (3, "")
        assert "None of the 1 nodes has GPUs to plan for." in done.err

    def test_a_pin_that_no_pool_can_keep_is_3(self, cli: Cli, cluster: Any) -> None:
        """Each pool's own sentence, then the whole's."""
        done = cli("k8s", "plan", cluster(node("a", "L40S", 1)), "--checkpoint", "bf16")
        assert (done.code, done.out) == (3, "")
        assert "No pool of the cluster can serve." in done.err
        assert "Pool " in done.err

    def test_options_act_as_in_plan(self, cli: Cli, cluster: Any) -> None:
        """A context pinned for all."""
        data = cli("k8s", "plan", cluster(node("a")), "--max-model-len", 16384, "--json").data
        assert data["pools"][0]["plan"]["chosen"]["engine_args"]["max_model_len"] == 16384

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            ((), "give the nodes: kubectl get nodes -o json | qwenhost k8s plan -"),
            (("nodes.json", "--claim-template", "x"), "--claim-template goes with --dra"),
            (("nodes.json", "--workload", "nope"), "'nope': no such preset"),
        ],
    )
    def test_wrong_values(self, cli: Cli, cluster: Any, words: tuple[str, ...], says: str) -> None:
        cluster(node("a"))
        cli("k8s", "plan", *words).refused(says)

    def test_the_ladder_begins_with_the_fewest_gpus(self, cli: Cli, cluster: Any) -> None:
        """Limited to what a cluster has: two H200 a node, so no rung asks for more."""
        words = ("k8s", "plan", cluster(node("a")), "--dra", "--checkpoint", "fp8")
        data = cli(*words, "--json").data
        counts = [rung["count"] for rung in data["ladder"]]
        assert counts == sorted(counts)
        assert max(counts) <= 2
        template = yaml.safe_load(cli(*words, "--claim-template", "gpus").out)
        assert (template["kind"], template["metadata"]["name"]) == ("ResourceClaimTemplate", "gpus")


SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 80}]
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: LABEL}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers: [{name: c, image: "i:1", ports: [{containerPort: 80}]}]
"""


class TestCheck:
    @pytest.mark.parametrize(("label", "code"), [("web", 0), ("other", 1)])
    def test_a_selector_must_match_its_own_pods(
        self, *, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str, code: int
    ) -> None:
        """By hand: the API server refuses a Deployment whose selector does not. Stdin is the same."""
        text = DEPLOYMENT.replace("LABEL", label)
        path = tmp_path / "all.yaml"
        path.write_text(f"{SERVICE}---\n{text}")
        done = cli("k8s", "check", path)
        assert done.code == code, done.out
        assert done.err.startswith("2 objects: ")
        monkeypatch.setattr("sys.stdin", Stdin(path.read_bytes()))
        piped = cli("k8s", "check", "-")
        assert piped.code == code
        assert piped.out == done.out.replace(str(path), "stdin")
        data = cli("k8s", "check", path, "--json")
        assert (data.code, data.data["errors"] > 0) == (code, code == 1)
        assert data.data["objects"] == 2
        for finding in data.data["findings"]:
            assert f"{path}:{finding['line']}" in done.out
            assert finding["message"] in done.out

    def test_binary_on_stdin(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", Stdin(b"\xff\xfe\x00"))
        cli("k8s", "check", "-").refused("stdin: not text in UTF-8")

    def test_nothing_on_stdin(self, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", Stdin(b""))
        cli("k8s", "check", "-").refused("no manifest in -", "Did helm template print anything?")

    def test_no_file_is_usage(self, cli: Cli) -> None:
        cli("k8s", "check").refused("Missing argument")


class TestInit:
    def test_a_refusal_is_cut_to_what_kubernetes_keeps(self, cli: Cli, tmp_path: Path) -> None:
        """4096 characters of a termination message, in one line."""
        request, log = tmp_path / "init.yaml", tmp_path / "termination-log"
        request.write_text(f"checkpoints: {'x' * 9000}\n")
        done = cli("k8s", "init", "--request", request, "--output", tmp_path / "o", "--termination-log", log)
        assert done.code == 2
        assert 0 < len(log.read_text()) <= 4096
        assert "\n" not in log.read_text()
        assert not (tmp_path / "o").exists()

    @pytest.mark.parametrize("missing", ["--request", "--output"])
    def test_both_files_must_be_named(self, cli: Cli, missing: str) -> None:
        words = {"--request": "r.yaml", "--output": "o.yaml"}
        del words[missing]
        cli("k8s", "init", *(word for pair in words.items() for word in pair)).refused(missing)
