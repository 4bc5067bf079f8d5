"""The simulated engine as a process: bind, start up, serve, drain."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from typing import TYPE_CHECKING, NamedTuple

import uvicorn

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.simulate.api import Api
from qwenhost.simulate.startup import NOTICE, say, start_up

if TYPE_CHECKING:
    from pathlib import Path
    from types import FrameType

    from starlette.types import ASGIApp

    from qwenhost.simulate.api import Settings
    from qwenhost.simulate.faults import Faults
    from qwenhost.simulate.realtime import Host

LABEL_HEADERS = [("server", "qwenhost-simulated"), ("x-qwenhost-simulated", "true")]
DRAIN_POLL_S = 0.05


class Options(NamedTuple):
    """Where and how to serve."""

    host: str
    port: int
    startup_seconds: float = 0.0
    shutdown_timeout_s: float = 30.0
    middleware: str | None = None
    """Import path of an ASGI class in front of the API, as vLLM's flag of that name."""
    ssl_certfile: str | None = None
    ssl_keyfile: str | None = None


class DrainingServer(uvicorn.Server):
    """On the first signal refuse new requests and finish those in flight; on the second, stop."""

    def __init__(self, config: uvicorn.Config, api: Api, engine: Host, timeout_s: float) -> None:
        super().__init__(config)
        self._api, self._engine, self._timeout_s = api, engine, timeout_s
        self._drain: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the engine with the server, on its loop."""
        self._loop = asyncio.get_running_loop()
        self._engine.start()
        await super().startup(sockets)
        say("Application startup complete.")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the engine after the server."""
        await super().shutdown(sockets)
        await self._engine.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal only starts the drain; the process then ends with 0, as vLLM does."""
        del sig, frame
        if self._loop is None or self._api.draining:
            self.force_exit = self.should_exit = True
            return
        self._api.draining = True
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        self._drain = asyncio.create_task(self._finish_in_flight())

    async def _finish_in_flight(self) -> None:
        say(f"draining {self._engine.in_flight} requests, at most {self._timeout_s:g} s")
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        while self._engine.in_flight and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(DRAIN_POLL_S)  # a count read from many places; polling is the least code
        if self._engine.in_flight:
            say(f"cancelling {self._engine.in_flight} requests", "WARNING")
            self._engine.die()
        self.should_exit = True


def serve(
    engine: Host,
    settings: Settings,
    faults: Faults,
    options: Options,
    *,
    lines: list[str],
    failure: str | None,
) -> None:
    """Serve until told to stop.

    Args:
        engine: not started yet.
        settings: what the API answers as.
        faults: what to break per request.
        options: where to listen.
        lines: of the start, in vLLM's words.
        failure: what to fail the start with; an empty text hangs; None starts.

    Raises:
        UnavailableError: the address is in use or may not be bound.
    """
    say(NOTICE)
    # Bound first and listened on last, as vLLM does: connections are refused until it is ready.
    listener = _bind(options.host, options.port)
    with listener:
        start_up(lines, options.startup_seconds, failure)
        server: DrainingServer | None = None

        def on_death() -> None:
            say("EngineCore encountered a fatal error.", "ERROR")
            engine.die()
            if server is not None:
                server.should_exit = True

        api = Api(engine, settings, faults, on_death)
        config = uvicorn.Config(
            _behind(options.middleware, api.app()),
            log_level="warning",
            access_log=False,
            server_header=False,
            headers=LABEL_HEADERS,
            lifespan="off",
            timeout_graceful_shutdown=5,
            ssl_certfile=options.ssl_certfile,
            ssl_keyfile=options.ssl_keyfile,
            h11_max_incomplete_event_size=1 << 20,
        )
        server = DrainingServer(config, api, engine, options.shutdown_timeout_s)
        port = listener.getsockname()[1]
        say(f"Starting vLLM server on {'https' if config.is_ssl else 'http'}://{options.host}:{port}")
        server.run(sockets=[listener])


def _behind(middleware: str | None, app: ASGIApp) -> ASGIApp:
    if middleware is None:
        return app
    module, _, name = middleware.rpartition(".")
    try:
        guarded: ASGIApp = getattr(importlib.import_module(module), name)(app)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInputError(
            f"--middleware {middleware}: {error}", remedy="Name an ASGI class that can be imported."
        ) from error
    return guarded


def read_keys(path: Path | None) -> tuple[str, ...]:
    """API keys of a file, one a line; without a file, those of ``VLLM_API_KEY``; else none.

    Raises:
        BadInputError: the file is missing or holds no key.
    """
    if path is None:
        return tuple(filter(None, [os.environ.get("VLLM_API_KEY", "").strip()]))
    try:
        keys = tuple(filter(None, (line.strip() for line in path.read_text().splitlines())))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"--api-key-file {path}: {error}", remedy="Name a readable text file.") from error
    if not keys:
        raise BadInputError(f"--api-key-file {path}: no key in it", remedy="Write one key per line.")
    return keys


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"OSError: [Errno {error.errno}] {error.strerror} ({host}:{port})",
            remedy="Choose another port with --port.",
        ) from error
    return listener
