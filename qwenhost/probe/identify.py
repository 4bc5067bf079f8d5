"""Who answers: server, version, model, and whether it is a simulation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.files import NOT_JSON
from qwenhost.measurements import Server
from qwenhost.probe.bodies import Ask, request_body
from qwenhost.probe.client import fetch
from qwenhost.probe.clock import StampingSelector
from qwenhost.probe.content import TextPool, TokenFit, fit_tokens, sample_words
from qwenhost.probe.endpoints import PATHS, Endpoint, decoder
from qwenhost.probe.sse import events
from qwenhost.probe.wire import Target, request_bytes

if TYPE_CHECKING:
    from qwenhost.probe.exchange import Exchange

_SIMULATED_HEADER = b"x-qwenhost-simulated"
_FEW_WORDS, _MANY_WORDS = 50, 2000

Headers = Iterable[tuple[str, str]]


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What the server says of itself."""

    server: Server
    max_model_len: int | None

    @property
    def speaks_vllm(self) -> bool:
        """Whether vLLM's own request fields are understood."""
        return self.server.name in ("vllm", "simulated")


class _Card(msgspec.Struct):
    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    simulated: bool = False


class _Models(msgspec.Struct):
    data: list[_Card]


async def identify(
    target: Target,
    selector: StampingSelector,
    headers: Headers,
    *,
    model: str | None,
    anthropic: bool = False,
) -> Identity:
    """Ask ``/v1/models`` and ``/version``.

    Raises:
        UnavailableError: nobody answers, or the key is refused.
        BadInputError: the model is not served, or cannot be found out.
    """
    headers = list(headers)
    answer = await fetch(target, selector, request_bytes(target, "GET", "/v1/models", headers=headers))
    _check(target, answer, "ANTHROPIC_API_KEY" if anthropic else "QWENHOST_API_KEY")
    cards = _cards(answer)
    if model is None and not cards:
        raise BadInputError(f"{target.origin} does not list its models", remedy="Name one with --model.")
    card = next((c for c in cards if c.id == model), cards[0] if model is None else None)
    vllm = any(c.owned_by == "vllm" for c in cards)
    if card is None and vllm:
        listed = ", ".join(c.id for c in cards)
        raise BadInputError(f"--model {model}: not served by {target.origin}", remedy=f"It serves: {listed}.")
    simulated = _SIMULATED_HEADER in answer.headers or any(c.simulated for c in cards)
    said = "anthropic" if anthropic else answer.headers.get(b"server", b"").decode(errors="replace")
    owner = cards[0].owned_by if cards else ""
    return Identity(
        server=Server(
            name="simulated" if simulated else "vllm" if vllm else owner or said or "unknown",
            version=None if anthropic else await _version(target, selector, headers),
            model=model or cards[0].id,
            url=target.origin,
            simulated=simulated,
        ),
        max_model_len=card.max_model_len if card else None,
    )


def _check(target: Target, answer: Exchange, variable: str) -> None:
    if answer.error is not None:
        raise UnavailableError(
            f"{target.origin} does not answer: {answer.error}"
            + (f" ({answer.detail})" if answer.detail else ""),
            remedy="Start a server with: qwenhost serve, or check the address.",
        )
    if answer.status in (401, 403):
        raise UnavailableError(
            f"{target.origin} refused the key (HTTP {answer.status})",
            remedy=f"Set {variable} or give --api-key-file.",
        )
    if answer.status >= 500:
        raise UnavailableError(
            f"{target.origin} answers HTTP {answer.status}", remedy="Look at the server's log."
        )


def _cards(answer: Exchange) -> list[_Card]:
    if answer.status != 200:
        return []
    try:
        return msgspec.json.decode(bytes(answer.body), type=_Models).data
    except NOT_JSON:
        return []


async def _version(target: Target, selector: StampingSelector, headers: Headers) -> str | None:
    answer = await fetch(target, selector, request_bytes(target, "GET", "/version", headers=headers))
    if answer.error is not None or answer.status != 200:
        return None
    try:
        return msgspec.json.decode(bytes(answer.body), type=dict[str, Any]).get("version")
    except NOT_JSON:
        return None


# --------------------------------------------------------------------------- tokens per word


