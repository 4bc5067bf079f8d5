"""A lean HTTP/1.1 client that stamps what it receives and understands it later.

Per received segment it does four things: one ``recv`` into a buffer that all connections share, one
pass of a C parser, one stamp, one offset. Nothing is decoded here. Connections are kept alive and
reused, one request at a time on each; nothing is ever sent twice. Every failure ends an exchange with
a kind (``refused``, ``timeout``, ``reset``...), and one sweep over the exchanges in flight enforces
all deadlines.
"""

from __future__ import annotations

import asyncio
import errno
import select
import socket
import ssl
from array import array
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httptools
import msgspec

from qwenhost.errors import BadInputError
from qwenhost.probe.clock import StampingSelector, now

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_BUFFER_BYTES: Final = 256 * 1024
_REUSE_WITHIN_S: Final = 2.0
"""uvicorn closes an idle connection after 5 s; a younger one is not about to be closed under a request."""
_SWEEP_EVERY_S: Final = 0.1
_PRECONNECT_AT_ONCE: Final = 64
_CONNECT_WITHIN_S: Final = 30.0


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go."""

    host: str
    port: int
    tls: bool
    prefix: str
    """Path before ``/v1``, without a trailing slash."""

    @property
    def origin(self) -> str:
        """Scheme, host and port as a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"

    @property
    def host_header(self) -> str:
        """Value of ``Host``: the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def parse_url(url: str) -> Target:
    """``http://host:8000``, with or without ``/v1``, as a target.

    Raises:
        BadInputError: not an http or https URL.
    """
    remedy = "Give the server's base URL, e.g. http://127.0.0.1:8000."
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError as error:
        raise BadInputError(f"{url!r} is not a URL: {error}", remedy=remedy) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInputError(f"{url!r} is not an http or https URL", remedy=remedy)
    if parts.username or parts.query or parts.fragment:
        raise BadInputError(f"{url!r}: only scheme, host, port and path are expected", remedy=remedy)
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return Target(host=parts.hostname, port=port or (443 if tls else 80), tls=tls, prefix=prefix)


class Exchange:
    """One request and whatever came back; times are seconds of ``clock.now``."""

    __slots__ = (
        "body",
        "complete",
        "detail",
        "due",
        "ends",
        "error",
        "feed",
        "finished",
        "headers",
        "index",
        "keep_alive",
        "on_body",
        "parser",
        "payload",
        "sent",
        "status",
        "times",
    )

    def __init__(self, payload: bytes, *, index: int = -1, due: float | None = None) -> None:
        self.payload = payload
        """Head and body as they go on the wire."""
        self.index = index
        self.due = now() if due is None else due
        self.sent: float | None = None
        self.finished: float | None = None
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = bytearray()
        self.times = array("d")
        """Arrival of each received segment."""
        self.ends = array("q")
        """Length of ``body`` after that segment."""
        self.complete = False
        self.keep_alive = False
        self.error: str | None = None
        self.detail = ""
        self.on_body = self.body.extend  # Called by the parser without a Python frame in between.
        self.parser = httptools.HttpResponseParser(self)
        self.feed: Callable[[memoryview], None] = self.parser.feed_data

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser callback."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Parser callback."""
        self.status = self.parser.get_status_code()

    def on_message_complete(self) -> None:
        """Parser callback; an interim 1xx answer is not the answer."""
        if self.status >= 200:
            self.complete = True
            self.keep_alive = bool(self.parser.should_keep_alive())  # Known here only.

    def release_parser(self) -> None:
        """Break the cycle between exchange and parser, so that no garbage collection is needed."""
        del self.parser, self.feed

    @property
    def first_byte(self) -> float | None:
        """Arrival of the first segment."""
        return self.times[0] if self.times else None

    @property
    def ended_by_close(self) -> bool:
        """Whether the end of the connection is the regular end of this body."""
        framed = b"content-length" in self.headers or b"transfer-encoding" in self.headers
        return self.status >= 200 and not framed


