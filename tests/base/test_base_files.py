"""Files of ours: whole or not at all, and read without mercy."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.files import decode_document, encode_document, read_document, write_atomically

if TYPE_CHECKING:
    from pathlib import Path


class Note(Value, frozen=True, kw_only=True):
    """A document small enough to see through."""

    schema: str = "note/1"
    text: str
    figures: tuple[float, ...] = ()


def decode(data: bytes) -> Note:
    return decode_document(
        data, Note, schema="note/1", name="n.json", what="a note", remedy="Write one with: note"
    )


@pytest.mark.parametrize("content", ["", "plain", "zwölf\n", b"\x00\xff", b"x" * 3_000_000])
def test_what_is_written_is_what_is_read(tmp_path: Path, content: bytes | str) -> None:
    """Text as UTF-8, bytes as they are, of any size; and no temporary file is left."""
    path = tmp_path / "out"
    write_atomically(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755])
def test_the_mode_is_as_asked_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    """A file that holds a key is its owner's; a script may run."""
    before = os.umask(0o077)
    try:
        write_atomically(tmp_path / "out", "x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == mode


def test_an_old_file_is_replaced_whole_and_its_readers_keep_theirs(tmp_path: Path) -> None:
    """A reader that had it open reads the old one to its end: a rename, no truncation."""
    path = tmp_path / "out"
    path.write_text("old and long")
    with path.open() as reader:
        assert reader.read(3) == "old"
        write_atomically(path, "new")
        assert reader.read() == " and long"
    assert path.read_text() == "new"


def test_readers_never_see_a_half(tmp_path: Path) -> None:
    """While one writes A...A and B...B in turns, another reads only whole ones."""
    path, size = tmp_path / "out", 200_000
    write_atomically(path, "A" * size)
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            text = path.read_text()
            seen.add(text[0] + text[-1] + str(len(text)))

    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(40):
        write_atomically(path, "AB"[turn % 2] * size)
    done.set()
    reader.join()
    assert seen <= {f"AA{size}", f"BB{size}"}
    assert seen


def test_a_missing_folder_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"gone/out: cannot write: No such file") as caught:
        write_atomically(tmp_path / "gone" / "out", "x")
    assert "folder you may write to" in caught.value.remedy


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInputError, match=r"file/out: cannot write: Not a directory"):
        write_atomically(tmp_path / "file" / "out", "x")


def test_a_folder_in_place_of_the_file_stays(tmp_path: Path) -> None:
    """And the temporary file beside it is taken away."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept").touch()
    with pytest.raises(BadInputError, match=r"out: cannot write: Is a directory"):
        write_atomically(tmp_path / "out", "x")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kept", "out"]


@pytest.mark.parametrize("call", ["fsync", "replace", "chmod"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Whichever step fails: the old file stands, nothing half-written lies beside it."""
    path = tmp_path / "out"
    path.write_text("old")

    def fail(*_: Any, **__: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(BadInputError, match=r"out: cannot write: No space left on device") as caught:
        write_atomically(path, "new")
    monkeypatch.undo()
    assert "disk space" in caught.value.remedy
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_document_is_indented_json_in_the_order_of_its_fields() -> None:
    """So that it can be read and compared line by line."""
    note = Note(text="é", figures=(1.0, 2.5))
    assert encode_document(note).decode() == (
        '{\n  "schema": "note/1",\n  "text": "é",\n  "figures": [\n    1.0,\n    2.5\n  ]\n}\n'
    )


SIZES = st.just(0.0) | st.floats(1e-100, 1e20) | st.floats(-1e20, -1e-100)


@pytest.mark.parametrize("figure", [5e-324, 9.9e-101, -1e-200])
def test_what_divides_into_infinity_is_refused(figure: float) -> None:
    """Zero is a figure; what is nearer to it than any of ours is a mistake."""
    data = json.dumps({"schema": "note/1", "text": "", "figures": [0.0, figure]}).encode()
    with pytest.raises(BadInputError, match=r"n: not a note: number below 1e-100 at `\$\.figures\[1\]`"):
        decode_document(data, Note, schema="note/1", name="n", what="a note", remedy="r")


@given(st.text(), st.lists(SIZES, max_size=5))
def test_documents_survive_their_bytes(text: str, figures: list[float]) -> None:
    """Every text that is Unicode and every figure within reason to its last bit."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # lone surrogates are no text
    note = Note(text=text, figures=tuple(figures))
    data = encode_document(note)
    assert decode(data) == note
    assert encode_document(decode(data)) == data


@pytest.mark.parametrize("figure", [float("nan"), float("inf"), float("-inf")])
def test_figures_that_are_none_become_null(figure: float) -> None:
    """JSON has no NaN: what is read back is refused rather than counted with."""
    data = encode_document(Note(text="", figures=(figure,)))
    assert json.loads(data)["figures"] == [None]
    with pytest.raises(BadInputError, match=r"n\.json: not a note: .*figures\[0\]"):
        decode(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "not a note"),
        (b"null", "not a note"),
        (b"3", "not a note"),
        (b"[]", "not a note"),
        (b"{}", "schema is None, expected 'note/1'"),
        (b'{"schema": 1}', ", expected 'note/1'"),
        (b'{"schema": "note/0"}', "schema is 'note/0', expected 'note/1'"),
        (b'{"schema": "note/2", "text": "later"}', "schema is 'note/2', expected 'note/1'"),
        (b'{"schema": "note/1"}', "missing required field `text`"),
        (b'{"schema": "note/1", "text": 5}', r"$.text"),
        (b'{"schema": "note/1", "text": "a", "figures": ["b"]}', r"$.figures[0]"),
        (b'{"schema": "note/1", "text": "a", "figurs": []}', "unknown field `figurs`"),
        (b'{"schema": "note/1", "text": "\xc3\x28"}', "not a note"),
        (b'{"schema": "note/1", "text": "a"', "not a note"),
        (b'\xef\xbb\xbf{"schema": "note/1", "text": "a"}', "not a note"),
        (b"[" * 100_000, "not a note"),
        (b'{"schema":' * 50_000, "not a note"),
    ],
)
def test_anything_else_is_refused_by_its_key(data: bytes, said: str) -> None:
    """Wrong bytes, shape, version, type, key; even what is nested beyond reason."""
    with pytest.raises(BadInputError) as caught:
        decode(data)
    assert caught.value.message.startswith("n.json: ")
    assert said in caught.value.message
    assert caught.value.remedy.endswith("Write one with: note")
    assert caught.value.exit_code == 2


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail_otherwise(data: bytes) -> None:
    """Either a note comes out or the one error."""
    try:
        said = decode(data).schema
    except BadInputError as error:
        said = error.message.partition(":")[0]
    assert said in ("note/1", "n.json")


def test_a_file_that_cannot_be_read_is_said_as_the_system_says_it(tmp_path: Path) -> None:
    """Missing, a folder, a loop of links."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, said in (
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (loop, "Too many levels of symbolic links"),
    ):
        with pytest.raises(BadInputError, match=f"{path}: {said}") as caught:
            read_document(path, Note, schema="note/1", what="a note", remedy="Write one.")
        assert caught.value.remedy == "Write one."


def test_a_document_comes_back_from_its_file(tmp_path: Path) -> None:
    note = Note(text="a")
    write_atomically(tmp_path / "n", encode_document(note))
    found = read_document(tmp_path / "n", Note, schema="note/1", what="a note", remedy="")
    assert found == note
    with pytest.raises(AttributeError):  # msgspec.Struct, frozen
        found.text = "b"  # type: ignore[misc]
    assert isinstance(found, msgspec.Struct)
