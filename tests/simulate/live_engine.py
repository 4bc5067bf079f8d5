"""A simulated engine behind a real socket, in a thread of the test's own process."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from qwenhost.facts import TokenStats
from qwenhost.simulate.api import Api, Settings
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.faults import Faults
from qwenhost.simulate.realtime import Host
from qwenhost.simulate.server import LABEL_HEADERS, DrainingServer

if TYPE_CHECKING:
    from collections.abc import Iterator

JSON = {"content-type": "application/json"}
DEADLINE_S = 20.0
MAX_MODEL_LEN = 2000
NATURAL_TOKENS = 40
"""Length of an answer that ends by itself; every one of them."""


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Event(NamedTuple):
    """One server-sent event."""

    name: str | None
    text: str

    @property
    def data(self) -> Any:
        """Its JSON."""
        return json.loads(self.text)


class LiveEngine:
    """Engine, API and server; ended with ``end``."""

    def __init__(
        self,
        *,
        thinking_share: float = 0.0,
        step_ms: float = 1.0,
        faults: tuple[str, ...] = (),
        keys: tuple[str, ...] = (),
        ranks: int = 1,
        drafts: int = 0,
        names: tuple[str, ...] = ("qwen", "alias"),
        shutdown_timeout_s: float = 10.0,
    ) -> None:
        config = EngineConfig(
            max_model_len=MAX_MODEL_LEN,
            max_num_seqs=64,
            max_num_batched_tokens=4096,
            num_blocks=1001,
            block_size=16,
            state_blocks_per_sequence=3 * (1 + drafts),
            num_speculative_tokens=drafts,
            acceptance_rates=(0.8, 0.5)[:drafts],
            data_parallel_size=ranks,
        )
        self.host = Host(config, lambda _: step_ms / 1000, model="qwen")
        settings = Settings(
            model="Qwen/test",
            served_model_names=names,
            max_model_len=MAX_MODEL_LEN,
            vllm_version="0.33.0",
            output_tokens=TokenStats(mean=NATURAL_TOKENS),
            thinking_share=thinking_share,
            api_keys=keys,
        )
        self.api = Api(self.host, settings, Faults(faults), self._die)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        options = uvicorn.Config(
            self.api.app(), log_level="warning", server_header=False, headers=LABEL_HEADERS, lifespan="off"
        )
        self.server = DrainingServer(options, self.api, self.host, shutdown_timeout_s)
        self._thread = threading.Thread(target=self.server.run, args=([self._listener],), daemon=True)
        self._thread.start()
        self.wait_for(lambda: self.server.started)

    def _die(self) -> None:
        """As the server does when a fault ends the engine, but the server stays to be asked."""
        self.host.die()

    @property
    def url(self) -> str:
        """Base of all paths."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, found: Any) -> None:
        """Until a condition holds."""
        end = time.monotonic() + DEADLINE_S
        while not found():
            assert time.monotonic() < end, "nothing came of it"
            time.sleep(0.002)

    def connection(self) -> http.client.HTTPConnection:
        """To be closed by the caller."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
        """GET without a body, POST with one; a body of bytes goes as it is."""
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(self.connection()) as connection:
            connection.request(method or ("GET" if body is None else "POST"), path, raw, JSON | given)
            with connection.getresponse() as response:
                return Reply(response.status, response.headers, response.read())

    def post(self, path: str, body: Any) -> Any:
        """JSON of an answer that must be 200."""
        reply = self.ask(path, body)
        assert reply.status == 200, reply.body
        return reply.json

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Event]:
        """Events as they come."""
        with contextlib.closing(self.connection()) as connection:
            connection.request("POST", path, json.dumps(body | {"stream": True}), JSON)
            with connection.getresponse() as response:
                assert response.status == 200, response.read()
                assert response.headers["content-type"].startswith("text/event-stream")
                yield from read_events(response)

    def metrics(self) -> dict[str, float]:
        """Every sample by its name and labels, as they are written."""
        lines = self.ask("/metrics").body.decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def signal(self) -> None:
        """What SIGTERM does to the server."""
        self.server.handle_exit(signal.SIGTERM, None)

    @property
    def ended(self) -> bool:
        """Whether the server is gone."""
        return not self._thread.is_alive()

    def end(self) -> None:
        """Whatever it is doing."""
        self.server.force_exit = self.server.should_exit = True
        self._thread.join(DEADLINE_S)
        self._listener.close()


def read_events(lines: Any) -> Iterator[Event]:
    """Name and data of each event; each must end with an empty line."""
    name: str | None = None
    data: str | None = None
    for raw in lines:
        line = raw.decode().rstrip("\n")
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
        else:
            assert line == ""
            assert data is not None
            yield Event(name, data)
            name = data = None
    assert (name, data) == (None, None), "the last event has no end"
