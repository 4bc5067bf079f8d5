"""A server that emits tokens at known instants and tells afterwards when that was.

    python tests/probe/truth_server.py [CERT_AND_KEY.pem]    prints its port and serves until its stdin closes

The path before ``/v1`` chooses the behaviour: ``/ttft=0.2,itl=0.02,fault=cut_stream/v1/chat/completions``.
``GET /truth`` returns, per ``x-request-id``, when the request was read and when each token was written,
in seconds of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import sys
import time
from typing import Any

import httptools

now = time.monotonic
TRUTH: dict[str, dict[str, Any]] = {}
COUNTERS = {"vllm:prompt_tokens_total": 0, "vllm:generation_tokens_total": 0, "vllm:request_success_total": 0}
PAUSED_UNTIL = [0.0]

HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: truth\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def sse(value: Any, event: str | None = None) -> bytes:
    head = b"event: " + event.encode() + b"\n" if event else b""
    return head + b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def plain(status: int, body: bytes, kind: str = "application/json", extra: str = "") -> bytes:
    reason = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}
    return (
        f"HTTP/1.1 {status} {reason.get(status, 'Error')}\r\ncontent-type: {kind}\r\n{extra}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Answer:
    """The stream of one request, in the dialect of its endpoint."""

    def __init__(self, path: str, request: dict[str, Any], options: dict[str, str]) -> None:
        self.kind = path.rsplit("/", 1)[-1]
        self.n = int(
            options.get("tokens")
            or request.get("max_tokens")
            or request.get("max_completion_tokens")
            or request.get("max_output_tokens")
            or 16
        )
        self.think = int(options.get("think", 0))
        self.reasoning_field = options.get("reasoning", "reasoning")
        text = json.dumps(request.get("messages") or request.get("prompt") or request.get("input") or "")
        self.prompt_tokens = len(text.split())
        self.usage = options.get("usage", "yes") == "yes"
        self.counted = int(options.get("counted", self.n))
        self.text = options.get("text", " word")
        self.calls = int(options.get("calls", 0))

    def opening(self) -> bytes:
        if self.kind == "messages":
            message = {"id": "m", "usage": {"input_tokens": self.prompt_tokens, "output_tokens": 0}}
            return sse({"type": "message_start", "message": message}, "message_start")
        if self.kind == "completions" and not self.chat:
            return b""
        if self.kind == "responses":
            return sse({"type": "response.created", "response": {"id": "r"}}, "response.created")
        return sse(self.chat_chunk({"role": "assistant", "content": ""}))

    chat = True

    def chat_chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": "chatcmpl-9f2c5a7d1e6b4c38", "object": "chat.completion.chunk", "created": 1764000000,
            "model": "truth",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish,
                         "token_ids": None}],
        }  # fmt: skip

    def token(self, i: int) -> bytes:
        thinking = i < self.think
        if i < self.calls:
            return self.call(i)
        if self.kind == "messages":
            kind, field = ("thinking_delta", "thinking") if thinking else ("text_delta", "text")
            delta = {"type": kind, field: self.text}
            return sse({"type": "content_block_delta", "index": 0, "delta": delta}, "content_block_delta")
        if self.kind == "responses":
            kind = "response.reasoning_text.delta" if thinking else "response.output_text.delta"
            return sse({"type": kind, "delta": self.text}, kind)
        if not self.chat:
            choice = {"index": 0, "text": self.text, "finish_reason": None}
            return sse({"id": "cmpl-1", "object": "text_completion", "model": "truth", "choices": [choice]})
        return sse(self.chat_chunk({self.reasoning_field if thinking else "content": self.text}))

    def call(self, i: int) -> bytes:
        """A whole call of a tool in one event."""
        if self.kind == "messages":
            block = {"type": "tool_use", "id": f"call_{i}", "name": "read_file", "input": {}}
            return sse(
                {"type": "content_block_start", "index": i, "content_block": block}, "content_block_start"
            )
        if self.kind == "responses":
            item = {"type": "function_call", "call_id": f"call_{i}", "name": "read_file", "arguments": ""}
            return sse({"type": "response.output_item.added", "item": item}, "response.output_item.added")
        function = {"name": "read_file", "arguments": '{"id": "1"}'}
        call = {"index": i, "id": f"call_{i}", "type": "function", "function": function}
        return sse(self.chat_chunk({"tool_calls": [call]}))

    def closing(self) -> bytes:
        total = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.counted,
                 "total_tokens": self.counted + self.prompt_tokens,
                 "prompt_tokens_details": {"cached_tokens": 3}}  # fmt: skip
        if self.kind == "messages":
            last: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}
            if self.usage:
                last["usage"] = {"output_tokens": self.counted}
            return sse(last, "message_delta") + sse({"type": "message_stop"}, "message_stop")
        if self.kind == "responses":
            usage = {"input_tokens": self.prompt_tokens, "output_tokens": self.counted,
                     "input_tokens_details": {"cached_tokens": 3},
                     "output_tokens_details": {"reasoning_tokens": self.think}}  # fmt: skip
            response = {"id": "r", "usage": usage if self.usage else None}
            return sse({"type": "response.completed", "response": response}, "response.completed")
        out = sse(self.chat_chunk({}, "length")) if self.chat else b""
        if self.usage:
            out += sse({"id": "c", "choices": [], "usage": total})
        return out + b"data: [DONE]\n\n"


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.reset_parser()

    def reset_parser(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body = bytearray()
        self.request_id = ""
        self.authorization = ""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-request-id":
            self.request_id = value.decode()
        elif name.lower() == b"authorization":
            self.authorization = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        received = now()
        url, body, request_id = self.url.decode(), bytes(self.body), self.request_id
        authorization = self.authorization
        self.reset_parser()
        prefix, _, path = url.rpartition("/v1/")
        options = dict(item.split("=", 1) for item in prefix.strip("/").split(",") if "=" in item)
        if url.endswith("/truth"):
            self.transport.write(plain(200, json.dumps(TRUTH).encode()))
            TRUTH.clear()
        elif url.endswith("/metrics"):
            text = "".join(f'{k}{{engine="0",model_name="truth"}} {v}\n' for k, v in COUNTERS.items())
            missing = "metrics=no" in url
            self.transport.write(plain(404 if missing else 200, text.encode(), "text/plain"))
        elif url.endswith("/version"):
            self.transport.write(plain(200, b'{"version":"1.2.3"}'))
        elif path == "models":
            label = b',"simulated":true' if options.get("simulated") == "card" else b""
            header = "x-qwenhost-simulated: 1\r\n" if options.get("simulated") == "header" else ""
            card = b'{"data":[{"id":"truth","owned_by":"vllm","max_model_len":4096%b}]}' % label
            self.transport.write(plain(200, card, extra=header))
        elif url.endswith("/tokenize"):
            asked = json.loads(body)
            count = len(json.dumps(asked.get("messages") or asked["prompt"]).split())
            answer = json.dumps({"count": count}).encode()
            self.transport.write(plain(404 if "tokenize=no" in url else 200, answer))
        elif path in ("chat/completions", "completions", "responses", "messages"):
            log = TRUTH[request_id] = {
                "received": received, "tokens": [], "done": None, "authorization": authorization,
                "peer": self.transport.get_extra_info("peername")[1], "prefix": prefix,
            }  # fmt: skip
            if options.get("log") == "body":
                log["body"] = json.loads(body)
            stream = self.answer(path, json.loads(body), options, request_id, log)
            self.task = asyncio.get_running_loop().create_task(stream)
        else:
            self.transport.write(plain(404, b'{"error":"no such path"}'))

    async def answer(
        self,
        path: str,
        request: dict[str, Any],
        options: dict[str, str],
        request_id: str,
        log: dict[str, Any],
    ) -> None:
        if options.get("pictures") == "no" and "image_url" in json.dumps(request):
            self.transport.write(plain(400, b'{"error":{"message":"takes no pictures"}}'))
            return
        fault = options.get("fault", "") if request_id else ""  # Calibration sends no id.
        if "every" in options and int(request_id.rsplit("-", 1)[-1] or 0) % int(options["every"]):
            fault = ""
        stream = Answer(path, request, options)
        stream.chat = path == "chat/completions"
        play = Play(self.transport, stream, log, fault)
        await play.run(ttft=float(options.get("ttft", 0)), itl=float(options.get("itl", 0)))


class Play:
    """Writes one answer at its instants, with the fault asked for."""

    def __init__(self, transport: Any, stream: Answer, log: dict[str, Any], fault: str) -> None:
        self.transport, self.stream, self.log, self.fault = transport, stream, log, fault

    async def run(self, *, ttft: float, itl: float) -> None:
        if await self.fails_at_once():
            return
        await self.head()
        if self.fault == "one_segment":
            self.all_at_once()
        elif await self.tokens(ttft, itl):
            self.end()

    async def fails_at_once(self) -> bool:
        if self.fault.startswith("status_"):
            body = b'{"error":{"message":"made to fail"}}'
            self.transport.write(plain(int(self.fault.removeprefix("status_")), body))
        elif self.fault == "hang":
            await asyncio.sleep(3600)
        elif self.fault == "close":
            self.transport.close()
        else:
            return False
        return True

    async def head(self) -> None:
        if self.fault == "stall_server":  # Everybody waits, as when an engine compiles during a run.
            PAUSED_UNTIL[0] = max(PAUSED_UNTIL[0], now() + 0.5)
        if self.fault != "slow_headers":
            self.transport.write(HEAD)
            return
        for byte in HEAD:
            self.transport.write(bytes([byte]))
            await asyncio.sleep(0.001)

    def all_at_once(self) -> None:
        stream = self.stream
        data = stream.opening() + b"".join(stream.token(i) for i in range(stream.n)) + stream.closing()
        self.log["tokens"] = [now()]
        pieces = b"".join(chunk(data[i : i + 1000]) for i in range(0, len(data), 1000))
        self.transport.write(pieces + chunk(b""))

    async def tokens(self, ttft: float, itl: float) -> bool:
        """All tokens; False if the fault ended the stream."""
        opening = self.stream.opening()
        for i in range(self.stream.n if self.fault != "zero_tokens" else 0):
            due = max(self.log["received"] + ttft + i * itl, PAUSED_UNTIL[0])
            await asyncio.sleep(max(0.0, due - now()))
            data = opening + self.stream.token(i)
            opening = b""
            if self.fault in {"split", "split_everywhere"}:
                await write_split(self.transport, data, everywhere=self.fault == "split_everywhere")
                self.log["tokens"].append(now())
                continue
            if self.fault and i == self.stream.n // 2 and await misbehave(self.transport, self.fault, data):
                return False
            self.log["tokens"].append(now())
            self.transport.write(chunk(data))
        return True

    def end(self) -> None:
        self.log["done"] = now()
        if self.fault != "no_end":
            COUNTERS["vllm:prompt_tokens_total"] += self.stream.prompt_tokens
            COUNTERS["vllm:generation_tokens_total"] += self.stream.counted
            COUNTERS["vllm:request_success_total"] += 1
            self.transport.write(chunk(self.stream.closing()))
        self.transport.write(chunk(b""))


async def misbehave(transport: Any, fault: str, data: bytes) -> bool:
    """Do the fault in the middle of a stream; True ends it."""
    if fault == "cut_stream":
        transport.write(chunk(data)[:-5])
        await asyncio.sleep(0.01)
        transport.close()
    elif fault == "reset":
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        transport.abort()
    elif fault == "malformed_event":
        transport.write(chunk(b'data: {"choices": [{"delta": \n\n'))
        return False
    elif fault == "error_event":
        transport.write(chunk(sse({"error": {"message": "the engine died", "code": 500}})))
        return False
    elif fault == "stall":
        await asyncio.sleep(3600)
    else:
        return False
    return True


async def write_split(transport: Any, data: bytes, *, everywhere: bool) -> None:
    """Write one event in pieces: inside ``data:`` and inside a multi-byte character, or at every byte."""
    framed = chunk(data)
    cuts = list(range(1, len(framed))) if everywhere else []
    if not everywhere:
        cuts.append(framed.index(b"data:") + 2)
        cuts += [i for i, byte in enumerate(framed) if byte & 0xC0 == 0x80]
    start = 0
    for cut in [*sorted(cuts), len(framed)]:
        transport.write(framed[start:cut])
        start = cut
        await asyncio.sleep(0.0005)


async def main() -> None:
    loop = asyncio.get_running_loop()
    tls = None
    if len(sys.argv) > 1:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(sys.argv[1])
    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=4096, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
