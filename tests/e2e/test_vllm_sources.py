"""Fetching vLLM's sources: once, whole or not at all, and plain about failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e import vllm_sources

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sources go; pip is cut off from every index."""
    target = tmp_path / "sources"
    monkeypatch.setenv("QWENHOST_VLLM_SOURCES_DIR", str(target))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return target


def test_a_failed_download_says_what_to_do_and_leaves_nothing(directory: Path) -> None:
    """Without an index pip's own words and a remedy are in the error, and no directory remains."""
    with pytest.raises(
        vllm_sources.SourcesError, match=r"vllm==0\.33\.0.*\n(.*\n)*Remedy: check the network"
    ):
        vllm_sources.build(progress=lambda _: None)
    assert [path.name for path in directory.parent.iterdir()] == ["sources.lock"]


def test_complete_sources_are_not_fetched_again(directory: Path) -> None:
    """The marker of this release is enough: no pip runs, which would fail here."""
    directory.mkdir()
    (directory / vllm_sources.COMPLETE_MARKER).write_text("0.33.0\n")
    assert vllm_sources.build(progress=lambda _: None) == directory


def test_a_directory_of_someone_else_is_left_alone(directory: Path) -> None:
    """Files that are not vLLM's sources are never removed."""
    directory.mkdir()
    (directory / "thesis.tex").write_text("years of work")
    with pytest.raises(vllm_sources.SourcesError, match="holds files that are not vLLM's sources"):
        vllm_sources.build(progress=lambda _: None)
    assert (directory / "thesis.tex").read_text() == "years of work"
