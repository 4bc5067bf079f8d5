"""Flags as a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.render.flags import vllm_flags

if TYPE_CHECKING:
    from qwenhost.plan import Candidate
    from qwenhost.render.flags import Flags


def vllm_argv(
    candidate: Candidate, *, model: str | None = None, host: str | None = None, port: int | None = None
) -> list[str]:
    """``["vllm", "serve", repo_id, ...]``: every flag explicit, in a stable order, ready to execute.

    Args:
        candidate: what to run.
        model: a local folder or another hub id in place of the checkpoint's; then no revision is pinned.
        host: address to listen on; 127.0.0.1 unless given.
        port: 8000 unless given.

    Raises:
        BadInputError: ``extra`` holds a secret, repeats a named argument, or is not a flag's name.
    """
    flags = vllm_flags(candidate, model=model, host=host, port=port)
    return ["vllm", "serve", *argv_of(flags)]


def argv_of(flags: Flags) -> list[str]:
    """The model as positional argument, then the flags."""
    rest = dict(flags)
    argv = [str(rest.pop("model"))] if "model" in rest else []
    for name, value in rest.items():
        argv += _words(name, value)
    return argv


def option(name: str, *, value: bool = True) -> str:
    """``enable_prefix_caching`` as ``--enable-prefix-caching`` or ``--no-enable-prefix-caching``."""
    return f"--{'' if value else 'no-'}{name.replace('_', '-')}"


def text_of(value: Any) -> str:
    """One value as vLLM's parser reads it: JSON for mappings and lists, the plain text otherwise."""
    if isinstance(value, bool | Mapping) or (isinstance(value, Sequence) and not isinstance(value, str)):
        return msgspec.json.encode(value).decode()
    return str(value)


def _words(name: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [option(name, value=value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [option(name), *(text_of(item) for item in value)] if value else []
    text = text_of(value)
    # argparse takes a word that begins with a dash for another option.
    return [f"{option(name)}={text}"] if text.startswith("-") else [option(name), text]
