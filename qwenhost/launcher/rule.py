"""What a text in the log means: a pattern, a remedy, and what may help."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

Trigger = Literal[
    "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
]
"""The triggers of ``qwenhost.plan.Fallback``."""


class Rank(IntEnum):
    """Which line is believed first: a known cause, any exception, a known consequence, a wrapper."""

    CAUSE = 0
    EXCEPTION = 1
    CONSEQUENCE = 2
    WRAPPER = 3


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A text, what it means and what may help."""

    kind: str
    pattern: re.Pattern[str]
    remedy: str
    """Formatted with the pattern's groups."""
    trigger: Trigger | None = None
    graphs_trigger: Trigger | None = None
    """Taken instead of ``trigger`` while graphs are captured."""
    transient: bool = False
    bad_input: bool = False
    rank: Rank = Rank.CAUSE


def rule(
    kind: str,
    pattern: str,
    remedy: str,
    *,
    trigger: Trigger | None = None,
    graphs_trigger: Trigger | None = None,
    transient: bool = False,
    bad_input: bool = False,
    rank: Rank = Rank.CAUSE,
) -> Rule:
    """A rule of a table."""
    return Rule(
        kind=kind,
        pattern=re.compile(pattern),
        remedy=remedy,
        trigger=trigger,
        graphs_trigger=graphs_trigger,
        transient=transient,
        bad_input=bad_input,
        rank=rank,
    )
