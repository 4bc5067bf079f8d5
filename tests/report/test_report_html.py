"""The page as data: nothing loaded, every plot named and backed by a table, every name escaped."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from importlib import resources

import pytest
from report_samples import HOSTILE, SAMPLES

from qwenhost.report import html
from qwenhost.report.sources import linked

PLOTS = (
    "curve-760",
    "bars-760",
    "tornado-760",
    "memory-760",
    "latency-344",
    "scores-760",
    "curve-344",
    "timeline-760",
)
VOID = {"meta", "link", "br", "img", "input"}


class Page(HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[tuple[str, str]] = []
        self.mistakes: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.mistakes.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append((self.stack[-1] if self.stack else "", data))

    def having(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def text(self) -> str:
        return " ".join(words for tag, words in self.words if tag not in {"style", "script"})


@pytest.fixture(params=SAMPLES, scope="module")
def page(request: pytest.FixtureRequest) -> Page:
    return Page(html(SAMPLES[request.param]))


def test_tags_are_balanced(page: Page) -> None:
    """Every tag is closed in its order."""
    assert page.mistakes == []
    assert page.stack == []


def test_nothing_is_loaded(page: Page) -> None:
    """No address is fetched: only anchors people click may lead outside."""
    for tag, attrs in page.tags:
        assert "src" not in attrs, (tag, attrs)
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        target = attrs.get("href")
        if tag != "a" and target is not None:
            assert target.startswith(("#", "data:")), (tag, target)
    styles = " ".join(words for tag, words in page.words if tag == "style")
    assert "url(" not in styles
    assert "@import" not in styles


def test_every_anchor_has_its_place(page: Page) -> None:
    """Footnotes lead to a source that stands there; ids are used once."""
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs["href"])[1:] for attrs in page.having("a") if str(attrs.get("href")).startswith("#")}
    assert targets <= set(ids)
    assert any(str(target).startswith("source-") for target in targets)


def test_every_plot_is_drawn_named_and_described(page: Page) -> None:
    """Each svg has a title and a description it refers to."""
    named = {str(attrs["aria-labelledby"]) for attrs in page.having("svg")}
    assert {f"{name}-t {name}-d" for name in PLOTS} <= named
    assert all(attrs["role"] == "img" for attrs in page.having("svg"))


def test_tables_say_what_their_headers_head(page: Page) -> None:
    """Every header cell has a scope and every table a caption."""
    assert all(attrs.get("scope") in {"col", "row"} for attrs in page.having("th"))
    assert len(page.having("caption")) == len(page.having("table")) >= 10


def test_landmarks_and_language(page: Page) -> None:
    """One main, one h1, a header, a footer, a language and a viewport."""
    assert page.having("html")[0]["lang"] == "en"
    for tag in ("main", "h1", "header", "footer"):
        assert len(page.having(tag)) == 1, tag
    assert any(attrs.get("name") == "viewport" for attrs in page.having("meta"))


def test_drawings_stay_finite(page: Page) -> None:
    """No coordinate is nan or infinite."""
    for tag, attrs in page.tags:
        if tag in {"rect", "line", "circle", "text", "path"}:
            assert not re.search(r"nan|inf", " ".join(str(v) for k, v in attrs.items() if k != "class")), (
                attrs
            )


def test_hostile_names_stay_text() -> None:
    """Markup in names arrives as words."""
    found = Page(html(SAMPLES["hostile"]))
    assert HOSTILE in found.text()
    assert found.having("img") == []
    assert len(found.having("script")) == 1


@pytest.mark.parametrize(
    ("sample", "said", "unsaid"),
    [
        ("simulated", "Simulated.", "Predicted."),
        ("predicted", "Predicted.", "Simulated."),
    ],
)
def test_a_banner_says_what_was_not_measured(sample: str, said: str, unsaid: str) -> None:
    """Simulated and predicted speeds are announced above everything."""
    text = Page(html(SAMPLES[sample])).text()
    assert said in text
    assert unsaid not in text


def test_a_measured_run_has_no_banner() -> None:
    """Measured speeds need no warning, and carry their tag."""
    text = html(SAMPLES["measured"])
    assert 'class="banner"' not in text
    assert "tag-measured" in text


def test_the_figures_are_those_of_the_comparison() -> None:
    """50,000 chat requests a day at Sonnet are 10,083 dollars a month, and the page says so."""
    text = Page(html(SAMPLES["predicted"])).text()
    assert "$10,083" in text
    assert "50,000 requests a day" in text


def test_without_break_even_the_page_says_none() -> None:
    """No crossing is marked and the bars show money."""
    found = Page(html(SAMPLES["no_break_even"]))
    assert "There is no break-even" in found.text()
    assert not any(attrs.get("class") == "mark" and tag == "text" for tag, attrs in found.tags)


def test_addresses_in_sources_become_links() -> None:
    """Text around an address stays text."""
    assert linked("see https://example.org/a; dated") == [
        ("see ", ""),
        ("https://example.org/a", "https://example.org/a"),
        ("; dated", ""),
    ]
    assert linked("javascript:alert(1)") == [("javascript:alert(1)", "")]


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1, 2])
def test_text_stands_out_in_both_themes(theme: str) -> None:
    """WCAG AA: 4.5 to 1 for every text colour on its ground."""
    css = (resources.files("qwenhost.report") / "templates" / "report.css").read_text()
    blocks = re.findall(r":root[^{]*\{([^}]*--t1[^}]*)\}", css)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[int(theme)]))
    for name in ("ink", "muted", "self", "base", "other", "hosted", "warn"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name
    for ground in ("m0", "m4"):
        assert contrast(colours["on-bar"], colours[ground]) >= 4.5, ground
    assert contrast(colours["warn"], colours["warn-soft"]) >= 4.5
    assert contrast(colours["ink"], colours["warn-soft"]) >= 4.5


def test_both_dark_blocks_agree() -> None:
    """The system's dark theme and the button's are one."""
    css = (resources.files("qwenhost.report") / "templates" / "report.css").read_text()
    _, by_system, by_button = re.findall(r":root[^{]*\{([^}]*--t1[^}]*)\}", css)
    assert by_system.split() == by_button.split()
