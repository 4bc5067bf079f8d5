"""Claude's Messages API as it speaks: event stream, usage, errors; no model behind it.

The model's name chooses the behaviour: ``claude-limited`` answers every third request with 429 and
``retry-after``, ``claude-busy`` with 529, ``claude-cut`` breaks every third stream off with an
``overloaded_error`` event; ``claude-wordy`` counts three tokens a word in answers to paid requests. Else a
token is a word, and twelve more wrap a request.
"""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-ant-test-0123456789"
WRAPPING = 12
KNOWN = {
    "model", "messages", "max_tokens", "stream", "system", "temperature", "thinking", "tools", "tool_choice",
}  # fmt: skip


def words(value: Any) -> int:
    """Of every text in a request."""
    if isinstance(value, str):
        return len(value.split())
    if isinstance(value, list):
        return sum(map(words, value))
    return sum(words(item) for key, item in value.items() if key not in ("type", "role", "cache_control"))


class Claude(ThreadingHTTPServer):
    """The server; ``seen`` holds each request's headers and body."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[dict[str, str], Any]] = []
        self.count = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Claude

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        """The list of models, and nothing else: no /metrics, no /version."""
        if self.path != "/v1/models":
            self._plain(
                404, {"type": "error", "error": {"type": "not_found_error", "message": "no such path"}}
            )
        elif self._allowed():
            self._plain(200, {"data": [{"type": "model", "id": "claude-sonnet-4-6"}], "has_more": False})

    def do_POST(self) -> None:
        """Count or answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._allowed():
            return
        with self.server.lock:
            self.server.seen.append(
                ({k.lower(): v for k, v in self.headers.items()}, body | {"path": self.path})
            )
        prompt = words(body["messages"]) + words(body.get("system", "")) + WRAPPING
        if self.path == "/v1/messages/count_tokens":
            if self._stumbles(body["model"], only="claude-limited"):
                return
            self._plain(200, {"input_tokens": prompt})
        elif unknown := body.keys() - KNOWN:
            self._error(400, "invalid_request_error", f"{min(unknown)}: Extra inputs are not permitted")
        elif not self._stumbles(body["model"]):
            self._stream(body, prompt)

    def _allowed(self) -> bool:
        good = self.headers.get("x-api-key") == KEY and self.headers.get("anthropic-version") == "2023-06-01"
        if not good or self.headers.get("authorization"):
            self._error(401, "authentication_error", "invalid x-api-key")
        return good

    def _stumbles(self, model: str, *, only: str | None = None) -> bool:
        with self.server.lock:
            self.server.count += 1
            third = self.server.count % 3 == 0
        if third and model == "claude-limited":
            self._error(429, "rate_limit_error", "too many", extra={"retry-after": "1"})
        elif third and model == "claude-busy" and only is None:
            self._error(529, "overloaded_error", "Overloaded")
        else:
            return False
        return True

    def _stream(self, body: dict[str, Any], prompt: int) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        prompt *= 3 if body["model"] == "claude-wordy" else 1
        cached = prompt // 2 if "cache_control" in json.dumps(body["messages"]) else 0
        usage = {"input_tokens": prompt - cached, "cache_creation_input_tokens": cached,
                 "cache_read_input_tokens": 0, "output_tokens": 1}  # fmt: skip
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "usage": usage,
        }
        self._event("message_start", {"message": message})
        self._event("ping", {})
        count, thinks = body["max_tokens"], 4 if body.get("thinking") else 0
        for index, length in ((0, thinks), (1, count - thinks)):
            kind, field = ("thinking", "thinking") if index == 0 else ("text", "text")
            if length:
                self._event(
                    "content_block_start", {"index": index, "content_block": {"type": kind, field: ""}}
                )
            for _ in range(length):
                delta = {"type": f"{kind}_delta", field: " word"}
                self._event("content_block_delta", {"index": index, "delta": delta})
        if body["model"] == "claude-cut" and self._is_third():
            self._event("error", {"error": {"type": "overloaded_error", "message": "Overloaded"}})
        else:
            usage = {"output_tokens": count}
            self._event("message_delta", {"delta": {"stop_reason": "max_tokens"}, "usage": usage})
            self._event("message_stop", {})
        self.wfile.write(b"0\r\n\r\n")

    def _is_third(self) -> bool:
        return self.server.count % 3 == 0

    def _event(self, kind: str, value: dict[str, Any]) -> None:
        data = f"event: {kind}\ndata: {json.dumps({'type': kind} | value)}\n\n".encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _error(self, status: int, kind: str, message: str, extra: dict[str, str] | None = None) -> None:
        self._plain(status, {"type": "error", "error": {"type": kind, "message": message}}, extra or {})

    def _plain(self, status: int, value: dict[str, Any], extra: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"content-type": "application/json", "content-length": str(len(data))}.items():
            self.send_header(name, text)
        for name, text in (extra or {}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(data)
