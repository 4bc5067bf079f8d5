"""A plan read from a file, and the options that come too late for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click
from click.core import ParameterSource

from qwenhost.errors import BadInputError
from qwenhost.plan import Pins, load_plan

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from qwenhost.plan import Plan

DECIDED: Final = frozenset(Pins.__struct_fields__) | {"gpus", "interconnect", "objective", "available_kv_gib"}
"""Parameters by which a plan is made."""
SIZED: Final = frozenset(
    {"workload", "input_tokens", "output_tokens", "prefix_hit", "slo_ttft_ms", "slo_tpot_ms"}
)
"""Those that say for which requests."""
LOADED: Final = frozenset({"concurrency", "rate"})


def saved_plan(path: Path, *, also: Collection[str] = ()) -> Plan:
    """The plan of a file; what it has decided cannot be asked for beside it.

    Args:
        path: of the file.
        also: further parameters of the running command that have no effect on a saved plan.

    Raises:
        BadInputError: an option without effect was given, or the file is no plan.
    """
    refuse_what_is_decided(path, also=also)
    return load_plan(path)


def refuse_what_is_decided(path: Path, *, also: Collection[str] = ()) -> None:
    """Refuse options that would have no effect beside a saved plan: the user believes that they have one.

    Raises:
        BadInputError: names them.
    """
    context = click.get_current_context(silent=True)
    given = [] if context is None else given_options(context, DECIDED | set(also))
    if given:
        raise BadInputError(
            f"{', '.join(given)}: {path} has decided that",
            remedy="Leave it out, or leave the plan out to have another one made.",
        )


def asked(context: click.Context, names: Collection[str]) -> bool:
    """Whether one of these parameters stands on the command line."""
    return bool(given_options(context, names))


def given_options(context: click.Context, names: Collection[str]) -> list[str]:
    """The options of these parameters that stand on the command line, as the user knows them."""
    return [
        param.opts[0]
        for param in context.command.params
        if param.name in names and context.get_parameter_source(param.name) is ParameterSource.COMMANDLINE
    ]
