"""A server that answers as a test scripts it: routes to replies, each reply once, the last one for good."""

from __future__ import annotations

import json
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """One answer."""

    status: int = 200
    body: Any = None
    """Bytes or text as they are, anything else as JSON."""
    headers: tuple[tuple[str, str], ...] = ()
    framed: bool = True
    """With a Content-Length; else the connection's end is the body's."""


def stream(*tokens: str, prompt: int = 10) -> Reply:
    """A chat completion of these tokens."""
    events: list[Any] = [
        {"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]} for token in tokens
    ]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": prompt, "completion_tokens": len(tokens)}
    events.append({"choices": [], "usage": usage})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return Reply(body=body, headers=(("content-type", "text/event-stream"),))


MODELS = Reply(body={"object": "list", "data": [{"id": "m", "owned_by": "vllm", "max_model_len": 4096}]})
NONE_SUCH = Reply(404, {"detail": "Not Found"})


class Stub(ThreadingHTTPServer):
    """The server; ``seen`` holds (method, path, headers, decoded body) of every request."""

    daemon_threads = True

    def __init__(self, **routes: Reply | list[Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self._routes: dict[str, deque[Reply]] = {}
        self._lock = threading.Lock()
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self.route("/v1/models", MODELS)
        self.route("/v1/chat/completions", stream("a", " b"))
        for name, reply in routes.items():
            self.route(f"/{name}", *(reply if isinstance(reply, list) else [reply]))
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def route(self, path: str, *replies: Reply) -> None:
        """What a path answers from now on."""
        with self._lock:
            self._routes[path] = deque(replies)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, path: str) -> list[Any]:
        """Bodies that came for a path."""
        with self._lock:
            return [body for _, at, _, body in self.seen if at == path]

    def reply(self, path: str, entry: tuple[str, str, dict[str, str], Any]) -> Reply:
        with self._lock:
            self.seen.append(entry)
            replies = self._routes.get(path, deque([NONE_SUCH]))
            return replies.popleft() if len(replies) > 1 else replies[0]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Stub

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _answer(self, body: Any) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.reply(self.path, (self.command, self.path, headers, body))
        if isinstance(reply.body, bytes | str):
            data = reply.body.encode() if isinstance(reply.body, str) else reply.body
        else:
            data = b"" if reply.body is None else json.dumps(reply.body).encode()
        head = "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        if reply.framed:
            head += f"content-length: {len(data)}\r\n"
        self.wfile.write(f"HTTP/1.1 {reply.status} Whatever\r\n{head}\r\n".encode() + data)
        if not reply.framed:
            self.close_connection = True
