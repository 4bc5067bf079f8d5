"""A tokenizer from its files: ``tokenizer.json`` and the chat template beside it."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, Final

import jinja2
import msgspec
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwenhost.errors import BadInputError
from qwenhost.files import NOT_JSON

try:
    import tokenizers
except ImportError:  # An extra: most users count with a running endpoint.
    tokenizers = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.probe.bodies import Message

_CHATML: Final = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


class LocalCounter:
    """Counts with a tokenizer's files, without a server and without transformers.

    Args:
        path: ``tokenizer.json``, or the folder that holds it.

    Raises:
        BadInputError: no such file, not a tokenizer, or the ``tokenizers`` library is missing.
    """

    def __init__(self, path: Path) -> None:
        if tokenizers is None:
            raise BadInputError(
                "--tokenizer needs the tokenizers library",
                remedy="Run: pip install 'qwenhost[tokenizer]', or count with a server: --url URL",
            )
        self.path = path / "tokenizer.json" if path.is_dir() else path
        if not self.path.is_file():
            raise BadInputError(f"--tokenizer {self.path}: no such file", remedy="Name a tokenizer.json.")
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(self.path))
        except Exception as error:  # tokenizers raises nothing more precise.
            raise BadInputError(
                f"--tokenizer {self.path}: {error}", remedy="Name a tokenizer.json."
            ) from error
        source = _template_beside(self.path)
        self.warnings = () if source else ("no chat template beside the tokenizer: ChatML was taken",)
        try:
            self._template = _environment().from_string(source or _CHATML)
        except jinja2.TemplateError as error:
            raise BadInputError(f"{self.path.parent}: chat template: {error}") from error

    async def prompt(self, messages: list[Message]) -> int:
        """With the template and its generation prompt.

        Raises:
            BadInputError: the template refuses the messages.
        """
        try:
            text = self._template.render(messages=messages, add_generation_prompt=True)
        except (jinja2.TemplateError, ValueError, TypeError) as error:
            raise BadInputError(f"{self.path.parent}: chat template: {error}") from error
        return len(self._tokenizer.encode(text, add_special_tokens=False))

    async def answer(self, text: str) -> int:
        """The plain text."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))


def _template_beside(path: Path) -> str | None:
    """As transformers looks for it: a file of its own, else a key of the configuration."""
    try:
        return (path.parent / "chat_template.jinja").read_text(encoding="utf-8")
    except OSError:
        pass
    try:
        found = msgspec.json.decode((path.parent / "tokenizer_config.json").read_bytes()).get("chat_template")
    except (OSError, *NOT_JSON):
        return None
    return found if isinstance(found, str) else None


def _environment() -> ImmutableSandboxedEnvironment:
    """What chat templates are written for."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: dt.datetime.now().astimezone().strftime(form)
    return environment


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
