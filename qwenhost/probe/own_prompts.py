"""The user's own prompts and conversations from a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON
from qwenhost.probe.content import Prompt, nonce

if TYPE_CHECKING:
    from pathlib import Path

_CHARS_PER_TOKEN: Final = 4.0
"""Assumed, to turn a recorded answer into a length; English through today's tokenizers."""
_REMEDY: Final = (
    'Each line is {"prompt": "..."}, {"messages": [{"role": "user", "content": "..."}]} or a conversation as '
    'in ShareGPT files: {"conversations": [{"from": "human", "value": "..."}, ...]}; a JSON list will do too.'
)
_USERS: Final = ("human", "user")
_MODELS: Final = ("gpt", "assistant", "chatgpt", "bard", "bing", "model")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """What the user says, and how long the answer may be."""

    text: str
    max_tokens: int
    answer: str = ""
    """The recorded one, if any."""


class Said(msgspec.Struct):
    """One entry of a ShareGPT conversation."""

    role: str = msgspec.field(name="from")
    value: str


class Line(msgspec.Struct):
    """A line in one of the three forms."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    conversations: list[Said] | None = None
    max_tokens: int | None = None
    answer: str | None = None
    """As recorded; of use to ``count-tokens`` only."""


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    id: str
    function: _Function


class FilePrompts:
    """The user's own prompts from a file, in order, round and round; of a conversation its first turn.

    Args:
        path: JSON lines, or one JSON list, of prompts, messages or ShareGPT conversations.
        max_tokens: of an answer, where the line does not say and holds none.
        seed: opens every first message with a mark of this run and round, so that no cache has seen it;
            None sends the texts as they are, and a second run finds the first one's in the cache.

    Raises:
        BadInputError: unreadable, empty, or a line that is none of these; names the line.
    """

    def __init__(self, path: Path, *, max_tokens: int, seed: int | None = None) -> None:
        self.entries = read_lines(path)
        self._max_tokens, self._seed = max_tokens, seed

    def __getitem__(self, index: int) -> Prompt:
        entry = self.entries[index % len(self.entries)]
        if entry.conversations is not None:
            first = turns_of(entry, self._max_tokens)[0]
            return Prompt(text=self.mark(index) + first.text, max_tokens=first.max_tokens)
        return Prompt(
            text=self.mark(index) + (entry.prompt or ""),
            messages=None if entry.messages is None else _marked(entry.messages, self.mark(index)),
            max_tokens=entry.max_tokens or self._max_tokens,
        )

    def turns(self, session: int, most: int) -> list[Turn]:
        """Of a line, ``most`` at the most; the first one marked."""
        entry = self.entries[session % len(self.entries)]
        if entry.messages is not None:
            entry = _as_conversation(entry)
        found = turns_of(entry, self._max_tokens)
        if not found:
            raise BadInputError(
                f"entry {session % len(self.entries) + 1} of the prompts: the user says nothing in it",
                remedy=_REMEDY,
            )
        first, *others = found
        first = msgspec.structs.replace(first, text=self.mark(session) + first.text)
        return [first, *others][:most]

    def mark(self, index: int) -> str:
        """What opens the prompt: the same for all of a round, whose own sharing is part of the load."""
        return "" if self._seed is None else f"[{nonce(self._seed, index // len(self.entries))}] "


def read_lines(path: Path) -> list[Line]:
    """Every line of a file of prompts.

    Raises:
        BadInputError: unreadable, empty, or a line of another form; names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInputError(
            f"{path}: {error.strerror}", remedy="Name a JSONL file with one prompt a line."
        ) from error
    if content.lstrip()[:1] == b"[":
        found = _decode(content, list[msgspec.Raw], str(path))
        entries = [_parse(f"{path}, entry {number}", raw) for number, raw in enumerate(found, 1)]
    else:
        lines = enumerate(content.splitlines(), 1)
        entries = [_parse(f"{path}, line {number}", line) for number, line in lines if line.strip()]
    kept = [entry for entry in entries if entry.conversations is None or turns_of(entry, 1)]
    if not kept:
        raise BadInputError(f"{path}: no prompts", remedy='Write lines such as {"prompt": "..."}.')
    return kept


def turns_of(entry: Line, max_tokens: int) -> list[Turn]:
    """What the user said in a conversation, with the length of each recorded answer."""
    if entry.conversations is None:
        return [Turn(text=entry.prompt or "", max_tokens=entry.max_tokens or max_tokens)]
    said = entry.conversations
    found = []
    for place, one in enumerate(said):
        if one.role in _USERS and one.value:
            after = said[place + 1] if place + 1 < len(said) else None
            answer = after.value if after is not None and after.role in _MODELS else ""
            length = max(1, round(len(answer) / _CHARS_PER_TOKEN)) if answer else max_tokens
            found.append(Turn(text=one.value, max_tokens=entry.max_tokens or max(1, length), answer=answer))
    return found


def _parse(where: str, data: bytes | msgspec.Raw) -> Line:
    entry: Line = _decode(data, Line, where)
    if sum(part is not None for part in (entry.prompt, entry.messages, entry.conversations)) != 1:
        raise BadInputError(f"{where}: exactly one of prompt, messages and conversations", remedy=_REMEDY)
    if entry.messages is not None and not entry.messages:
        raise BadInputError(f"{where}: no messages", remedy=_REMEDY)
    for number, message in enumerate(entry.messages or (), 1):
        wrong = _wrong_with(message)
        if wrong is not None:
            raise BadInputError(f"{where}: message {number}: {wrong}", remedy=_REMEDY)
    return entry


def _wrong_with(message: dict[str, Any]) -> str | None:
    """What keeps a message from being written in all dialects; None if nothing does."""
    if not isinstance(message.get("role"), str):
        return "no role"
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        return "a result of a tool without tool_call_id"
    try:
        calls = msgspec.convert(message.get("tool_calls") or [], list[_Call])
        for call in calls:
            msgspec.json.decode(call.function.arguments or "{}", type=dict[str, Any])
    except (msgspec.ValidationError, *NOT_JSON) as error:
        return f"tool_calls: {error}"
    return None


def _decode(data: bytes | msgspec.Raw, kind: Any, where: str) -> Any:
    try:
        return msgspec.json.decode(data, type=kind)
    except NOT_JSON as error:
        raise BadInputError(f"{where}: {error}", remedy=_REMEDY) from error


def _as_conversation(entry: Line) -> Line:
    """Messages in OpenAI's form as a conversation; what is not plain text of user or model is left out."""
    said = [
        Said(role=str(message.get("role")), value=message["content"])
        for message in entry.messages or ()
        if isinstance(message.get("content"), str)
    ]
    return Line(conversations=said, max_tokens=entry.max_tokens)


def _marked(messages: list[dict[str, Any]], mark: str) -> list[dict[str, Any]]:
    """The mark put before the first message, be it text or parts."""
    first, *others = messages
    content = first.get("content")
    if isinstance(content, str):
        return [first | {"content": mark + content}, *others]
    if isinstance(content, list) and mark:
        return [first | {"content": [{"type": "text", "text": mark}, *content]}, *others]
    return messages
