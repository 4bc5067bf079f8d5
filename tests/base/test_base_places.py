"""Where a file may be written: through links, into what is no file, and what is refused untouched."""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError
from qwenhost.files import LARGEST, decode_document, require_schema, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    """Through two links in two folders; the new file lies where the old one lay."""
    (tmp_path / "real").mkdir()
    target, first, second = tmp_path / "real" / "out", tmp_path / "first", tmp_path / "real" / "second"
    target.write_text("old")
    second.symlink_to("out")
    first.symlink_to(second)
    write_atomically(first, "new")
    assert (first.is_symlink(), second.is_symlink(), target.is_symlink()) == (True, True, False)
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["first", "out", "real", "second"]


def test_a_link_to_nothing_makes_what_it_names(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "later")
    write_atomically(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "later").read_text() == "new"


def test_links_in_a_circle_are_named(tmp_path: Path) -> None:
    """And neither is replaced by a file."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.symlink_to(other)
    other.symlink_to(one)
    with pytest.raises(BadInputError, match=f"{one}: cannot write: ") as caught:
        write_atomically(one, "x")
    assert "circle" in caught.value.message or "symbolic links" in caught.value.message
    assert (one.is_symlink(), other.is_symlink()) == (True, True)


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    """As a shell's ``>(...)`` gives one."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, "through\n")
    reader.join(timeout=10)
    assert got == [b"through\n"]
    assert pipe.is_fifo()


def test_a_device_stays_a_device(tmp_path: Path) -> None:
    """A link to it as well: a rename would put a file in the place of the link's end."""
    link = tmp_path / "null"
    link.symlink_to(os.devnull)
    write_atomically(link, "gone")
    assert link.is_char_device()
    assert link.is_symlink()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, MemoryError])
def test_an_interruption_passes_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]
) -> None:
    """It is not taken for a full disk; the old file stands."""
    path = tmp_path / "out"
    path.write_text("old")

    def interrupted(handle: int) -> None:
        raise stop

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(stop):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("found", "shown", "remedy"),
    [
        ("a/3", "'a/3'", "Update qwenhost, which wrote it in a newer version, or make it again. Again."),
        ("a/1", "'a/1'", "An older qwenhost wrote it: make it again. Again."),
        ("a/10", "'a/10'", "Update qwenhost, which wrote it in a newer version, or make it again. Again."),
        # of another kind, or no version: nothing can be said of who wrote it
        ("b/3", "'b/3'", "Again."),
        ("a/x", "'a/x'", "Again."),
        ("a", "'a'", "Again."),
        ("a/-1", "'a/-1'", "Again."),
        ("", "''", "Again."),
        (None, "None", "Again."),
        (2, "a number", "Again."),
        (["a/2"], "a list", "Again."),
        ({"a": 2}, "an object", "Again."),
        ("a/" + "9" * 200, "a long text", "Again."),
    ],
)
def test_another_schema_says_whose_it_is(found: object, shown: str, remedy: str) -> None:
    """Ten is newer than two; what is long or no text is not printed."""
    with pytest.raises(BadInputError) as caught:
        require_schema(found, "a/2", name="f.json", remedy="Again.")
    assert caught.value.message == f"f.json: schema is {shown}, expected 'a/2'"
    assert caught.value.remedy == remedy


def test_the_expected_schema_passes() -> None:
    require_schema("a/2", "a/2", name="f.json", remedy="")


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_figure_is_still_taken(sign: int) -> None:
    """Beyond it products end in infinity; the sign does not matter, and the place is named."""

    def read(figure: float) -> object:
        data = json.dumps({"schema": "s/1", "load": [{"rate": 1}, {"rate": figure}]}).encode()
        return decode_document(data, dict, schema="s/1", name="f", what="a note", remedy="")

    assert read(sign * LARGEST) == {"schema": "s/1", "load": [{"rate": 1}, {"rate": sign * LARGEST}]}
    with pytest.raises(BadInputError, match=r"f: not a note: number beyond 1e\+20 at `\$\.load\[1\]\.rate`"):
        read(sign * 2 * LARGEST)
