"""Weights from a hub on loopback: fetched once, checked, refetched when damaged; and from folders."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_server import COMMIT, Hub, running_hub

from qwenhost.errors import BadInputError, QwenhostError, UnavailableError
from qwenhost.launcher.checkpoint_folder import LocalCheckpoint, read_header, verify_folder
from qwenhost.launcher.hub_retry import Retries
from qwenhost.launcher.weights import fetch_checkpoint

Fetch = Callable[..., LocalCheckpoint]


def safetensors(*names: str) -> bytes:
    """A file with one float32 per name."""
    header = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]}
        for i, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"\1\2\3\4" * len(names)


INDEX = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
FILES = {
    "config.json": b'{"model_type": "qwen3_5_moe"}',
    "model.safetensors.index.json": json.dumps(INDEX).encode(),
    "model-1.safetensors": safetensors("a"),
    "model-2.safetensors": safetensors("b"),
    "tokenizer.json": b"{}",
    "modeling_evil.py": b"import os",
    "pytorch_model.bin": b"a pickle",
    "README.md": b"# Tiny",
}
FETCHED = {
    "config.json",
    "model.safetensors.index.json",
    "model-1.safetensors",
    "model-2.safetensors",
    "tokenizer.json",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(dict(FILES)) as found:
        yield found


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Fetch:
    def call(**options: Any) -> LocalCheckpoint:
        quick = {"retries": Retries(sleep=lambda _: None)} | options
        return fetch_checkpoint("owner/tiny", cache=tmp_path / "cache", endpoint=hub.url, **quick)

    return call


def test_a_checkpoint_is_fetched_without_code_and_pickles(fetch: Fetch, hub: Hub) -> None:
    """Safetensors, configuration and tokenizer; no Python, no .bin; pinned to the commit."""
    found = fetch()
    assert {path.name for path in Path(found.path).iterdir()} == FETCHED
    assert {name for name, _ in hub.sent} == FETCHED
    assert (found.revision, found.verified_by) == (COMMIT, "sha256")


def test_what_is_there_is_not_fetched_again(fetch: Fetch, hub: Hub) -> None:
    """Nor read again: its checksum is remembered until the file changes."""
    fetch()
    hub.sent.clear()
    fetch()
    assert hub.sent == []


def test_a_broken_connection_is_taken_up_again(fetch: Fetch, hub: Hub) -> None:
    """Half a shard came, then the line broke; it is asked for once more."""
    hub.cut["model-1.safetensors"] = 1
    found = fetch()
    assert (Path(found.path) / "model-1.safetensors").read_bytes() == FILES["model-1.safetensors"]
    assert [name for name, _ in hub.sent].count("model-1.safetensors") == 2


def test_a_damaged_shard_is_named_and_fetched_again(fetch: Fetch, hub: Hub) -> None:
    """One wrong byte on the way, right the second time."""
    hub.wrong["model-2.safetensors"] = 1
    said: list[str] = []
    found = fetch(say=said.append)
    assert said[-1] == "model-2.safetensors: damaged, fetching it again"
    assert (Path(found.path) / "model-2.safetensors").read_bytes() == FILES["model-2.safetensors"]


def test_damage_on_the_disk_is_found(fetch: Fetch) -> None:
    """A byte that changed between two starts."""
    found = fetch()
    shard = (Path(found.path) / "model-1.safetensors").resolve()
    shard.write_bytes(shard.read_bytes()[:-1] + b"\xff")
    said: list[str] = []
    again = fetch(say=said.append)
    assert said[-1] == "model-1.safetensors: damaged, fetching it again"
    assert (Path(again.path) / "model-1.safetensors").read_bytes() == FILES["model-1.safetensors"]


def test_damage_that_stays_is_an_error(fetch: Fetch, hub: Hub) -> None:
    """Twice the same: a proxy or the disk."""
    hub.wrong["model-2.safetensors"] = 99
    with pytest.raises(UnavailableError, match=r"model-2\.safetensors does not match"):
        fetch()


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (401, "wants a token", UnavailableError),
        (403, "refuses access", UnavailableError),
        (404, "no such repository", BadInputError),
        (429, "limits the rate", UnavailableError),
        (503, "answered 503", UnavailableError),
    ],
)
def test_the_hubs_refusals_are_told_apart(
    fetch: Fetch, hub: Hub, status: int, said: str, kind: type[QwenhostError]
) -> None:
    """Each with a remedy."""
    hub.status = status
    with pytest.raises(kind, match=said) as caught:
        fetch()
    assert caught.value.remedy


def test_no_hub_is_no_traceback(tmp_path: Path) -> None:
    """Nothing listens there."""
    with pytest.raises(UnavailableError, match="not reached") as caught:
        fetch_checkpoint("owner/tiny", cache=tmp_path, endpoint="http://127.0.0.1:9")
    assert "network" in caught.value.remedy


def test_offline_takes_the_cache_or_says_so(fetch: Fetch, hub: Hub) -> None:
    """Without a request."""
    with pytest.raises(UnavailableError, match="not in the cache"):
        fetch(offline=True)
    online = fetch()
    hub.status = 503
    assert fetch(offline=True, revision=COMMIT).path == online.path


def test_a_disk_too_small_is_found_before_the_download(
    fetch: Fetch, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten bytes are free."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UnavailableError, match="to fetch, 10 B free"):
        fetch()
    assert hub.sent == []


def test_a_repository_without_safetensors_is_refused(fetch: Fetch, hub: Hub) -> None:
    """Pickles only."""
    hub.files = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    with pytest.raises(BadInputError, match="no safetensors"):
        fetch()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "checkpoint"
    made.mkdir()
    for name in FETCHED:
        (made / name).write_bytes(FILES[name])
    return made


def test_a_whole_folder_passes(folder: Path) -> None:
    """Its size is the sum of its files."""
    found = fetch_checkpoint(str(folder))
    assert found.size_bytes == sum(len(FILES[name]) for name in FETCHED)
    assert found.verified_by == "headers"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, r"config\.json: No such file"),
        ("config.json", b"{", r"config\.json: not JSON"),
        ("config.json", b"[]", r"config\.json: not a JSON object"),
        ("model-2.safetensors", None, r"1 of 2 shards are missing, first model-2\.safetensors"),
        ("model-2.safetensors", safetensors("c"), r"model-2\.safetensors: lacks the tensor b"),
        (
            "model-2.safetensors",
            safetensors("b")[:-1],
            r"model-2\.safetensors: has 72 bytes, its header describes 73",
        ),
        ("model-2.safetensors", b"\xff" * 8, r"model-2\.safetensors: cut off or not"),
        ("model-2.safetensors", b"abc", r"model-2\.safetensors: not a safetensors file"),
        (
            "model-2.safetensors",
            struct.pack("<Q", 2) + b"[]",
            r"model-2\.safetensors: not a safetensors file",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(
    folder: Path, file: str, content: bytes | None, said: str
) -> None:
    """Missing, cut, foreign or swapped files."""
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    with pytest.raises(BadInputError, match=said):
        verify_folder(folder)


def test_dummy_weights_need_no_shards(folder: Path) -> None:
    """With --load-format dummy the engine makes them up; the configuration must be there."""
    for shard in folder.glob("*.safetensors*"):
        shard.unlink()
    assert verify_folder(folder, weights=False).size_bytes > 0


def test_a_header_is_read_as_it_stands(folder: Path) -> None:
    """Names of the tensors."""
    assert list(read_header(folder / "model-1.safetensors")) == ["a"]
