"""The layer law: a module imports from lower layers or its own package, and at the top of the file."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "qwenhost"

# docs/design.md explains the layers; a new top-level module must be given one here.
LAYERS = {
    "__init__": 0, "errors": 0, "units": 0,
    "facts": 1, "files": 1,
    "node": 2, "hub": 2, "traces": 2,
    "plan": 3, "measurements": 3, "token_counts": 3,
    "profiles": 4, "discovery": 4, "tensors": 4, "planner": 4, "render": 4, "probe": 4,
    "cost": 4, "simulate": 4, "kubernetes": 4, "tuning": 4,
    "launcher": 5, "report": 5,
    "cli": 6, "__main__": 7,
}  # fmt: skip


def room(path: Path) -> str:
    """The top-level module or package a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> list[tuple[str, int, bool]]:
    """(room, line, at module level) of every qwenhost import, type-checking ones included."""
    tree = ast.parse(path.read_text())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write absolute imports"
            names = [
                f"{node.module}.{alias.name}" if node.module == "qwenhost" else str(node.module)
                for alias in node.names
            ]
        for name in names:
            parts = name.split(".")
            if parts[0] == "qwenhost":
                target = parts[1] if len(parts) > 1 else "__init__"
                found.append(
                    (target if target in LAYERS else "__init__", node.lineno, id(node) not in inside)
                )
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    """Every import goes to a lower layer or stays in its own package."""
    own = room(path)
    assert own in LAYERS, f"{path}: give {own!r} a layer"
    for target, line, _ in imported_rooms(path):
        allowed = target == own or LAYERS[target] < LAYERS[own]
        assert allowed, (
            f"{path}:{line}: {own} (layer {LAYERS[own]}) imports {target} (layer {LAYERS[target]})"
        )


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    """Lazy imports of our own modules are for the command line's start-up time only."""
    if room(path) == "cli":
        return
    hidden = [line for _, line, top in imported_rooms(path) if not top]
    assert not hidden, f"{path}: imports inside functions at lines {hidden}"


def module_of(path: Path) -> str:
    """``qwenhost.planner.sizing`` of its file."""
    parts = ("qwenhost", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file names in an import, type-checking ones included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & MODULES


MODULES = {module_of(path) for path in FILES if path.name != "__init__.py"}


def test_no_two_files_need_one_another() -> None:
    """The imports of single files have no circle, not even for type checking."""
    needs = {module_of(path): imported_modules(path) for path in FILES if path.name != "__init__.py"}
    list(graphlib.TopologicalSorter(needs).static_order())
