"""One connection and the reader that serves them all.

Per received segment of a stream four things happen: one ``recv`` into a buffer that all connections
share, one copy, one stamp, one look at its last four bytes. Nothing is parsed or decoded here.
"""

from __future__ import annotations

import asyncio
import select
from array import array
from typing import TYPE_CHECKING, Final, Protocol

import httptools

from qwenhost.probe.clock import now

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from qwenhost.probe.clock import StampingSelector
    from qwenhost.probe.exchange import Exchange


_END_BYTES: Final = 4  # A chunked body ends in CR LF CR LF, whatever its trailers.
_CR: Final = 13
_AT_ONCE: Final = 64
_STAMP_TOGETHER_S: Final = 0.0005
"""What one poll reported is stamped with the poll's time while no older than this.

Later reads are stamped on their own: a read returns all that is there, and after a pause of the machine
that is more than the poll saw. So no stamp is early by more than this.
"""


class Owner(Protocol):
    """Who hands out connections and hears of what becomes of them."""

    selector: StampingSelector
    buffer: memoryview

    def adopt(self, connection: Connection) -> None:
        """It is connected."""

    def release(self, connection: Connection) -> None:
        """It may carry another request."""

    def forget(self, connection: Connection) -> None:
        """It is gone."""

    def end(self, exchange: Exchange, error: str | None, detail: str = "") -> None:
        """Its exchange has ended."""


class Connection(asyncio.BufferedProtocol):
    """One connection; carries one exchange at a time.

    asyncio connects, speaks TLS and writes. On a plain connection the client's own reader reads.
    """

    def __init__(self, owner: Owner, sock: socket.socket) -> None:
        self.sock = sock
        self._owner = owner
        self._selector = owner.selector
        self._buffer = owner.buffer
        self.transport: asyncio.Transport | None = None
        self.exchange: Exchange | None = None
        self.idle_since = 0.0
        self.used = False
        """Whether it has carried a request."""
        self.receive = sock.recv_into
        self.keep: Callable[[bytes], None] | None = None
        """Where segments go while a stream is only kept; None where they are parsed."""
        self.note: Callable[[float], None] = array("d").append

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what create_connection makes
        self.transport = transport
        self._owner.adopt(self)

    def send(self, exchange: Exchange) -> None:
        """Put the request on the wire."""
        assert self.transport is not None  # noqa: S101 - connected before it is handed out
        self.exchange = exchange
        self.used = True
        exchange.sent = now()
        self.transport.write(exchange.payload)

    def get_buffer(self, sizehint: int) -> memoryview:
        """All connections share one buffer: it is empty again before the next one reads."""
        del sizehint
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take a received segment; the reader does the first branch itself."""
        if self.keep is not None:
            segment = bytes(self._buffer[:nbytes])
            self.keep(segment)
            self.note(self._selector.stamp)
            if nbytes < _END_BYTES or segment[-_END_BYTES] == _CR:
                self.may_have_ended(segment)
            return
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
        elif exchange.streaming:
            self.keep, self.note = exchange.raw.append, exchange.times.append

    def may_have_ended(self, segment: bytes) -> None:
        """Decide by the parser, unless the stream ended in the ordinary way."""
        exchange = self.exchange
        assert exchange is not None  # noqa: S101 - a stream is under way
        if exchange.ends_with(segment):
            exchange.complete = True
            self._end(None)
        else:
            self.settle()

    def settle(self) -> None:
        """Parse what was only kept so far, and all that follows."""
        exchange = self.exchange
        if self.keep is None or exchange is None:
            return
        self.keep = None
        try:
            exchange.settle()
        except httptools.HttpParserError as error:
            self._end("malformed_http", str(error))
            return
        if exchange.complete:
            self._end(None)

    def eof_received(self) -> bool:
        """Close our side too."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever was under way on it has ended."""
        self._owner.forget(self)
        self.lost(exc)

    def lost(self, exc: Exception | None) -> None:
        """End the exchange: regularly, cut, or reset."""
        self.settle()
        exchange = self.exchange
        if exchange is None:
            return
        if exc is None and exchange.ended_by_close:
            exchange.complete = exchange.parsed = True
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
        exchange, self.exchange, self.keep = self.exchange, None, None
        assert exchange is not None  # noqa: S101 - callers checked
        if error is None and exchange.keep_alive:
            self._owner.release(self)
        else:
            self.close()
        self._owner.end(exchange, error, detail)


class Reader:
    """Reads plain connections without asyncio's work per event.

    An epoll descriptor of its own holds the sockets. The selector calls ``drain`` whenever it wakes;
    asyncio watches that one descriptor only so as to be woken.
    """

    def __init__(self, buffer: memoryview, selector: StampingSelector) -> None:
        self._selector = selector
        self._buffer = buffer
        self._epoll = select.epoll()
        self._loop = asyncio.get_running_loop()
        self._connections: dict[int, Connection] = {}
        self._loop.add_reader(self._epoll.fileno(), self.drain)
        selector.drains.append(self.drain)

    def adopt(self, connection: Connection) -> None:
        """Take over the reading of a fresh connection."""
        assert connection.transport is not None  # noqa: S101 - called from connection_made
        connection.transport.pause_reading()
        descriptor = connection.sock.fileno()
        self._connections[descriptor] = connection
        self._epoll.register(descriptor, select.EPOLLIN)

    def drop(self, connection: Connection) -> None:
        """Stop reading."""
        descriptor = connection.sock.fileno()
        if self._connections.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def close(self) -> None:
        """Give the descriptor back."""
        self._selector.drains.remove(self.drain)
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()

    def drain(self) -> None:
        """Read every connection that has something: the hot path."""
        poll = self._epoll.poll
        # One round over all connections at most: a flood must not keep timers waiting.
        for _ in range(len(self._connections) // _AT_ONCE + 1):
            ready = poll(0, _AT_ONCE)
            self._read(ready)
            if len(ready) < _AT_ONCE:
                return

    def _read(self, ready: list[tuple[int, int]]) -> None:
        selector, buffer, connections = self._selector, self._buffer, self._connections
        selector.arrivals += len(ready)
        found = now()
        for descriptor, _ in ready:
            connection = connections.get(descriptor)
            if connection is None:  # Dropped earlier in this very turn.
                continue
            try:
                received = connection.receive(buffer)
            except (BlockingIOError, InterruptedError):
                continue
            except OSError as error:
                connection.lost(error)
                connection.close()
                continue
            stamp = now()
            if stamp - found < _STAMP_TOGETHER_S:
                stamp = found
            if received and connection.keep is not None:
                segment = bytes(buffer[:received])
                connection.keep(segment)
                connection.note(stamp)
                if received < _END_BYTES or segment[-_END_BYTES] == _CR:
                    selector.stamp = stamp
                    connection.may_have_ended(segment)
                continue
            selector.stamp = stamp
            if received:
                connection.buffer_updated(received)
            else:
                connection.lost(None)
                connection.close()
