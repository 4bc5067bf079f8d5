"""A small Hugging Face hub on loopback, with faults on demand."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """One repository, ``owner/tiny``."""

    files: dict[str, bytes]
    status: int = 200
    """Answered instead of everything, unless 200."""
    wrong: dict[str, int] = field(default_factory=dict)
    """How many times a file is sent with its last byte changed."""
    cut: dict[str, int] = field(default_factory=dict)
    """How many times the connection breaks half-way through a file."""
    sent: list[tuple[str, str]] = field(default_factory=list)
    """(file, Range header) of every download."""
    busy: list[tuple[int, str]] = field(default_factory=list)
    """(status, Retry-After) of the next answers, before all goes well."""
    no_ranges: bool = False
    """As servers that send every file from its first byte."""
    hide_sizes: bool = False
    """As mirrors that do not tell them."""
    pause_s: float = 0.0
    """Before each file, and half-way through one of some megabytes."""
    url: str = ""

    def metadata(self) -> dict[str, Any]:
        """As ``/api/models/owner/tiny?blobs=true`` answers."""
        siblings = []
        for name, content in self.files.items():
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": git_sha1(content)}
            if is_lfs(name):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 130}
            if self.hide_sizes:
                entry["size"] = None
                entry.pop("lfs", None)
            siblings.append(entry)
        return {"id": "owner/tiny", "modelId": "owner/tiny", "sha": COMMIT, "siblings": siblings}

    def tree(self) -> list[dict[str, Any]]:
        """As ``/api/models/owner/tiny/tree/...`` answers."""
        found = []
        for sibling in self.metadata()["siblings"]:
            row = {
                "type": "file",
                "oid": sibling["blobId"],
                "size": sibling["size"],
                "path": sibling["rfilename"],
            }
            if lfs := sibling.get("lfs"):
                row["lfs"] = {"oid": lfs["sha256"], "size": lfs["size"], "pointerSize": 130}
            found.append(row)
        return found


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Server(ThreadingHTTPServer):
    hub: Hub


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self.respond(body=False)

    def do_GET(self) -> None:
        self.respond(body=True)

    def respond(self, *, body: bool) -> None:
        hub, path = self.server.hub, self.path.partition("?")[0]
        if hub.busy:
            status, wait = hub.busy.pop(0)
            self.answer(status, b"{}", body=body, headers={"Retry-After": wait} if wait else None)
        elif hub.status != 200:
            self.answer(hub.status, b'{"error": "refused"}', body=body)
        elif path.startswith("/api/models/owner/tiny/tree/"):
            self.answer(200, json.dumps(hub.tree()).encode(), body=body)
        elif path.startswith("/api/models/owner/tiny"):
            self.answer(200, json.dumps(hub.metadata()).encode(), body=body)
        elif path.startswith("/owner/tiny/resolve/"):
            self.send_file(path.removeprefix("/owner/tiny/resolve/").partition("/")[2], body=body)
        else:
            self.answer(404, b"{}", body=body)

    def send_file(self, name: str, *, body: bool) -> None:
        hub = self.server.hub
        content = hub.files[name]
        etag = hashlib.sha256(content).hexdigest() if is_lfs(name) else git_sha1(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if not body:
            self.answer(200, content, body=False, headers=headers)
            return
        wanted = self.headers.get("Range", "")
        hub.sent.append((name, wanted))
        time.sleep(hub.pause_s)
        if _take(hub.wrong, name):
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted and not hub.no_ranges else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = _take(hub.cut, name)
        self.answer(206 if start else 200, content[start:], body=True, headers=headers, cut=cut)

    def answer(
        self,
        status: int,
        content: bytes,
        *,
        body: bool,
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # the client may have been killed
            self.send_body(content if body else b"", cut=cut)

    def send_body(self, content: bytes, *, cut: bool) -> None:
        if content:
            half = len(content) // 2
            self.wfile.write(content[:half])
            if not cut:
                time.sleep(self.server.hub.pause_s if half > 10**6 else 0)
                self.wfile.write(content[half:])

    def log_message(self, *_: object) -> None:
        pass


def is_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _take(counts: dict[str, int], name: str) -> bool:
    left = counts.get(name, 0)
    counts[name] = max(0, left - 1)
    return left > 0


@contextmanager
def running_hub(files: dict[str, bytes]) -> Iterator[Hub]:
    """The hub, until the block ends."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = Hub(files, url=f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
