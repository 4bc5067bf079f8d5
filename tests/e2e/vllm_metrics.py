"""Names, kinds and labels of vLLM's Prometheus metrics, read from its sources.

python tests/e2e/vllm_metrics.py    writes tests/data/vllm-metrics-0.33.txt
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))  # also runs as a plain file

from e2e import vllm_sources

if TYPE_CHECKING:
    from collections.abc import Iterator

REGISTRY = Path(__file__).parents[1] / "data" / "vllm-metrics-0.33.txt"
FILES = ("v1/metrics/loggers.py", "v1/spec_decode/metrics.py")
KINDS = {"_gauge_cls": "gauge", "_counter_cls": "counter", "_histogram_cls": "histogram"}
# Both files pass these two on as `labelnames`.
ENGINE_LABELS = ("engine", "model_name")


def registry(sources: Path) -> str:
    """A line for each metric: kind, name, labels."""
    lines = {
        " ".join((kind, name, *labels))
        for file in FILES
        for kind, name, labels in _metrics(ast.parse((sources / "vllm" / file).read_text()))
    }
    head = f"# Made by tests/e2e/vllm_metrics.py from vLLM {vllm_sources.VLLM_VERSION}: kind, name, labels.\n"
    return head + "\n".join(sorted(lines, key=lambda line: line.split()[1])) + "\n"


def _metrics(tree: ast.AST) -> Iterator[tuple[str, str, list[str]]]:
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        kind = KINDS.get(node.func.attr)
        given = {word.arg: word.value for word in node.keywords}
        if kind is None or "name" not in given:
            continue
        labels = _labels(given.get("labelnames"))
        name = given["name"]
        if isinstance(name, ast.Constant):
            yield kind, str(name.value), labels
        else:  # a loop over (name, documentation) pairs
            names = {t for t in texts if isinstance(t, str) and t.startswith("vllm:spec_decode_")}
            yield from ((kind, one, labels) for one in names if not one.endswith("_per_pos"))


def _labels(node: ast.expr | None) -> list[str]:
    """Strings in a list of labels; a name in it stands for the engine's two."""
    if node is None:
        return []
    found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    if "pos_labelnames" in names:
        found.add("position")
    return sorted(found | (set(ENGINE_LABELS) if names else set()))


if __name__ == "__main__":
    REGISTRY.write_text(registry(vllm_sources.build()))
