"""A user's sample of requests, and who counts its tokens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.files import NOT_JSON
from qwenhost.probe.bodies import Ask, Message, request_body
from qwenhost.probe.client import fetch
from qwenhost.probe.endpoints import PATHS
from qwenhost.probe.own_prompts import Line, read_lines
from qwenhost.probe.wire import Target, request_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from qwenhost.probe.clock import StampingSelector
    from qwenhost.probe.exchange import Exchange

_TRIES: Final = 6
_LONGEST_WAIT_S: Final = 60.0
_ROLES: Final = {"human": "user", "user": "user", "system": "system"}
BUSY: Final = (429, 500, 502, 503, 529)


class SampleRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of the sample."""

    messages: list[Message]
    answer: str | None
    """As recorded; None where there is none."""


class TokenCounter(Protocol):
    """Counts tokens with one tokenizer."""

    async def prompt(self, messages: list[Message]) -> int:
        """Of a whole prompt, chat template included."""

    async def answer(self, text: str) -> int:
        """Of an answer alone."""


def read_sample(path: Path, *, most: int | None) -> tuple[list[SampleRequest], int]:
    """Requests of a file, and how many lines were left out because they hold more than text.

    Args:
        path: in one of the forms of ``probe --prompts``; a last message by the model is taken as the answer,
            as is ``"answer"`` on a line.
        most: so many at most, the first ones.

    Raises:
        BadInputError: unreadable, or nothing in it can be counted.
    """
    found, left_out = [], 0
    for line in read_lines(path)[:most]:
        messages = _messages_of(line)
        if not all(isinstance(message.get("content"), str) for message in messages):
            left_out += 1
            continue
        answer = line.answer
        while messages and messages[-1].get("role") == "assistant":
            answer = answer or messages[-1]["content"]
            messages = messages[:-1]
        if messages:
            found.append(SampleRequest(messages=messages, answer=answer or None))
    if not found:
        raise BadInputError(
            f"{path}: holds no request of plain text", remedy="See: qwenhost count-tokens --help"
        )
    return found, left_out


def _messages_of(line: Line) -> list[Message]:
    if line.messages is not None:
        return line.messages
    if line.prompt is not None:
        return [{"role": "user", "content": line.prompt}]
    said = line.conversations or []
    return [{"role": _ROLES.get(one.role, "assistant"), "content": one.value} for one in said]


async def count_sample(
    counter: TokenCounter, sample: Sequence[SampleRequest], on_counted: Callable[[int], None]
) -> tuple[list[int], list[int | None]]:
    """Tokens of each prompt, and of each answer that there is."""
    prompts: list[int] = []
    answers: list[int | None] = []
    for number, request in enumerate(sample, 1):
        prompts.append(await counter.prompt(request.messages))
        answers.append(None if request.answer is None else await counter.answer(request.answer))
        on_counted(number)
    return prompts, answers


class _HttpCounter:
    """Posts JSON and reads one number of the answer; waits where it is told to."""

    def __init__(self, target: Target, selector: StampingSelector, headers: list[tuple[str, str]]) -> None:
        self._target, self._selector, self._headers = target, selector, headers

    async def _count(self, path: str, body: bytes, field: str) -> int:
        payload = request_bytes(self._target, "POST", path, headers=self._headers, body=body)
        for attempt in range(_TRIES):
            answer = await fetch(self._target, self._selector, payload, timeout_s=60.0)
            if answer.error is None and answer.status in BUSY and attempt + 1 < _TRIES:
                await asyncio.sleep(min(answer.retry_after_s or 2.0**attempt, _LONGEST_WAIT_S))
            else:
                break
        return _number(self._target.origin + path, answer, field)


def _number(where: str, answer: Exchange, field: str) -> int:
    said = bytes(answer.body[:300]).decode(errors="replace")
    if answer.error is not None or answer.status != 200:
        reason = answer.detail or answer.error if answer.error else f"HTTP {answer.status} {said}"
        raise UnavailableError(
            f"{where}: {reason}", remedy="Check the address, the key and the model's name."
        )
    try:
        found = msgspec.json.decode(bytes(answer.body), type=dict[str, Any]).get(field)
    except NOT_JSON:
        found = None
    if not isinstance(found, int):
        raise UnavailableError(
            f"{where}: no {field!r} in {said!r}", remedy="Is this the endpoint that is meant?"
        )
    return found


class VllmCounter(_HttpCounter):
    """VLLM's ``/tokenize``: the served model's own tokenizer and chat template."""

    def __init__(
        self, target: Target, selector: StampingSelector, headers: list[tuple[str, str]], *, model: str
    ) -> None:
        super().__init__(target, selector, headers)
        self._model = model

    async def prompt(self, messages: list[Message]) -> int:
        """With the template and its generation prompt."""
        body = {"model": self._model, "messages": messages, "add_generation_prompt": True}
        return await self._count("/tokenize", msgspec.json.encode(body), "count")

    async def answer(self, text: str) -> int:
        """The plain text."""
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        return await self._count("/tokenize", msgspec.json.encode(body), "count")


class ClaudeCounter(_HttpCounter):
    """Claude's ``count_tokens``, which is free; an answer is counted as a message, less what wraps one."""

    def __init__(
        self, target: Target, selector: StampingSelector, headers: list[tuple[str, str]], *, model: str
    ) -> None:
        super().__init__(target, selector, headers)
        self._model = model
        self._wrapping: int | None = None

    async def prompt(self, messages: list[Message]) -> int:
        """With what the API puts around it."""
        ask = Ask(model=self._model, prompt="", messages=messages, max_tokens=1, anthropic=True)
        whole: dict[str, Any] = msgspec.json.decode(request_body("messages", ask))
        body = {key: whole[key] for key in whole if key not in ("stream", "max_tokens")}
        return await self._count(
            f"{PATHS['messages']}/count_tokens", msgspec.json.encode(body), "input_tokens"
        )

    async def answer(self, text: str) -> int:
        """Less the wrapping of a message of one letter."""
        if self._wrapping is None:
            self._wrapping = await self.prompt([{"role": "user", "content": "a"}]) - 1
        return max(1, await self.prompt([{"role": "user", "content": text}]) - self._wrapping)