class Sampler(msgspec.Struct, frozen=True, kw_only=True):
    """Counts the tokens of texts with the server's help."""

    target: Target
    selector: StampingSelector
    headers: list[tuple[str, str]]
    endpoint: Endpoint
    timeout_s: float
    anthropic: bool = False

    async def tokenize(self, ask: Ask) -> int | None:
        """VLLM's ``/tokenize``, or Claude's ``count_tokens``, which is free; None where there is none."""
        if self.anthropic:
            return await self.count_tokens(ask)
        body: dict[str, Any] = {"model": ask.model}
        if self.endpoint == "completions":
            body["prompt"] = ask.prompt
        else:
            body["messages"] = [{"role": "user", "content": ask.prompt}]
            if ask.thinking is not None:
                body["chat_template_kwargs"] = {"enable_thinking": ask.thinking}
        answer = await self._post("/tokenize", msgspec.json.encode(body))
        if answer is None:
            return None
        try:
            count = msgspec.json.decode(bytes(answer.body), type=dict[str, Any]).get("count")
        except NOT_JSON:
            return None
        return count if isinstance(count, int) else None

    async def count_tokens(self, ask: Ask) -> int | None:
        """Prompt tokens by ``/v1/messages/count_tokens``; None where there is none."""
        whole: dict[str, Any] = msgspec.json.decode(request_body("messages", ask))
        body = {key: whole[key] for key in whole if key not in ("stream", "max_tokens", "temperature")}
        answer = await self._post(f"{PATHS['messages']}/count_tokens", msgspec.json.encode(body))
        if answer is None:
            return None
        try:
            count = msgspec.json.decode(bytes(answer.body), type=dict[str, Any]).get("input_tokens")
        except NOT_JSON:
            return None
        return count if isinstance(count, int) else None

    async def usage(self, ask: Ask) -> int | None:
        """Prompt tokens that a request's answer reports; None where it reports none."""
        answer = await self._post(PATHS[self.endpoint], request_body(self.endpoint, ask))
        if answer is None:
            return None
        stream = decoder(self.endpoint)
        for arrival, data in events(answer.body, answer.times, answer.ends):
            stream.feed(arrival, data)
        return stream.prompt_tokens

    async def _post(self, path: str, body: bytes) -> Exchange | None:
        payload = request_bytes(self.target, "POST", path, headers=self.headers, body=body)
        answer = await fetch(self.target, self.selector, payload, timeout_s=self.timeout_s)
        return answer if answer.error is None and answer.status == 200 else None


async def tokens_of_images(sampler: Sampler, ask: Ask) -> float | None:
    """Prompt tokens that a request's pictures make: with them less without; None where it cannot be told."""
    count_of = sampler.count_tokens if sampler.anthropic else sampler.usage
    shown = await count_of(ask)
    hidden = await count_of(msgspec.structs.replace(ask, images=()))
    if shown is None:
        raise UnavailableError(
            f"{sampler.target.origin}: a request with pictures was not answered",
            remedy="Does the model take pictures? vLLM does not with --language-model-only.",
        )
    return None if hidden is None else float(shown - hidden)


async def calibrate(
    sampler: Sampler, pool: TextPool, *, model: str, input_tokens: float, seed: int, thinking: bool | None
) -> TokenFit:
    """Tokens per word of our text: from ``/tokenize``, else from the usage of two one-token requests.

    Args:
        sampler: counts.
        pool: the text.
        model: whose tokenizer.
        input_tokens: what prompts will hold; the longer sample has about half of it.
        seed: of the run.
        thinking: changes the chat template's share.
    """
    many = max(2 * _FEW_WORDS, min(_MANY_WORDS, round(input_tokens / 2)))
    samples = sample_words(pool, seed, (_FEW_WORDS, many))
    for count_of, source in (
        (sampler.tokenize, "the server's /tokenize"),
        (sampler.usage, "usage of two short requests"),
    ):
        counts: list[tuple[int, int]] = []
        for words, text in samples:
            ask = Ask(
                model=model, prompt=text, max_tokens=1, thinking=thinking, anthropic=sampler.anthropic
            )  # fmt: skip
            tokens = await count_of(ask)
            if not tokens:
                break
            counts.append((words, tokens))
        if len(counts) == len(samples):
            return fit_tokens(counts[0], counts[1], source)
    return TokenFit()
