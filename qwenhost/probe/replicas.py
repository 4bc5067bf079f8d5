"""Several URLs behind the one face of a client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qwenhost.probe.client import Client
    from qwenhost.probe.connection import Connection
    from qwenhost.probe.exchange import Exchange


class Replicas:
    """Sends each exchange to the URL it belongs to; what a run needs of a client, and no more.

    Args:
        clients: one for each URL; they share a selector.
        replica_of: the URL of a request's index.
    """

    def __init__(self, clients: Sequence[Client], replica_of: Callable[[int], int | None]) -> None:
        self._clients, self._replica_of = clients, replica_of
        self.selector = clients[0].selector
        self.target = clients[0].target

    @property
    def in_flight(self) -> dict[Exchange, Connection | None]:
        """Of all URLs."""
        found: dict[Exchange, Connection | None] = {}
        for client in self._clients:
            found |= client.in_flight
        return found

    @property
    def on_end(self) -> Callable[[Exchange], None]:
        """Called with each exchange that ended, once."""
        return self._clients[0].on_end

    @on_end.setter
    def on_end(self, do: Callable[[Exchange], None]) -> None:
        for client in self._clients:
            client.on_end = do

    async def open(self) -> None:
        """Look all hosts up."""
        for client in self._clients:
            await client.open()

    async def preconnect(self, count: int) -> None:
        """Open connections ahead, spread evenly."""
        share = -(-count // len(self._clients))
        await asyncio.gather(*(client.preconnect(share) for client in self._clients))

    def start(self, exchange: Exchange) -> None:
        """Send now."""
        self._clients[self._replica_of(exchange.index) or 0].start(exchange)

    def abandon(self, exchanges: Iterable[Exchange], error: str, detail: str = "") -> None:
        """Give up on exchanges in flight."""
        given = set(exchanges)
        for client in self._clients:
            client.abandon(given & set(client.in_flight), error, detail)

    async def close(self) -> None:
        """Abort everything that is left."""
        for client in self._clients:
            await client.close()
