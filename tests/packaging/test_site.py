"""The documentation as a site: built strictly, searchable from a folder, asking no other host."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from packaging_kit import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("material", reason="no mkdocs-material: make install")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``make site`` writes; a warning, such as a link that leads nowhere, stops it."""
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", place],
        check=False, capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


def test_every_page_of_the_menu_is_built(site: Path) -> None:
    """The names of mkdocs.yml, as files that open without a server."""
    listed = re.findall(r": ([\w/.-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert listed
    for name in listed:
        place = re.sub(r"(^|/)README$", r"\1index", name)
        assert (site / f"{place}.html").exists(), name


def test_the_search_works_without_a_server(site: Path) -> None:
    """A page from a folder may not fetch: the index is a script, and a shim stands in for the worker."""
    script = (site / "search" / "search_index.js").read_text()
    found = {entry["location"] for entry in json.loads(script.removeprefix("var __index = "))["docs"]}
    assert {"model.html", "reference/commands.html", "guides/single-node.html"} <= found
    assert '<script src="javascripts/iframe-worker.js">' in (site / "index.html").read_text()
    assert '<script src="../javascripts/iframe-worker.js">' in (site / "guides" / "facts.html").read_text()
    assert (site / "javascripts" / "iframe-worker.js").stat().st_size > 1000


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No script, picture, style or font of another host, in any page."""
    loaded = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=[\"']?(?:https?:)?//|url\([\"']?(?:https?:)?//")
    pages = [path for path in site.rglob("*") if path.suffix in {".html", ".css"}]
    assert len(pages) > 20
    assert not [path.name for path in pages if loaded.search(path.read_text())]


def test_links_between_pages_lead_somewhere(site: Path) -> None:
    """Every relative link and anchor in the built pages exists, those that MkDocs made included."""
    anchors: dict[Path, set[str]] = {}
    for page in site.rglob("*.html"):
        anchors[page.resolve()] = set(re.findall(r"\sid=[\"']?([^\"'\s>]+)", page.read_text()))
    for page in anchors:
        if page.name == "404.html":  # its links are absolute, for a server
            continue
        for link in re.findall(r"<a[^>]*\shref=[\"']?([^\"'\s>]+)", page.read_text()):
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path not in {"", "."} else page
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{page.name}: {link}"
            if anchor and target in anchors and not anchor.startswith("__"):
                assert anchor in anchors[target], f"{page.name}: {link}"


def test_generators_and_their_caches_stay_out(site: Path) -> None:
    """Pages, not the programs that make them."""
    assert not [path for path in site.rglob("*") if path.suffix in {".py", ".pyc"}]