class _Connection(asyncio.BufferedProtocol):
    """One connection; carries one exchange at a time.

    asyncio connects, speaks TLS and writes. On a plain connection the client's own reader reads.
    """

    def __init__(self, client: Client, sock: socket.socket) -> None:
        self.sock = sock
        self._client = client
        self._selector = client.selector
        self._buffer = client.buffer
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self.transport = transport
        self._client.adopt(self)

    def send(self, exchange: Exchange) -> None:
        """Put the request on the wire."""
        assert self.transport is not None  # noqa: S101 - connected before it is handed out
        self.exchange = exchange
        exchange.sent = now()
        self.transport.write(exchange.payload)

    def get_buffer(self, sizehint: int) -> memoryview:
        """All connections share one buffer: it is empty again before the next one reads."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The hot path: once per received segment."""
        exchange = self.exchange
        if exchange is None:  # Bytes nobody asked for, e.g. a late 408.
            self.close()
            return
        stamp = self._selector.stamp
        try:
            exchange.feed(self._buffer[:nbytes])
        except httptools.HttpParserError as error:
            self._end("malformed_http", str(error))
            return
        exchange.times.append(stamp)
        exchange.ends.append(len(exchange.body))
        if exchange.complete:
            self._end(None)

    def eof_received(self) -> bool:
        """Close our side too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was under way on it has ended."""
        self._client.forget(self)
        self.lost(exc)

    def lost(self, exc: Exception | None) -> None:
        """End the exchange: regularly, cut, or reset."""
        exchange = self.exchange
        if exchange is None:
            return
        if exc is None and exchange.ended_by_close:
            exchange.complete = True
            self._end(None)
        elif exc is None:
            before = "before it answered" if exchange.first_byte is None else "before the answer was complete"
            self._end("cut_stream", f"the server closed the connection {before}")
        else:
            self._end("reset" if isinstance(exc, ConnectionError) else "cut_stream", str(exc))

    def close(self) -> None:
        """Drop the connection, sending nothing more."""
        if self.transport is not None:
            self.transport.abort()

    def _end(self, error: str | None, detail: str = "") -> None:
        exchange, self.exchange = self.exchange, None
        assert exchange is not None  # noqa: S101 - callers checked
        if error is None and exchange.keep_alive:
            self._client.release(self)
        else:
            self.close()
        self._client.end(exchange, error, detail)


class _Reader:
    """Reads plain connections without asyncio's work per event.

    An epoll descriptor of its own holds the sockets, and asyncio watches that one descriptor. A turn
    reads every connection that has something, straight into the shared buffer.
    """

    def __init__(self, buffer: memoryview, selector: StampingSelector) -> None:
        self._selector = selector
        self._epoll = select.epoll()
        self._buffer = buffer
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._read_ready)
        self._connections: dict[int, tuple[Callable[[memoryview], int], _Connection]] = {}

    def adopt(self, connection: _Connection) -> None:
        """Take over the reading of a fresh connection."""
        assert connection.transport is not None  # noqa: S101 - called from connection_made
        connection.transport.pause_reading()
        sock = connection.sock
        self._connections[sock.fileno()] = (sock.recv_into, connection)
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def drop(self, connection: _Connection) -> None:
        """Stop reading."""
        descriptor = connection.sock.fileno()
        if self._connections.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def _read_ready(self) -> None:
        buffer, connections = self._buffer, self._connections
        ready = self._epoll.poll(0, len(connections) + 1)
        self._selector.arrivals += len(ready)
        for descriptor, _ in ready:
            entry = connections.get(descriptor)
            if entry is None:  # Dropped earlier in this very turn.
                continue
            receive, connection = entry
            try:
                received = receive(buffer)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                connection.lost(error)
                connection.close()
                continue
            if received:
                connection.buffer_updated(received)
            else:
                connection.lost(None)
                connection.close()


