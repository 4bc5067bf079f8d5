"""The bundle for the machine without a network: cut here, put together there."""

from __future__ import annotations

import json
import random
import tarfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

H200 = Path(__file__).parents[2] / "benchmarks" / "h200"


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.syspath_prepend(str(H200))
    import assemble
    import bundle

    return assemble, bundle


@pytest.fixture
def pieces(tmp_path: Path, tools: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of a made-up tree, cut into several pieces."""
    _, bundle = tools
    site, out = tmp_path / "made", tmp_path / "pieces"
    (site / "package" / "__pycache__").mkdir(parents=True)
    (site / "package" / "code.py").write_bytes(b"answer = 42\n")
    (site / "package" / "__pycache__" / "code.pyc").write_bytes(b"stale")
    # Bytes that xz cannot press: the archive must be longer than one piece.
    (site / "package" / "data.bin").write_bytes(random.Random(0).randbytes(300_000))  # noqa: S311 - bytes xz cannot press
    out.mkdir()
    packed = bundle.pack(site, tmp_path / "site.tar.xz", 1)
    settings = Namespace(out=out, piece_mib=1, python="3.12", vllm="0.26.0", torch="2.11.0")
    monkeypatch.setattr(bundle, "MIB", 2**16)
    bundle.cut(packed, settings, ["vllm==0.26.0", "other==1"])
    return out


def names(folder: Path) -> list[str]:
    return [piece["name"] for piece in json.loads((folder / "bundle.json").read_text())["pieces"]]


def test_pieces_come_in_any_order_and_only_the_whole_is_unpacked(
    tmp_path: Path, pieces: Path, tools: tuple[Any, Any]
) -> None:
    assemble, _ = tools
    assert len(names(pieces)) > 2
    store, site = tmp_path / "store", tmp_path / "site"
    for name in reversed(names(pieces)):
        assert not site.exists()
        came = tmp_path / f"came-{name}"
        came.mkdir()
        (came / "bundle.json").write_bytes((pieces / "bundle.json").read_bytes())
        (came / name).write_bytes((pieces / name).read_bytes())
        ended = assemble.main(came, store, site)
        assert ended == (0 if name == names(pieces)[0] else assemble.MORE_TO_COME)
    assert (site / "package" / "code.py").read_bytes() == b"answer = 42\n"
    assert not (site / "package" / "__pycache__").exists()


def test_a_damaged_piece_is_asked_for_again(
    tmp_path: Path, pieces: Path, tools: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assemble, _ = tools
    damaged = pieces / names(pieces)[1]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    store, site = tmp_path / "store", tmp_path / "site"
    assert assemble.main(pieces, store, site) == assemble.MORE_TO_COME
    assert f"{damaged.name} is damaged" in capsys.readouterr().out
    damaged.write_bytes(whole)
    assert assemble.main(pieces, store, site) == 0


def test_the_archive_is_the_same_each_time(tmp_path: Path, tools: tuple[Any, Any]) -> None:
    _, bundle = tools
    packed = []
    for turn in ("one", "two"):
        site = tmp_path / turn
        site.mkdir()
        for name in sorted(("b", "a", "c"), reverse=turn == "two"):
            (site / name).write_text(name)
        packed.append(bundle.pack(site, tmp_path / f"{turn}.xz", 1).read_bytes())
    assert packed[0] == packed[1]
    with tarfile.open(tmp_path / "one.xz") as archive:
        assert {(m.uid, m.mtime, m.uname) for m in archive.getmembers()} == {(0, 0, "")}


def test_names_compare_as_indexes_do(tools: tuple[Any, Any]) -> None:
    _, bundle = tools
    assert bundle.normal("Flashinfer_Python") == bundle.normal("flashinfer.python") == "flashinfer-python"
    assert "manylinux_2_28_x86_64" in bundle.selection("3.12")
