"""What the site needs beyond MkDocs: pages from elsewhere in the tree, and a refusal of outside requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ELSEWHERE = (
    "benchmarks/results/memory_accuracy.md",
    "benchmarks/results/speed_accuracy.md",
    "k8s/chart/README.md",
)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)(?P<path>[^)#\s]+)(?P<rest>#[^)\s]*)?\)")
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|<link(?=[^>]*rel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*href=[\"']?(?:https?:)?//[^\s\"'>]+"
    r"|url\([\"']?(?:https?:)?//[^)]+"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the results and the chart's page, which live where they are made."""
    for name in ELSEWHERE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links at the site's own places; what the site does not carry becomes its path in the tree."""
    del config
    source = page.file.src_uri
    folder = (ROOT / source if source in ELSEWHERE else ROOT / "docs" / source).parent

    def placed(link: re.Match[str]) -> str:
        target = (folder / link["path"]).resolve()
        if not target.exists() or not target.is_relative_to(ROOT):
            return link[0]
        within = target.relative_to(ROOT).as_posix().removeprefix("docs/")
        if files.get_file_from_path(within) is None:
            return f"](outside:{within})"
        up = "../" * source.count("/")
        return f"]({up}{within}{link['rest'] or ''})"

    text = _LINK.sub(placed, markdown)
    return re.sub(r"\[([^\]]+)\]\(outside:([^)]+)\)", r"\1 (`\2`)", text)


def on_post_build(config: MkDocsConfig) -> None:
    """Fail where a page would load something from another host.

    Raises:
        PluginError: names the page and what it loads.
    """
    for path in sorted(Path(config.site_dir).rglob("*")):
        if path.suffix in (".html", ".css") and (found := _LOADED.search(path.read_text())):
            raise PluginError(f"{path.relative_to(config.site_dir)} loads from another host: {found[0]}")
