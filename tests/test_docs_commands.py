"""Every command in the documentation is run as it stands, or says why not; every link leads somewhere.

Before a block: ``<!-- not run: REASON -->`` (one of REASONS; its options are checked all the same),
``<!-- exit: N -->`` where a command must fail so, ``<!-- with: FILE as NAME -->`` for a file it reads.
Blocks of a page run one after another in one folder; ``yaml title="PATH"`` blocks are written there first.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from qwenhost.cli.main import cli, run

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.parent.name != "reference"
)
EVERY_PAGE = [*PAGES, *sorted((ROOT / "docs" / "reference").glob("*.md"))]
REASONS = {
    "needs GPUs": "plans for, measures or serves on the GPUs of this machine",
    "needs adapters and GPUs": "reads adapter folders that nobody has",
    "needs a network": "asks the hub, a package index or Claude's API",
    "needs a running service": "talks to an endpoint",
    "needs a cluster": "asks kubectl or Helm",
    "needs your files": "reads a trace or sample of the reader's",
    "takes minutes": "a long search; tests/simulate runs shorter ones",
    "installs or builds": "make, pip: run by CI itself",
    "of another program": "no command of ours is in it",
}
FENCE = re.compile(
    r"(?P<marks>(?:<!-- .+? -->\n)*)```(?P<language>[a-z]*)(?P<rest>[^\n]*)\n(?P<body>(?:(?!```).*\n)*)```"
)
MARK = re.compile(r"<!-- (not run|exit|with|run): (.+?) -->")


class Block(NamedTuple):
    """A fenced block and what is said before it."""

    marks: dict[str, str]
    language: str
    rest: str
    body: str

    @property
    def lines(self) -> list[str]:
        """Commands, continued lines joined, comments left out."""
        whole = self.body.replace("\\\n", " ")
        return [line for line in whole.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return [
        Block(dict(MARK.findall(m["marks"])), m["language"], m["rest"], m["body"])
        for m in FENCE.finditer(page.read_text())
    ]


def words_of(line: str) -> list[str]:
    """The words of a shell line, without its comment and leading assignments."""
    words = shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words = words[1:]
    return words


def name_of(page: Path) -> str:
    """Its place in the tree, for the test's name."""
    return str(page.relative_to(ROOT))


RUNNABLE = [
    page for page in PAGES if any(b.language == "sh" and "not run" not in b.marks for b in blocks(page))
]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_commands_do_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command ends with 0, or with the code that stands before its block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for block in blocks(page):
        if block.language == "yaml" and (title := re.search(r'title="(.+?)"', block.rest)):
            path = tmp_path / title[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.body)
    for block in blocks(page):
        if block.language != "sh" or "not run" in block.marks:
            continue
        if "with" in block.marks:
            source, name = block.marks["with"].split(" as ")
            shutil.copy(ROOT / source, tmp_path / name)
        for line in block.lines:
            words = words_of(line)
            assert words[0] == "qwenhost", f"{name_of(page)}: {line!r} is not ours: mark its block"
            assert not {"|", ">", "<", "&&"} & set(words), f"{name_of(page)}: {line!r}: mark its block"
            said = io.StringIO()
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = run(
                    [str(tmp_path) + word[1:] if word.startswith("~/") else word for word in words[1:]]
                )
            expected = int(block.marks.get("exit", 0))
            assert code == expected, (
                f"{name_of(page)}: {line}\n{code} instead of {expected}\n{said.getvalue()}"
            )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_says_why_and_names_real_options(page: Path) -> None:
    """Reasons are from the list above; every option of a command that is not run exists."""
    for block in blocks(page):
        if "not run" not in block.marks:
            continue
        assert block.marks["not run"] in REASONS, f"{name_of(page)}: {block.marks['not run']!r}"
        for line in block.lines:
            for part in re.split(r"\s\|\s|&&|;\s", line):
                words = words_of(part) if "qwenhost" in part else []
                if words[:1] == ["qwenhost"]:
                    unknown = unknown_options(words[1:])
                    assert not unknown, f"{name_of(page)}: {line!r} has no {unknown}"


def unknown_options(words: list[str]) -> list[str]:
    """Options that neither the program nor the command named has."""
    command: click.Command = cli
    ctx = click.Context(cli)
    known = set(known_options(cli))
    for word in words:
        if re.match(r"-[a-zA-Z-]", word) and word.partition("=")[0] not in known:
            return [word]
        if isinstance(command, click.Group) and (found := command.get_command(ctx, word)):
            command = found
            known |= set(known_options(found))
    return [] if command is not cli else ["command"]


def known_options(command: click.Command) -> list[str]:
    """Every spelling of a command's options."""
    return [name for option in command.params for name in (*option.opts, *option.secondary_opts)] + [
        "--help",
        "-h",
    ]


def test_a_wrong_option_would_be_noticed() -> None:
    """The check of options is not blind."""
    assert unknown_options(["probe", "URL", "--concurency", "3"]) == ["--concurency"]
    assert unknown_options(["probe", "URL", "--concurrency", "3"]) == []
    assert unknown_options(["k8s", "plan", "--dra"]) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_command_hides_from_being_run(page: Path) -> None:
    """Commands of ours stand in blocks marked ``sh``, or in outputs that docs/generate makes."""
    text = page.read_text()
    for block in blocks(page):
        ours = [line for line in block.body.splitlines() if re.match(r"\s*(\$ )?qwenhost [a-z-]", line)]
        made = "run" in block.marks
        assert not ours or made or block.language == "sh", (
            f"{name_of(page)}: {ours[0]!r}: make it an sh block"
        )
    indented = re.findall(r"^    qwenhost [a-z].*", FENCE.sub("", text), re.MULTILINE)
    assert not indented, f"{name_of(page)}: {indented[0]!r}: make it an sh block"


@pytest.mark.parametrize("page", EVERY_PAGE, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative links name files of the tree, and their anchors headings."""
    text = FENCE.sub("", page.read_text())
    for target, _, anchor in re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)(#([^)\s]*))?\)", text):
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{name_of(page)}: {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, f"{name_of(page)}: {target}#{anchor}"


def slug(heading: str) -> str:
    """The anchor that Markdown renderers give a heading."""
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def test_every_page_is_in_the_site() -> None:
    """The navigation names every page; MkDocs in strict mode checks the rest."""
    listed = set(re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in EVERY_PAGE if "docs" in page.parts}
    assert pages <= listed
