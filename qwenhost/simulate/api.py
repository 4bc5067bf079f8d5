"""vLLM's HTTP API over a simulated engine, as a Starlette application."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from qwenhost.simulate.dialects import Chat, Completions, Messages
from qwenhost.simulate.engine import Request
from qwenhost.simulate.generation import Generation
from qwenhost.simulate.load import Sizes
from qwenhost.simulate.realtime import EngineDeadError
from qwenhost.simulate.replies import KeyGuard, json_response, refuse
from qwenhost.simulate.requests import (
    ChatAsk,
    CompletionAsk,
    MessagesAsk,
    RequestError,
    ResponsesAsk,
    TokenizeAsk,
    decode,
)
from qwenhost.simulate.responses import Responses
from qwenhost.simulate.text import block_hashes

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request as HttpRequest
    from starlette.types import ASGIApp, Receive, Scope, Send

    from qwenhost.facts import TokenStats
    from qwenhost.simulate.dialects import Dialect
    from qwenhost.simulate.faults import Faults
    from qwenhost.simulate.realtime import Host, Ticket
    from qwenhost.simulate.requests import Ask

ENGINE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."
SLOW_S = 2.0


class Settings(NamedTuple):
    """What the API answers as."""

    model: str
    """Repository name of the checkpoint."""
    served_model_names: tuple[str, ...]
    max_model_len: int
    vllm_version: str
    output_tokens: TokenStats
    """Length of answers the client does not fix."""
    thinking_share: float
    api_keys: tuple[str, ...] = ()
    seed: int = 0


class Api:
    """Handlers and the little state they share.

    Args:
        host: the running engine.
        settings: names, limits, keys.
        faults: what to break.
        on_death: called when a fault ends the engine; the server then shuts down, as vLLM does.
    """

    def __init__(self, host: Host, settings: Settings, faults: Faults, on_death: Callable[[], None]) -> None:
        self.host, self.settings = host, settings
        self.draining = False
        self._faults, self._on_death = faults, on_death
        self._rng = random.Random(settings.seed)  # noqa: S311 - a model's draws
        self._lengths = Sizes(settings.output_tokens)

    def app(self) -> ASGIApp:
        """The ASGI application, guarded by the API keys where there are any."""
        generate: dict[str, tuple[type[Ask], Callable[..., Dialect]]] = {
            "/v1/chat/completions": (ChatAsk, Chat),
            "/v1/completions": (CompletionAsk, Completions),
            "/v1/messages": (MessagesAsk, Messages),
            "/v1/responses": (ResponsesAsk, Responses),
        }
        routes = [
            Route(path, self._generator(ask, dialect), methods=["POST"])
            for path, (ask, dialect) in generate.items()
        ]
        routes += [
            Route("/health", self._health),
            Route("/ping", self._health, methods=["GET", "POST"]),
            Route("/version", self._version),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/tokenize", self._tokenize, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
        ]
        app: ASGIApp = Starlette(routes=routes)
        return KeyGuard(app, self.settings.api_keys) if self.settings.api_keys else app

    # ------------------------------------------------------------------ plain answers

    async def _health(self, _: HttpRequest) -> Response:
        return Response(status_code=503 if self.host.dead else 200)

    async def _version(self, _: HttpRequest) -> Response:
        return json_response({"version": self.settings.vllm_version, "simulated": True})

    async def _metrics(self, _: HttpRequest) -> Response:
        return PlainTextResponse(self.host.metrics_text(), media_type="text/plain; version=0.0.4")

    async def _models(self, _: HttpRequest) -> Response:
        cards: list[dict[str, Any]] = [
            {
                "id": name, "object": "model", "created": 0, "owned_by": "qwenhost-simulated",
                "root": self.settings.model, "parent": None, "permission": [],
                "max_model_len": self.settings.max_model_len, "simulated": True,
            }
            for name in self.settings.served_model_names
        ]  # fmt: skip
        return json_response({"object": "list", "data": cards})

    async def _tokenize(self, http: HttpRequest) -> Response:
        try:
            tokens = decode(await http.body(), TokenizeAsk).prompt()
        except RequestError as error:
            return refuse(error, http.url.path)
        ids = [sum(map(ord, token)) for token in tokens]
        limit = self.settings.max_model_len
        return json_response({"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": None})

    async def _count_tokens(self, http: HttpRequest) -> Response:
        try:
            return json_response({"input_tokens": len(decode(await http.body(), MessagesAsk).prompt())})
        except RequestError as error:
            return refuse(error, http.url.path)

    # ------------------------------------------------------------------ generation

    def _generator(
        self, ask_type: type[Ask], dialect_type: Callable[..., Dialect]
    ) -> Callable[[HttpRequest], Any]:
        async def handle(http: HttpRequest) -> Response:
            try:
                ask = decode(await http.body(), ask_type)
                return await self._answer(ask, dialect_type)
            except RequestError as error:
                return refuse(error, http.url.path)
            except EngineDeadError:
                return refuse(RequestError(500, ENGINE_DEAD, "InternalServerError"), http.url.path)

        return handle

    async def _answer(self, ask: Ask, dialect_type: Callable[..., Dialect]) -> Response:
        self._check(ask)
        fault = self._faults.draw()
        await self._strike(fault)
        prompt = ask.prompt()
        generation = self._generation(ask, prompt)
        size = self.host.config.block_size
        hashes = block_hashes(prompt, size) if self.host.config.enable_prefix_caching else ()
        request = Request(len(prompt), generation.output_tokens, 0, hashes)
        ticket = self.host.submit(request, generation.finish_reason)
        dialect = dialect_type(generation, include_usage=ask.include_usage)
        answer = Answer(self.host, ticket, dialect, cut=fault == "cut")
        if ask.stream:
            return answer
        return await answer.whole()

    def _check(self, ask: Ask) -> None:
        if self.draining:
            raise RequestError(503, "The server is shutting down.", "ServiceUnavailableError")
        if ask.model and ask.model not in self.settings.served_model_names:
            raise RequestError(404, f"The model `{ask.model}` does not exist.", "NotFoundError")
        if (ask.n or 1) > 1:
            raise RequestError(400, "n above 1 is not simulated")

    async def _strike(self, fault: str | None) -> None:
        """What a fault does before the request is queued."""
        if fault == "429":
            raise RequestError(429, "Too many requests (injected fault).", "TooManyRequestsError")
        if fault == "503":
            raise RequestError(503, "Overloaded (injected fault).", "ServiceUnavailableError")
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        elif fault == "hang":
            await asyncio.Event().wait()
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "crash":
            self._on_death()

    def _generation(self, ask: Ask, prompt: list[str]) -> Generation:
        room = self.settings.max_model_len - len(prompt)
        limit = ask.output_limit
        if not prompt:
            raise RequestError(400, "the prompt is empty")
        if limit is not None and limit < 1:
            raise RequestError(400, f"max_tokens must be at least 1, got {limit}.")
        refusal = self.host.config.refusal(len(prompt), limit or 1)
        if refusal:
            raise RequestError(400, refusal)
        most = room if limit is None else limit
        natural = max(self._lengths.draw(self._rng), ask.min_tokens or 1)
        output = most if ask.ignore_eos and limit is not None else min(natural, most)
        share = self.settings.thinking_share if ask.thinks else 0.0
        return Generation(
            model=ask.model or self.settings.served_model_names[0],
            prompt_tokens=len(prompt),
            output_tokens=output,
            # Thinking comes first and is as long as the whole answer would have let it be.
            reasoning_tokens=min(output, round(share * max(natural if not ask.ignore_eos else 0, output))),
            finish_reason="length" if output == most else "stop",
            seed_text="".join(prompt[-8:]),
            stop=ask.stops,
        )


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
                body = refuse(RequestError(500, ENGINE_DEAD, "InternalServerError"), "").body
                closing = b"data: " + bytes(body) + b"\n\ndata: [DONE]\n\n"
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
