"""vLLM's HTTP API over a simulated engine, as a Starlette application."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from qwenhost.simulate.answer import Answer, engine_dead
from qwenhost.simulate.checks import check
from qwenhost.simulate.dialects import Chat, Completions
from qwenhost.simulate.engine import Request
from qwenhost.simulate.generation import Generation
from qwenhost.simulate.load import Sizes
from qwenhost.simulate.messages import Messages
from qwenhost.simulate.realtime import EngineDeadError
from qwenhost.simulate.replies import KeyGuard, json_response, no_route, read_body, refuse
from qwenhost.simulate.requests import (
    ChatAsk,
    CompletionAsk,
    CountAsk,
    DetokenizeAsk,
    MessagesAsk,
    RequestError,
    ResponsesAsk,
    TokenizeAsk,
    decode,
)
from qwenhost.simulate.responses import Responses
from qwenhost.simulate.text import block_hashes, token_id, token_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request as HttpRequest
    from starlette.types import ASGIApp

    from qwenhost.facts import TokenStats
    from qwenhost.simulate.dialects import Dialect
    from qwenhost.simulate.faults import Faults
    from qwenhost.simulate.realtime import Host
    from qwenhost.simulate.requests import Ask

SLOW_S = 2.0
RETRY_AFTER_S = 1


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
            Route("/load", self._load),
            Route("/metrics", self._metrics),
            Route("/v1/models", self._models),
            Route("/tokenize", self._json(self._tokenize), methods=["POST"]),
            Route("/detokenize", self._json(self._detokenize), methods=["POST"]),
            Route("/v1/messages/count_tokens", self._json(self._count_tokens), methods=["POST"]),
        ]
        app: ASGIApp = Starlette(routes=routes, exception_handlers={HTTPException: no_route})
        return KeyGuard(app, self.settings.api_keys) if self.settings.api_keys else app

    # ------------------------------------------------------------------ plain answers

    async def _health(self, _: HttpRequest) -> Response:
        return Response(status_code=503 if self.host.dead else 200)

    async def _version(self, _: HttpRequest) -> Response:
        return json_response({"version": self.settings.vllm_version, "simulated": True})

    async def _load(self, _: HttpRequest) -> Response:
        return json_response({"server_load": self.host.in_flight})

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

    def _json(self, answer: Callable[[bytes], Any]) -> Callable[[HttpRequest], Any]:
        """A handler of JSON that waits for no engine."""

        async def handle(http: HttpRequest) -> Response:
            try:
                return json_response(answer(await read_body(http)))
            except RequestError as error:
                return refuse(error, http.url.path)

        return handle

    def _tokenize(self, body: bytes) -> dict[str, Any]:
        ask = decode(body, TokenizeAsk)
        self._check_model(ask.model)
        tokens = ask.prompt()
        return {
            "count": len(tokens),
            "max_model_len": self.settings.max_model_len,
            "tokens": [token_id(token) for token in tokens],
            "token_strs": tokens if ask.return_token_strs else None,
        }

    def _detokenize(self, body: bytes) -> dict[str, Any]:
        ask = decode(body, DetokenizeAsk)
        self._check_model(ask.model)
        return {"prompt": " ".join(map(token_text, ask.tokens))}

    def _count_tokens(self, body: bytes) -> dict[str, Any]:
        ask = decode(body, CountAsk)
        check(ask)
        self._check_model(ask.model)
        count = len(ask.prompt())
        return {"input_tokens": count, "context_management": {"original_input_tokens": count}}

    # ------------------------------------------------------------------ generation

    def _generator(
        self, ask_type: type[Ask], dialect_type: Callable[..., Dialect]
    ) -> Callable[[HttpRequest], Any]:
        async def handle(http: HttpRequest) -> Response:
            try:
                ask = decode(await read_body(http), ask_type)
                return await self._answer(ask, dialect_type)
            except RequestError as error:
                return refuse(error, http.url.path)
            except EngineDeadError:
                return refuse(engine_dead(), http.url.path)

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
        ticket = self.host.submit(request, generation.finish_reason, generation.limit)
        dialect = dialect_type(generation, ask)
        answer = Answer(self.host, ticket, dialect, cut=fault == "cut")
        if ask.stream:
            return answer
        return await answer.whole()

    def _check(self, ask: Ask) -> None:
        if self.draining:
            raise RequestError(503, "The server is shutting down.", "ServiceUnavailableError")
        check(ask)
        self._check_model(ask.model)

    def _check_model(self, model: str | None) -> None:
        if model and model not in self.settings.served_model_names:
            message = f"The model `{model}` does not exist."
            raise RequestError(404, message, "NotFoundError", param="model")

    async def _strike(self, fault: str | None) -> None:
        """What a fault does before the request is queued."""
        if fault == "429":
            message = "Too many requests (injected fault)."
            raise RequestError(429, message, "TooManyRequestsError", retry_after_s=RETRY_AFTER_S)
        if fault == "503":
            message = "Overloaded (injected fault)."
            raise RequestError(503, message, "ServiceUnavailableError", retry_after_s=RETRY_AFTER_S)
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
            limit=most,
        )
