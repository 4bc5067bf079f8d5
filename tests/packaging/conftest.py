"""One build for all tests of this folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packaging_kit import Built, build, copy_of_the_tree

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree, as others may be changing it."""
    return copy_of_the_tree(tmp_path_factory.mktemp("tree") / "one")


@pytest.fixture(scope="session")
def release(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The archives."""
    return build(tree, tmp_path_factory.mktemp("release"))
