"""The page in a real browser: three widths, both themes, no complaint on the console, nothing cut off."""

from __future__ import annotations

import html as markup
import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from report_samples import SAMPLES

from qwenhost.report import html

if TYPE_CHECKING:
    from pathlib import Path

BROWSER = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome", "chrome")
        if (found := shutil.which(name))
    ),
    None,
)
pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        BROWSER is None,
        reason="NO CHROMIUM: the report was not opened in a browser; apt-get install chromium",
    ),
]

VIRTUAL_MS = 8000

# Errors are recorded before anything else runs; what was seen is sent to the page around the frame.
EARLY = """<script>window.seen = [];
window.addEventListener("error", function (e) {
  window.seen.push(String(e.message || e.target.outerHTML)); }, true);
console.error = function (m) { window.seen.push(String(m)); };
document.documentElement.dataset.theme = "THEME";</script>"""
LATE = """<script>
function looked() {
  var wide = innerWidth, shown = 0, cut = [], flat = [];
  document.querySelectorAll("svg").forEach(function (s) {
    var box = s.getBoundingClientRect();
    if (!box.width) { return; }
    shown += 1;
    if (box.height < 40) { flat.push(s.getAttribute("aria-labelledby")); }
    s.querySelectorAll("text").forEach(function (t) {
      var b = t.getBoundingClientRect();
      if (b.right > wide + 0.5 || b.left < -0.5) { cut.push(t.textContent); }
    });
  });
  return {
    errors: window.seen, width: wide, shown: shown, cut: cut, flat: flat,
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    loaded: performance.getEntriesByType("resource").map(function (r) { return r.name; }),
    paper: getComputedStyle(document.body).backgroundColor,
    button: document.getElementById("theme").textContent
  };
}
window.addEventListener("load", function () { parent.postMessage(looked(), "*"); });
</script>"""
FRAME = """<!doctype html><body><iframe src="page.html" style="width:WIDTHpx;height:6000px;border:0"></iframe>
<pre id="out"></pre><script>addEventListener("message", function (e) {
document.getElementById("out").textContent = JSON.stringify(e.data); });</script></body>"""


def looked_at(folder: Path, page: str, *, width: int, theme: str, late: str = LATE) -> dict[str, Any]:
    """Open the page in a frame of this width and return what it saw of itself."""
    early = EARLY.replace("THEME", theme)
    (folder / "page.html").write_text(
        page.replace("<head>", f"<head>{early}", 1).replace("</body>", f"{late}</body>", 1), encoding="utf-8"
    )
    (folder / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    assert BROWSER is not None
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,6200", f"--virtual-time-budget={VIRTUAL_MS}", "--dump-dom", f"file://{folder}/frame.html",
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    match = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-500:]
    assert match.group(1), "the page sent no message"
    return dict(json.loads(markup.unescape(match.group(1))))


AXE = """<script>AXE_SOURCE</script><script>
window.addEventListener("load", function () {
  document.querySelectorAll("details").forEach(function (d) { d.open = true; });
  axe.run(document, {resultTypes: ["violations"]}).then(function (found) {
    parent.postMessage({
      passes: found.passes.length,
      violations: found.violations.map(function (v) {
        return {id: v.id, impact: v.impact, nodes: v.nodes.slice(0, 5).map(function (n) { return n.html; })};
      })
    }, "*");
  }, function (error) { parent.postMessage({failed: String(error)}, "*"); });
});
</script>"""


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """axe-core's source, fetched by npm; not kept in this tree (MPL-2.0)."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("NO NPM: the report's accessibility was not checked; apt-get install npm")
    folder = tmp_path_factory.mktemp("axe")
    done = subprocess.run(
        [
            npm, "install", "--prefix", str(folder), "--no-save", "--ignore-scripts", "--no-audit",
            "--no-fund", "axe-core@4",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"NO AXE-CORE: the report's accessibility was not checked; npm said {done.stderr[-200:]}")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")


def faults(folder: Path, page: str, axe: str, *, width: int, theme: str) -> list[dict[str, Any]]:
    """What axe-core finds serious or critical, every fold of the page open."""
    late = AXE.replace("AXE_SOURCE", axe.replace("</script", "<\\/script"))
    found = looked_at(folder, page, width=width, theme=theme, late=late)
    assert "failed" not in found, found
    return [fault for fault in found["violations"] if fault["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_serious_fault(tmp_path: Path, axe: str, width: int, theme: str) -> None:
    """Contrast, names, roles, headings, tables, keyboard: nothing serious or critical."""
    assert faults(tmp_path, html(SAMPLES["sweep"]), axe, width=width, theme=theme) == []


def test_axe_itself_sees_a_fault(tmp_path: Path, axe: str) -> None:
    """A picture without a name and grey on grey."""
    broken = (
        "<!doctype html><html lang=en><head><title>x</title></head><body><main><h1>x</h1><img src='data:,'>"
        "<p style='color:#999;background:#aaa'>pale</p></main></body></html>"
    )
    found = {fault["id"] for fault in faults(tmp_path, broken, axe, width=390, theme="light")}
    assert found >= {"image-alt", "color-contrast"}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_every_plot_is_drawn_and_nothing_is_cut_off(tmp_path: Path, width: int, theme: str) -> None:
    """Seven plots, no error, no request, no sideways scrolling, no label beyond the edge."""
    seen = looked_at(tmp_path, html(SAMPLES["measured"]), width=width, theme=theme)
    assert seen["errors"] == []
    assert seen["loaded"] == []
    assert seen["width"] == width
    assert seen["shown"] == 7
    assert seen["flat"] == []
    assert seen["cut"] == []
    assert seen["overflow"] == 0
    assert seen["button"] == ("Light" if theme == "dark" else "Dark")
    assert seen["paper"] == ("rgb(21, 23, 26)" if theme == "dark" else "rgb(251, 250, 247)")


@pytest.mark.parametrize("sample", ["no_break_even", "coding", "hostile", "sweep"])
def test_odd_comparisons_look_right_on_a_phone(tmp_path: Path, sample: str) -> None:
    """Without break-even, with long names and with hostile ones."""
    seen = looked_at(tmp_path, html(SAMPLES[sample]), width=360, theme="light")
    assert seen["errors"] == []
    assert seen["loaded"] == []
    assert seen["overflow"] == 0
    assert seen["cut"] == []


def test_the_check_itself_sees_a_fault(tmp_path: Path) -> None:
    """A page with an error, a missing picture and something too wide is caught."""
    broken = (
        "<!doctype html><html><head></head><body><button id=theme></button><img src=http://nowhere.invalid/missing.png>"
        "<div style='width:2000px'>x</div><script>nothing.here()</script></body></html>"
    )
    seen = looked_at(tmp_path, broken, width=360, theme="light")
    assert any("nothing is not defined" in error for error in seen["errors"])
    assert any("missing.png" in name for name in seen["loaded"])
    assert any("missing.png" in error for error in seen["errors"])
    assert seen["overflow"] > 1000
