"""Profiles and hardware: a catalog, a node, or mistakes with file, line and key."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import yaml
from fuzz_kit import DEEP, LONG_NUMBER, damaged, damaged_bytes, fuzzed, texts
from hypothesis import strategies as st

from qwenhost.errors import QwenhostError
from qwenhost.node import node_from_json, parse_gpus
from qwenhost.plan import Plan
from qwenhost.profiles import ProfileError, load_catalog
from qwenhost.profiles import catalog as catalog_module
from qwenhost.profiles.parse import parse_file

CATALOG = load_catalog()
FILES = sorted(catalog_module.builtin_dir().rglob("*.yaml"))
CONTENTS = [content for file in FILES if len(content := file.read_bytes()) < 20_000]
SHEETS: list[Any] = []
for data in map(yaml.safe_load, CONTENTS):
    # Dates become text, which reads the same; two rows of a kind are as good as all.
    text = json.dumps({kind: rows[:2] for kind, rows in data.items() if isinstance(rows, list)}, default=str)
    SHEETS.append(json.loads(text))
TAGGED = (
    b"gpus: !!bool x\n", b"gpus: !!int ''\n", b"gpus: !!int x\n", b"gpus: !!float ''\n", b"? []\n: 1\n",
    b"gpus: !!timestamp x\n", b"gpus: !!binary x\n", b"gpus: !!set {a}\n", b"gpus: 2026-13-45\n",
    b"&a [*a]\n",
    b"gpus: &a [*a]\n", b"gpus: 0x\n", b"gpus: 1:99:99\n", b"{null: 1}\n", b"{1: 2}\n", b"gpus: [null, 1]\n",
    f"gpus: {LONG_NUMBER}\n".encode(), b"<<: 1\n", b"<<: {gpus: []}\n", b"!!python/object:x {}\n",
    b"\xff\xfe",
)  # fmt: skip


@fuzzed(300, content=st.one_of(damaged_bytes([*CONTENTS, *TAGGED, DEEP]), st.binary(max_size=60)))
def test_files_of_profiles(content: bytes) -> None:
    with contextlib.suppress(ProfileError):
        assert parse_file("x.yaml", content).sheet is not None


@fuzzed(300, sheet=damaged(SHEETS))
def test_rows_of_profiles(sheet: Any) -> None:
    """JSON is YAML."""
    with contextlib.suppress(ProfileError):
        assert parse_file("x.yaml", json.dumps(sheet).encode()).sheet is not None


@fuzzed(15, sheet=damaged(SHEETS))
def test_a_folder_over_the_built_in_one(sheet: Any) -> None:
    folder = [(str(file), file.read_bytes()) for file in FILES]
    with contextlib.suppress(QwenhostError):
        built = catalog_module._build([folder, [("x.yaml", json.dumps(sheet).encode())]], "digest")
        assert built.gpus


names = st.sampled_from(sorted({alias for spec in CATALOG.gpus.values() for alias in (spec.id, spec.name)}))
counts = st.one_of(st.integers(-2, 2000).map(str), texts)


@fuzzed(
    500,
    text=st.one_of(
        texts, st.tuples(counts, st.sampled_from("xX* "), st.one_of(names, texts)).map("".join),
        st.from_regex(r"\A\s*\d{0,6}\s*[xX*]?\s*\w{0,9}\s*\Z"),
    ),
    link=st.sampled_from((None, "nvlink", "pcie")),
)  # fmt: skip
def test_descriptions_of_hardware(text: str, link: Any) -> None:
    with contextlib.suppress(QwenhostError):
        assert 1 <= parse_gpus(text, CATALOG.gpus, interconnect=link).gpu_count <= 1024


@fuzzed(
    150,
    data=damaged_bytes([b'{"gpus": [], "interconnect": "none", "origin": "nvml", "description": ""}', DEEP]),
)
def test_saved_nodes(data: bytes) -> None:
    with contextlib.suppress(QwenhostError):
        node_from_json(data)


def test_what_is_damaged_is_real() -> None:
    """The files drawn from hold rows of most kinds."""
    assert sum(map(len, SHEETS)) > 10
    assert all(Path(file).is_file() for file in FILES)
    assert Plan.__struct_fields__
