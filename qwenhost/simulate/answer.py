"""A generation on its way to the client, whole or as it comes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from qwenhost.simulate.realtime import EngineDeadError
from qwenhost.simulate.replies import json_response
from qwenhost.simulate.requests import RequestError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from qwenhost.simulate.dialects import Dialect
    from qwenhost.simulate.realtime import Host, Ticket

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def engine_dead() -> RequestError:
    """What every client gets once the engine is gone."""
    return RequestError(500, ENGINE_DEAD, "InternalServerError")


class Answer(Response):
    """A generation on its way out; as a response it is the event stream."""

    def __init__(self, host: Host, ticket: Ticket, dialect: Dialect, *, cut: bool) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._host, self._ticket, self._dialect, self._cut = host, ticket, dialect, cut

    async def whole(self) -> Response:
        """Wait for all of it."""
        generation = self._dialect.generation
        try:
            done = 0
            while done < generation.output_tokens:
                done += await self._ticket.take()
        finally:
            self._host.close(self._ticket)
        generation.cached_tokens = self._ticket.cached_tokens
        return json_response(self._dialect.whole())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until the last token, or until the client goes away."""
        del scope
        watch = asyncio.ensure_future(_gone(receive))
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - ASGI runs in a task
        streaming = True
        watch.add_done_callback(lambda _: streaming and task.cancel())
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._stream(send)
        except asyncio.CancelledError:
            if not watch.done():
                raise
        finally:
            streaming = False
            watch.cancel()
            self._host.close(self._ticket)

    async def _stream(self, send: Send) -> None:
        dialect, take = self._dialect, self._ticket.take
        generation = dialect.generation
        total, done = generation.output_tokens, 0
        while done < total:
            try:
                tokens = await take()
            except EngineDeadError:
                closing = dialect.failure(engine_dead(), done)
                await send({"type": "http.response.body", "body": closing, "more_body": False})
                return
            if not done:
                generation.cached_tokens = self._ticket.cached_tokens
            end = done + tokens
            if self._cut and 2 * end >= total:
                return  # without the closing chunk, the server drops the connection
            body = dialect.advance(done, end)
            await send({"type": "http.response.body", "body": body, "more_body": end < total})
            done = end


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
