"""Definitions of tools to send along: generated ones, or the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON

if TYPE_CHECKING:
    from pathlib import Path

_VERBS: Final = ("read", "write", "search", "list", "create", "delete", "move", "compare")
_NOUNS: Final = ("file", "record", "order", "customer", "calendar", "ticket", "page", "report")
MOST_GENERATED: Final = len(_VERBS) * len(_NOUNS)
_REMEDY: Final = 'It holds a list of {"type": "function", "function": {"name": ..., "parameters": {...}}}.'

Tool = dict[str, Any]
"""A function in OpenAI's form: name, description, parameters."""


def generated_tools(count: int) -> tuple[Tool, ...]:
    """``count`` tools such as agents carry, at most 64; about 90 tokens each."""
    names = [(verb, noun) for noun in _NOUNS for verb in _VERBS]
    return tuple(_tool(verb, noun) for verb, noun in names[:count])


def _tool(verb: str, noun: str) -> Tool:
    return {
        "name": f"{verb}_{noun}",
        "description": f"{verb.capitalize()} a {noun}. Use it whenever the user's request needs this.",
        "parameters": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "description": f"Which {noun}."},
                "limit": {"type": "integer", "description": "How many results at most."},
            },
            "required": ["id"],
        },
    }


def read_tools(path: Path) -> tuple[Tool, ...]:
    """The user's tools from a JSON file, each wrapped in ``function`` or not.

    Raises:
        BadInputError: unreadable, or a tool without a name; names its place.
    """
    try:
        found = msgspec.json.decode(path.read_bytes(), type=list[dict[str, Any]])
    except OSError as error:
        raise BadInputError(f"--tools {path}: {error.strerror}", remedy=_REMEDY) from error
    except NOT_JSON as error:
        raise BadInputError(f"--tools {path}: {error}", remedy=_REMEDY) from error
    tools = tuple(tool.get("function", tool) for tool in found)
    for number, tool in enumerate(tools, 1):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise BadInputError(f"--tools {path}: tool {number} has no name", remedy=_REMEDY)
    if not tools:
        raise BadInputError(f"--tools {path}: no tools", remedy=_REMEDY)
    return tools
