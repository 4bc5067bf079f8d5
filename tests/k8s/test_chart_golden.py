"""What every example and toggle renders, kept here, so that a change of the chart shows what it does.

The default is kept whole; each other case as its difference from it, by object. The plans are golden/'s,
not the chart's, which change with the planner. After a wanted change: QWENHOST_UPDATE_GOLDEN=1 pytest FILE
"""

from __future__ import annotations

import difflib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart_kit import CASES, CHART, Case, helm

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("QWENHOST_UPDATE_GOLDEN") == "1"


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with plans that stay."""
    copy = tmp_path_factory.mktemp("golden") / "chart"
    shutil.copytree(CHART, copy)
    for name in ("plans.yaml", "ladder.yaml"):
        shutil.copy(GOLDEN / name, copy / "files" / name)
    return copy


@pytest.fixture(scope="module")
def default(chart: Path) -> dict[str, str]:
    """The default's objects."""
    return shown(chart, CASES["default"])


def shown(chart: Path, case: Case) -> dict[str, str]:
    """Each object as text, long files as their hash, drawn keys left out."""
    text = helm("template", "qwen", str(chart), "--namespace", "qwen", "--kube-version", "1.36", *case)
    found = {}
    for one in yaml.load_all(text, Loader=yaml.CSafeLoader):
        if one:
            _shorten(one)
            key = f"{one['kind']} {one['metadata'].get('name', '')}"
            found[re.sub(r"-[0-9a-f]{10}$", "-HASH", key)] = yaml.safe_dump(one, sort_keys=True, width=110)
    return found


def _shorten(one: dict[str, Any]) -> None:
    if one["kind"] == "Secret":
        one["stringData"] = dict.fromkeys(one["stringData"], "DRAWN")
    for key, value in (one.get("data") or {}).items() if one["kind"] == "ConfigMap" else ():
        if key.endswith((".sh", ".py", ".json")):
            one["data"][key] = f"{len(value.splitlines())} lines"
    if one["kind"] == "PrometheusRule":
        one["spec"]["groups"] = [one["spec"]["groups"][0], f"{len(one['spec']['groups']) - 1} more"]
    _hashes(one)


def _hashes(node: Any) -> None:
    for key, value in list(node.items()) if isinstance(node, dict) else []:
        if key.startswith("qwenhost.io/checksum-"):
            node[key] = "HASH"
        elif key == "name" and isinstance(value, str):
            node[key] = re.sub(r"-weights-[0-9a-f]{10}$", "-weights-HASH", value)
        _hashes(value)
    for value in node if isinstance(node, list) else ():
        _hashes(value)


def difference(default: dict[str, str], case: dict[str, str]) -> str:
    """Objects that are new, gone or changed."""
    lines = []
    for key in sorted(default.keys() | case.keys()):
        before, after = default.get(key, ""), case.get(key, "")
        lines += list(
            difflib.unified_diff(before.splitlines(), after.splitlines(), key, key, lineterm="", n=1)
        )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_rendering_is_as_kept(name: str, chart: Path, default: dict[str, str]) -> None:
    """The default as a whole, any other case by its difference from the default."""
    objects = shown(chart, CASES[name])
    made = "---\n".join(objects[key] for key in sorted(objects))
    path = GOLDEN / ("default.yaml" if name == "default" else f"{name}.diff")
    if name != "default":
        made = difference(default, objects)
    if UPDATE:
        path.write_text(made)
    assert path.read_text() == made


def test_no_golden_file_is_left_over() -> None:
    """Every file belongs to a case."""
    kept = {path.stem for path in GOLDEN.glob("*")} - {"plans", "ladder"}
    assert kept == set(CASES)
