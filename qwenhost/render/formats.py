"""The formats by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError
from qwenhost.render import container_formats, host_formats
from qwenhost.render.target import Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.plan import Plan

FORMATS: Final[dict[str, Callable[[Plan, Target], str]]] = {
    "argv": host_formats.argv_line,
    "config": host_formats.config_file,
    "env": host_formats.env_file,
    "docker": container_formats.docker_run,
    "compose": container_formats.compose_file,
    "systemd": host_formats.systemd_unit,
    "helm": container_formats.helm_values,
}

SEVERAL_ENGINES: Final = ("compose", "helm")
"""Formats that hold a plan with ``replicas``."""


def render(plan: Plan, fmt: str, target: Target | None = None) -> str:
    """The plan's chosen candidate in a format, provenance first, without any secret.

    Args:
        plan: what to run.
        fmt: one of :data:`FORMATS`.
        target: where it will run; loopback on port 8000 unless given.

    Raises:
        BadInputError: no such format, the plan holds a secret or a flag that cannot be, or has several
            engines where the format runs one.
    """
    if fmt not in FORMATS:
        raise BadInputError(f"format {fmt!r} is not known", remedy=f"Choose one of: {', '.join(FORMATS)}.")
    engines = plan.chosen.parallelism.replicas
    if engines > 1 and fmt not in SEVERAL_ENGINES:
        raise BadInputError(
            f"format {fmt} runs one engine, and the plan has {engines}",
            remedy=f"Choose {' or '.join(SEVERAL_ENGINES)}, or plan with --replicas 1.",
        )
    return FORMATS[fmt](plan, target or Target())
