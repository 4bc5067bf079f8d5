"""A server that streams tokens at set instants as cheaply as Python can, and tells when it did.

    python benchmarks/token_server.py TTFT_S ITL_S     prints its port and serves until its stdin closes

For the benchmarks of load generators: one thread, one epoll, ready-made chunks. The tests' truth server
knows more but spends several times as much on a token. Chat and completions, streamed.
``GET /v1/truth`` returns and forgets, for each finished request: ``[received, first token written, last
written, tokens]`` and how late tokens were, in seconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import heapq
import json
import re
import select
import socket
import sys
import time
from typing import Any, Final

now = time.monotonic
TTFT_S, ITL_S = (float(given) for given in (sys.argv[1:] or ("0.2", "0.02")))
HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
EVENT: Final = {
    "id": "cmpl-9f2c5a7d1e6b4c38",
    "created": 1764000000,
    "model": "tokens",
    "object": "chat.completion.chunk",
}


def chunk(data: bytes) -> bytes:
    """Framed for chunked transfer."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(**more: Any) -> bytes:
    """One server-sent event, framed."""
    return chunk(b"data: " + json.dumps(EVENT | more).encode() + b"\n\n")


class Stream:
    """One answer under way."""

    __slots__ = ("chat", "due", "first", "itl", "last", "left", "opening", "received", "sock", "tokens")

    def __init__(self, sock: socket.socket, received: float, path: str, asked: dict[str, Any]) -> None:
        self.sock, self.received, self.itl = sock, received, ITL_S
        self.due = received + TTFT_S
        self.chat = "chat" in path
        self.tokens = self.left = int(asked.get("max_completion_tokens") or asked.get("max_tokens") or 16)
        self.first = self.last = 0.0
        role = event(choices=[{"index": 0, "delta": {"role": "assistant"}}])
        self.opening = HEAD + (role if self.chat else b"")

    def closing(self) -> bytes:
        """Finish reason, usage, end mark."""
        usage = {"prompt_tokens": 8, "completion_tokens": self.tokens, "total_tokens": 8 + self.tokens}
        end = {"index": 0, "delta": {}, "finish_reason": "length"}
        if not self.chat:
            end = {"index": 0, "text": "", "finish_reason": "length"}
        return event(choices=[end]) + event(choices=[], usage=usage) + chunk(b"data: [DONE]\n\n") + chunk(b"")


TOKENS: Final = {
    True: event(choices=[{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]),
    False: event(choices=[{"index": 0, "text": " word", "finish_reason": None}]),
}


class Server:
    """Accepts, reads requests, writes what is due."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.listening.setblocking(False)
        self.epoll = select.epoll()
        self.epoll.register(self.listening.fileno(), select.EPOLLIN)
        self.epoll.register(sys.stdin.fileno(), select.EPOLLIN | select.EPOLLHUP)
        self.clients: dict[int, tuple[socket.socket, bytearray]] = {}
        self.due: list[tuple[float, int, Stream]] = []
        self.requests: list[list[float]] = []
        self.late: list[float] = []
        self.count = 0

    def run(self) -> None:
        """Until stdin closes."""
        while True:
            wait = self.due[0][0] - now() if self.due else 1.0
            for descriptor, _ in self.epoll.poll(max(0.0, min(wait, 1.0)), 256):
                if descriptor == sys.stdin.fileno():
                    return
                if descriptor == self.listening.fileno():
                    self.accept()
                else:
                    self.read(descriptor)
            self.write_due()

    def accept(self) -> None:
        """Everybody who waits."""
        while True:
            try:
                sock, _ = self.listening.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.clients[sock.fileno()] = (sock, bytearray())
            self.epoll.register(sock.fileno(), select.EPOLLIN)

    def read(self, descriptor: int) -> None:
        """A piece of a request; the whole of it is acted on."""
        sock, waiting = self.clients[descriptor]
        try:
            data = sock.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            del self.clients[descriptor]
            self.epoll.unregister(descriptor)
            sock.close()
            return
        received = now()
        waiting += data
        head, blank, body = bytes(waiting).partition(b"\r\n\r\n")
        found = LENGTH.search(head)
        if not blank or len(body) < (int(found[1]) if found else 0):
            return
        waiting.clear()
        self.answer(sock, received, head.split(b" ", 2)[1].decode(), body)

    def answer(self, sock: socket.socket, received: float, path: str, body: bytes) -> None:
        """Begin a stream, or say what little else there is to say."""
        if path.endswith("/completions"):
            stream = Stream(sock, received, path, json.loads(body))
            self.push(stream)
            return
        said: Any = {}
        if path.endswith("/models"):
            said = {"object": "list", "data": [{"id": "tokens", "object": "model", "owned_by": "benchmark"}]}
        elif path.endswith("/truth"):
            self.late.sort()
            said = {"requests": self.requests, "late": self.late[:: max(1, len(self.late) // 1000)]}
            self.requests, self.late = [], []
        known = path.endswith(("/models", "/truth", "/health"))
        text = json.dumps(said).encode()
        status = b"200 OK" if known else b"404 Not Found"
        sock.setblocking(True)
        sock.sendall(
            b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(text), text)
        )
        sock.setblocking(False)

    def push(self, stream: Stream) -> None:
        """Put a stream's next token on the heap."""
        self.count += 1
        heapq.heappush(self.due, (stream.due, self.count, stream))

    def write_due(self) -> None:
        """Every token whose time has come."""
        heap = self.due
        while heap and heap[0][0] <= now():
            stream = heap[0][2]
            data = TOKENS[stream.chat]
            if stream.left == stream.tokens:
                data = stream.opening + data
            stream.left -= 1
            if not stream.left:
                data += stream.closing()
            stream.last = now()
            if not stream.first:
                stream.first = stream.last
            self.late.append(stream.last - stream.due)
            try:
                stream.sock.send(data)
            except OSError:
                stream.left = 0
            if stream.left:
                stream.due += stream.itl
                self.count += 1
                heapq.heapreplace(heap, (stream.due, self.count, stream))
            else:
                heapq.heappop(heap)
                self.requests.append([stream.received, stream.first, stream.last, stream.tokens])


if __name__ == "__main__":
    server = Server()
    print(server.listening.getsockname()[1], flush=True)
    server.run()
