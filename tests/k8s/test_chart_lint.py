"""Linters over the chart: helm's, yamllint, checkov with the baseline that the README explains."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import checkov_env
import pytest
import yaml
from chart_kit import CASES, CHART, EXAMPLES, ROOT, helm, objects

K8S = ROOT / "k8s"
YAMLLINT = """
extends: default
rules:
  line-length: {max: 140, allow-non-breakable-inline-mappings: true, allow-non-breakable-words: true}
  document-start: disable
  braces: {max-spaces-inside: 0}
  comments: {min-spaces-from-content: 1}
  truthy: {check-keys: false}
  indentation: {indent-sequences: whatever}
"""
BASELINE = {
    ("CKV_K8S_43", "Deployment.qwen.qwen-qwenhost-h200"),
    ("CKV_K8S_22", "Deployment.qwen.qwen-qwenhost-h200"),
    ("CKV_K8S_43", "Job.qwen.qwen-qwenhost-weights"),
    ("CKV_K8S_43", "Job.qwen.qwen-qwenhost-test"),
}
"""Each is explained in k8s/chart/README.md; a fifth is the most there may be."""


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_helm_lint_strict(example: Path) -> None:
    """No error and no warning with the values of any example."""
    said = helm("lint", "--strict", "--kube-version", "1.36", str(CHART), "-f", str(example))
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


def test_chart_packages(tmp_path: Path) -> None:
    """`helm package` takes it, with the files that templates read."""
    helm("package", str(CHART), "--destination", str(tmp_path))
    names = subprocess.run(
        ["tar", "-tzf", tmp_path / "qwenhost-0.1.0.tgz"], check=True, capture_output=True, text=True
    ).stdout
    assert "qwenhost/files/plans.yaml" in names
    assert "qwenhost/files/scripts/engine.sh" in names


def test_yamllint() -> None:
    """Every YAML file that people edit, duplicate keys among the rules."""
    made = {"plans.yaml", "ladder.yaml", "manifests.yaml"}
    files = [
        p
        for p in sorted(K8S.rglob("*.yaml"))
        if not {"templates", "alerts"} & set(p.parts) and p.name not in made
    ]
    assert len(files) > 15
    command = [Path(sys.executable).parent / "yamllint", "--strict", "-d", YAMLLINT, *files]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.stdout == ""


def checkov() -> Path:
    """The program; a skip that is seen where it cannot be had."""
    try:
        return checkov_env.build()
    except (subprocess.CalledProcessError, OSError) as error:
        if os.environ.get("QWENHOST_REQUIRE_ENGINE") == "1":
            raise
        pytest.skip(f"checkov cannot be installed: {error}")


SCANNED = ("default", "example-multi-node-2x4xh100", "inferencepool", "init-container")


@pytest.fixture(scope="session")
def failed_checks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[tuple[str, str]]]:
    """(check, resource) of what fails, by case; groups unfolded into pods, hashes in names left out."""
    folder = tmp_path_factory.mktemp("checkov")
    for name in SCANNED:
        unfolded = []
        for one in objects(CASES[name]):
            unfolded += _pods(one) if one["kind"] == "LeaderWorkerSet" else [one]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(unfolded))
    files = [word for name in SCANNED for word in ("-f", str(folder / f"{name}.yaml"))]
    done = subprocess.run(
        [checkov(), *files, "--framework", "kubernetes", "--skip-download", "-o", "json", "--quiet"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(folder)},
    )
    results = json.loads(done.stdout)
    assert results["summary"]["passed"] > 200
    found: dict[str, set[tuple[str, str]]] = {name: set() for name in SCANNED}
    for check in results["results"]["failed_checks"]:
        resource = re.sub(r"-[0-9a-f]{10}$", "", check["resource"])
        found[Path(check["file_path"]).stem].add((check["check_id"], resource))
    return found


def _pods(group: dict[str, Any]) -> list[dict[str, Any]]:
    template = group["spec"]["leaderWorkerTemplate"]
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**group["metadata"], "name": f"{group['metadata']['name']}-{role}"},
            "spec": {"template": template[f"{role}Template"]},
        }
        for role in ("leader", "worker")
    ]


def test_checkov_baseline(failed_checks: dict[str, set[tuple[str, str]]]) -> None:
    """The default fails the checks that the README explains, and no other."""
    assert len(BASELINE) <= 5
    assert failed_checks["default"] == BASELINE
    readme = (CHART / "README.md").read_text()
    assert all(check in readme for check, _ in BASELINE)


@pytest.mark.parametrize("name", SCANNED[1:])
def test_checkov_elsewhere(name: str, failed_checks: dict[str, set[tuple[str, str]]]) -> None:
    """Groups, the endpoint picker and the planner add no other kind of finding."""
    allowed = {check for check, _ in BASELINE}
    # The picker watches pods, with a token; workers of a group serve no HTTP and end with their leader.
    allowed |= {"inferencepool": {"CKV_K8S_38"}, SCANNED[1]: {"CKV_K8S_8", "CKV_K8S_9"}}.get(name, set())
    assert {check for check, _ in failed_checks[name]} <= allowed


def test_every_value_is_described() -> None:
    """Each leaf of values.yaml lies under a description."""
    described = {
        line.split("`")[1]
        for line in (CHART / "README.md").read_text().splitlines()
        if line.startswith("| `")
    }
    missing = []

    def walk(node: Any, path: str) -> None:
        if path in described:
            return
        if isinstance(node, dict) and node:
            for key, value in node.items():
                walk(value, f"{path}.{key}".lstrip("."))
        else:
            missing.append(path)

    walk(yaml.safe_load((CHART / "values.yaml").read_text()), "")
    assert missing == []
