"""A cache of their own for tests that load profiles, and a folder to write mistakes into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.facts import Catalog


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's catalogs are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("QWENHOST_PROFILES", raising=False)
    return tmp_path / "cache" / "qwenhost" / "catalog"


@pytest.fixture(scope="session")
def builtin() -> Catalog:
    return load_catalog(use_cache=False)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a profile file into a folder of the test's and return the folder."""

    def put(text: str, name: str = "mine.yaml", folder: str = "mine") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path.parent

    return put
