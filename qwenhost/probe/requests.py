"""Prompts as bytes on the wire."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.probe.bodies import Ask, request_body
from qwenhost.probe.endpoints import PATHS
from qwenhost.probe.images import GeneratedImages, OwnImages, parse_size
from qwenhost.probe.wire import request_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.content import Prompt
    from qwenhost.probe.wire import Target


class Encoder:
    """Makes requests of prompts.

    Args:
        config: dialect, keys, tools, images.
        targets: the URLs.
        model: name to ask for.
        exact: whether answers go on to exactly the wanted length.
        seed: of the run; part of the request ids.
        cache: mark prompts for Claude's prompt cache.
    """

    def __init__(
        self,
        config: ProbeConfig,
        targets: Sequence[Target],
        *,
        model: str,
        exact: bool,
        seed: int,
        cache: bool = False,
    ) -> None:
        self._config, self._targets, self._model, self._exact, self._seed = (
            config,
            targets,
            model,
            exact,
            seed,
        )
        self._cache = cache
        self._headers = config.headers
        self._image: GeneratedImages | OwnImages | None = None
        if config.image_files:
            self._image = OwnImages(config.image_files)
        elif config.images:
            self._image = GeneratedImages(*parse_size(config.image_size), seed=seed)

    def ask(self, prompt: Prompt, index: int, *, at_most: int | None = None) -> Ask:
        """The request of a prompt, its answer no longer than ``at_most`` tokens."""
        config, image = self._config, self._image
        return Ask(
            model=self._model,
            prompt=prompt.text,
            messages=prompt.messages,
            max_tokens=prompt.max_tokens if at_most is None else min(at_most, prompt.max_tokens),
            exact_output=self._exact,
            thinking=config.thinking,
            temperature=config.temperature,
            images=tuple(image(index, number) for number in range(config.image_count)) if image else (),
            tools=config.tools,
            tool_choice=config.tool_choice,
            anthropic=config.anthropic,
            extra_body=config.extra_body,
            cache=self._cache,
        )

    def __call__(
        self, prompt: Prompt, index: int, *, replica: int | None = None, at_most: int | None = None
    ) -> bytes:
        """The same as bytes."""
        return request_bytes(
            self._targets[replica or 0],
            "POST",
            PATHS[self._config.endpoint],
            headers=[*self._headers, ("x-request-id", f"qwenhost-{self._seed:x}-{index}")],
            body=request_body(self._config.endpoint, self.ask(prompt, index, at_most=at_most)),
        )