class Client:
    """Sends exchanges to one target and reports each exactly once to ``on_end``.

    Args:
        target: where to.
        selector: the running loop's, for its stamp.
        timeout_s: from due time to the end of the answer.
        idle_timeout_s: longest silence within an answer. Before it, queueing is the server's right.
    """

    def __init__(
        self,
        target: Target,
        selector: StampingSelector,
        *,
        on_end: Callable[[Exchange], None],
        timeout_s: float,
        idle_timeout_s: float,
    ) -> None:
        self.target = target
        self.selector = selector
        self.buffer = memoryview(bytearray(_BUFFER_BYTES))
        self.in_flight: dict[Exchange, _Connection | None] = {}
        self.on_end = on_end
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._address: Any = (target.host, target.port)
        self._family = socket.AF_INET
        self._tls = ssl.create_default_context() if target.tls else None
        self._sweeper: asyncio.TimerHandle | None = None
        self._reader: _Reader | None = None

    async def open(self) -> None:
        """Look the host up, once, and begin to watch the deadlines.

        Raises:
            OSError: the name is unknown.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
        self._family, _, _, _, self._address = found[0]
        if self._tls is None:
            self._reader = _Reader(self.buffer, self.selector)
        self._sweep()

    async def preconnect(self, count: int) -> None:
        """Open connections ahead of a burst; failures show when the requests are sent."""
        missing = count - len(self._idle)
        while missing > 0:
            batch = min(missing, _PRECONNECT_AT_ONCE)
            opened = await asyncio.gather(*(self._open() for _ in range(batch)), return_exceptions=True)
            for connection in opened:
                if isinstance(connection, _Connection):
                    self.release(connection)
            if any(isinstance(connection, BaseException) for connection in opened):
                return
            missing -= batch

    def start(self, exchange: Exchange) -> None:
        """Send now, on an idle connection or a new one. Never blocks, never raises."""
        connection = self._take_idle()
        self.in_flight[exchange] = connection
        if connection is not None:
            connection.send(exchange)
            return
        task = asyncio.get_running_loop().create_task(self._connect_and_send(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, exchange: Exchange, error: str | None, detail: str = "") -> None:
        """Close the books on an exchange, once."""
        if exchange not in self.in_flight:
            return
        del self.in_flight[exchange]
        exchange.release_parser()
        exchange.finished = self.selector.stamp
        exchange.error = error
        exchange.detail = detail
        self.on_end(exchange)

    def abandon(self, exchanges: Iterable[Exchange], error: str, detail: str = "") -> None:
        """Give up on exchanges in flight."""
        for exchange in list(exchanges):
            connection = self.in_flight.get(exchange)
            if connection is not None:
                connection.exchange = None
                connection.close()
            self.end(exchange, error, detail)

    def release(self, connection: _Connection) -> None:
        """Take a connection back for reuse."""
        connection.idle_since = now()
        self._idle.append(connection)

    def adopt(self, connection: _Connection) -> None:
        """Read a fresh connection ourselves, where bytes need no decryption."""
        if self._reader is not None:
            self._reader.adopt(connection)

    def forget(self, connection: _Connection) -> None:
        """The connection is gone."""
        if self._reader is not None:
            self._reader.drop(connection)
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        """Abort everything that is left."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self.abandon(self.in_flight, "interrupted")
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for connection in list(self._all):
            connection.close()
        await asyncio.sleep(0)  # connection_lost runs here.
        if self._reader is not None:
            self._reader.close()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            assert connection.transport is not None  # noqa: S101 - idle means connected
            if now() - connection.idle_since < _REUSE_WITHIN_S and not connection.transport.is_closing():
                return connection
            connection.close()
        return None

    async def _open(self) -> _Connection:
        loop = asyncio.get_running_loop()
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                await loop.sock_connect(sock, self._address)
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, sock),
                    sock=sock,
                    ssl=self._tls,
                    server_hostname=self.target.host if self._tls else None,
                )
        except BaseException:
            sock.close()
            raise
        self._all.add(connection)
        return connection

    async def _connect_and_send(self, exchange: Exchange) -> None:
        try:
            connection = await self._open()
        except Exception as error:  # noqa: BLE001 - every failure to connect becomes a kind
            self.end(exchange, *_connect_failure(error))
            return
        if exchange not in self.in_flight:  # Given up in the meantime.
            self.release(connection)
            return
        self.in_flight[exchange] = connection
        connection.send(exchange)

    def _sweep(self) -> None:
        clock = now()
        late = [e for e in self.in_flight if clock - e.due > self._timeout_s]
        self.abandon(late, "timeout", f"no complete answer within {self._timeout_s:g} s")
        silent = [e for e in self.in_flight if e.times and clock - e.times[-1] > self._idle_timeout_s]
        self.abandon(silent, "stalled", f"nothing received for {self._idle_timeout_s:g} s")
        self._sweeper = asyncio.get_running_loop().call_later(_SWEEP_EVERY_S, self._sweep)


def _connect_failure(error: Exception) -> tuple[str, str]:
    """Kind and detail of a failed connection attempt."""
    kinds: tuple[tuple[Any, str], ...] = (
        (ConnectionRefusedError, "refused"),
        (TimeoutError, "timeout"),
        (ConnectionError, "reset"),
        (ssl.SSLError, "tls"),
        (socket.gaierror, "unreachable"),
    )
    for kind, name in kinds:
        if isinstance(error, kind):
            return name, str(error) or "no connection in time"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL):
        return "client_limit", f"this machine: {error.strerror}"
    return "unreachable", f"{type(error).__name__}: {error}"


def request_bytes(
    target: Target,
    method: str,
    path: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    body: bytes | None = None,
) -> bytes:
    """A request as it goes on the wire; ``path`` begins after the target's prefix."""
    lines = [f"{method} {target.prefix}{path} HTTP/1.1", f"Host: {target.host_header}"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


async def fetch(
    target: Target, selector: StampingSelector, payload: bytes, *, timeout_s: float = 10.0
) -> Exchange:
    """One exchange on a connection of its own, outside the measured load."""
    done: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()

    def finish(exchange: Exchange) -> None:
        if not done.done():
            done.set_result(exchange)

    client = Client(target, selector, on_end=finish, timeout_s=timeout_s, idle_timeout_s=timeout_s)
    exchange = Exchange(payload)
    try:
        await client.open()
    except OSError as error:
        exchange.error, exchange.detail = "unreachable", str(error)
        return exchange
    try:
        client.start(exchange)
        return await done
    finally:
        await client.close()
