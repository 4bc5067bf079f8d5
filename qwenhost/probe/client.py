"""A lean HTTP/1.1 client that stamps what it receives and leaves understanding it for later.

Connections are kept alive and reused, one request at a time on each; nothing is ever sent twice. Every
failure ends an exchange with a kind (``refused``, ``timeout``, ``reset``...), and one sweep over the
exchanges in flight enforces all deadlines.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from qwenhost.probe.clock import StampingSelector, now
from qwenhost.probe.connection import Connection, Reader
from qwenhost.probe.exchange import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from qwenhost.probe.wire import Target

_BUFFER_BYTES: Final = 256 * 1024
_REUSE_WITHIN_S: Final = 2.0
"""uvicorn closes an idle connection after 5 s; a younger one is not about to be closed under a request."""
_FIRST_USE_WITHIN_S: Final = 30.0
"""That timer starts with the first answer: a connection opened ahead may wait longer."""
_SWEEP_EVERY_S: Final = 0.1
_SETTLE_AFTER_S: Final = 1.0
"""A stream that was silent for so long is parsed: its end may have come in an unusual form."""
_PRECONNECT_AT_ONCE: Final = 64
_CONNECT_WITHIN_S: Final = 30.0


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
        self.in_flight: dict[Exchange, Connection | None] = {}
        self.on_end = on_end
        self._timeout_s = timeout_s
        self._idle_timeout_s = idle_timeout_s
        self._idle: dict[Connection, None] = {}
        self._all: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._address: Any = (target.host, target.port)
        self._family = socket.AF_INET
        self._tls = ssl.create_default_context() if target.tls else None
        self._sweeper: asyncio.TimerHandle | None = None
        self._reader: Reader | None = None

    async def open(self) -> None:
        """Look the host up, once, and begin to watch the deadlines.

        Raises:
            OSError: the name is unknown.
        """
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.target.host, self.target.port, type=socket.SOCK_STREAM)
        self._family, _, _, _, self._address = found[0]
        if self._tls is None:
            self._reader = Reader(self.buffer, self.selector)
        self._sweep()

    async def preconnect(self, count: int) -> None:
        """Open connections ahead of a burst; failures show when the requests are sent."""
        missing = count - len(self._idle)
        while missing > 0:
            batch = min(missing, _PRECONNECT_AT_ONCE)
            opened = await asyncio.gather(*(self._open() for _ in range(batch)), return_exceptions=True)
            for connection in opened:
                if isinstance(connection, Connection):
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
        if not exchange.raw:  # Else `decoding` still needs it.
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

    def release(self, connection: Connection) -> None:
        """Take a connection back for reuse."""
        connection.idle_since = now()
        self._idle[connection] = None

    def adopt(self, connection: Connection) -> None:
        """Read a fresh connection ourselves, where bytes need no decryption."""
        if self._reader is not None:
            self._reader.adopt(connection)

    def forget(self, connection: Connection) -> None:
        """The connection is gone."""
        if self._reader is not None:
            self._reader.drop(connection)
        self._all.discard(connection)
        self._idle.pop(connection, None)

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

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection, _ = self._idle.popitem()  # The one used last.
            assert connection.transport is not None  # noqa: S101 - idle means connected
            limit = _REUSE_WITHIN_S if connection.used else _FIRST_USE_WITHIN_S
            if now() - connection.idle_since < limit and not connection.transport.is_closing():
                return connection
            connection.close()
        return None

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                await loop.sock_connect(sock, self._address)
                _, connection = await loop.create_connection(
                    lambda: Connection(self, sock),
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
        for exchange, connection in list(self.in_flight.items()):
            if connection is not None and connection.keep and clock - exchange.times[-1] > _SETTLE_AFTER_S:
                connection.settle()
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
