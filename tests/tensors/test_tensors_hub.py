"""From the hub only headers travel, and everything that goes wrong has a remedy."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import header_files
import pytest

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.tensors import read_checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``owner/big``: a folder of files, sent by ranges."""

    folder: Path
    ranges: bool = True
    """False: a server that ignores Range and sends whole files."""
    status: int = 200
    sent_bytes: int = 0
    tokens: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def serving(folder: Path) -> Iterator[Hub]:
    hub = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.tokens.append(self.headers.get("Authorization", ""))
            path = self.path.partition("?")[0]
            if hub.status != 200:
                self.answer(hub.status, b"{}")
            elif path.startswith("/api/models/owner/big"):
                rows = [{"rfilename": f.name, "size": f.stat().st_size} for f in sorted(folder.iterdir())]
                self.answer(200, json.dumps({"id": "owner/big", "sha": COMMIT, "siblings": rows}).encode())
            else:
                self.send(folder / path.rpartition("/")[2])

        def send(self, file: Path) -> None:
            begin, end = 0, file.stat().st_size
            if hub.ranges:
                begin, last = (int(n) for n in self.headers["Range"].removeprefix("bytes=").split("-"))
                end = min(last + 1, end)
            with file.open("rb") as content:
                content.seek(begin)
                self.answer(206 if hub.ranges else 200, content.read(min(end - begin, 2**22)), end - begin)

        def answer(self, status: int, content: bytes, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if length is None else length))
            self.end_headers()
            try:
                self.wfile.write(content)
                hub.sent_bytes += len(content)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return header_files.write_checkpoint(tmp_path_factory.mktemp("hub") / "big", "bf16")


@pytest.mark.parametrize("ranges", [True, False])
def test_only_headers_travel(folder: Path, *, ranges: bool) -> None:
    """Of 250 GB at most 13 MB, though a server ignores ranges; the tensors are those of the folder."""
    with serving(folder) as hub:
        hub.ranges = ranges
        found = read_checkpoint("owner/big", endpoint=hub.url, offline=False)
        assert hub.sent_bytes < 13 * 2**20
    local = read_checkpoint(str(folder))
    assert sorted(t.name for t in found.tensors) == sorted(t.name for t in local.tensors)
    assert (found.revision, found.file_bytes) == (COMMIT, local.file_bytes)


@pytest.mark.parametrize(
    ("status", "kind", "what"),
    [
        (401, UnavailableError, "HF_TOKEN"),
        (404, BadInputError, "HF_TOKEN"),
        (429, UnavailableError, "Wait"),
    ],
)
def test_refusals_have_a_remedy(folder: Path, status: int, kind: type[Exception], what: str) -> None:
    """No token, no such repository, too many requests."""
    with serving(folder) as hub:
        hub.status = status
        with pytest.raises(kind) as caught:
            read_checkpoint("owner/big", endpoint=hub.url, offline=False)
    assert what in caught.value.remedy  # type: ignore[attr-defined]


def test_no_hub_is_unavailable() -> None:
    """Nothing listens there."""
    with pytest.raises(UnavailableError, match="not reached"):
        read_checkpoint("owner/big", endpoint="http://127.0.0.1:9", offline=False)


def test_offline_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository that the cache does not hold."""
    with pytest.raises(UnavailableError, match="not in the cache"):
        read_checkpoint("owner/never-fetched", offline=True)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("model.safetensors.index.json", "{}", "has no weight_map"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "gone.safetensors"}}', "first gone.s"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../x.safetensors"}}', "first ../x.s"),
        ("model.safetensors.index.json", '{"weight_map": {}}', "first none"),
        ("model.safetensors.index.json", "[", "not JSON"),
        ("config.json", "[]", "not a JSON object"),
        ("config.json", "", "not JSON"),
        ("model.safetensors", "", "cut off or not a safetensors file"),
        ("model.safetensors", "garbage, eight and more", "cut off or not a safetensors file"),
    ],
)  # fmt: skip
def test_damaged_folders(tmp_path: Path, name: str, content: str, what: str) -> None:
    """The file is named, and what is wrong with it."""
    (tmp_path / "config.json").write_text("{}")
    header_files.write_header(tmp_path / "model.safetensors", [("a", "BF16", (2, 2))])
    (tmp_path / name).write_text(content)
    with pytest.raises(BadInputError) as caught:
        read_checkpoint(str(tmp_path))
    assert what in caught.value.message


def test_incomplete_folders(tmp_path: Path) -> None:
    """No folder, no configuration, no weights, one tensor twice."""
    for make, what in (
        (lambda: None, "no such folder"),
        (tmp_path.joinpath("x").mkdir, "has no config.json"),
        (lambda: (tmp_path / "x" / "config.json").write_text("{}"), "holds no safetensors"),
        (
            lambda: [
                header_files.write_header(tmp_path / "x" / f"{n}.safetensors", [("a", "BF16", (2,))])
                for n in "ab"
            ],
            "a is in another file too",
        ),
    ):
        make()
        with pytest.raises(BadInputError) as caught:
            read_checkpoint(str(tmp_path / "x"))
        assert what in caught.value.message
