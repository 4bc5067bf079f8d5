"""The server's own counters, read from ``/metrics`` before and after a run."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

from qwenhost.probe.client import fetch
from qwenhost.probe.wire import Target, request_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.probe.clock import StampingSelector
    from qwenhost.probe.totals import Totals

# vLLM's names without "vllm:" and "_total".
COUNTED: Final = frozenset(
    {
        "prompt_tokens",
        "prompt_tokens_cached",
        "generation_tokens",
        "prefix_cache_queries",
        "prefix_cache_hits",
        "num_preemptions",
        "request_success",
        "spec_decode_num_drafts",
        "spec_decode_num_draft_tokens",
        "spec_decode_num_accepted_tokens",
    }
)
_LINE = re.compile(
    r'^vllm:([a-z_]+?)(?:_total)?(?:\{(?:[^"}\n]|"(?:\\.|[^"\\\n])*")*\})?'
    r"[ \t]+(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?=\s|$)",
    re.MULTILINE,
)
"""Name, labels (whose values may hold braces), and a count; ``NaN`` and what is no number are passed over."""
_SETTLE_TRIES: Final = 20
_SETTLE_WAIT_S: Final = 0.1


def parse_counters(text: str) -> dict[str, float]:
    """VLLM's counters, summed over engines and label values."""
    found: dict[str, float] = {}
    for name, value in _LINE.findall(text):
        if name in COUNTED:
            found[name] = found.get(name, 0.0) + float(value)
    return found


async def read_counters(
    target: Target, selector: StampingSelector, headers: Sequence[tuple[str, str]] = ()
) -> dict[str, float]:
    """Counters once two readings in a row agree; empty where there is no ``/metrics``.

    vLLM books a request's end a moment after its last byte left.
    """
    last: dict[str, float] = {}
    for _ in range(_SETTLE_TRIES):
        answer = await fetch(target, selector, request_bytes(target, "GET", "/metrics", headers=headers))
        if answer.error is not None or answer.status != 200:
            return {}
        current = parse_counters(bytes(answer.body).decode(errors="replace"))
        if not current or current == last:
            return current
        last = current
        await asyncio.sleep(_SETTLE_WAIT_S)
    return last


def summed(readings: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Counters of several servers together; empty where one of them has none."""
    if not all(readings):
        return {}
    names = {name for reading in readings for name in reading}
    return {name: sum(reading.get(name, 0.0) for reading in readings) for name in names}


def counter_deltas(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What one server counted in between, with the rates that follow from it.

    Empty where there is nothing to compare, or a counter fell: the server was started anew.
    """
    if not before or any(after.get(name, 0.0) < value for name, value in before.items()):
        return {}
    return with_rates({name: after[name] - before.get(name, 0.0) for name in sorted(after)})


def with_rates(deltas: dict[str, float]) -> dict[str, float]:
    """Counts with the rates that follow from them, in place of any they had."""
    if deltas.get("prefix_cache_queries"):
        deltas["prefix_cache_hit_rate"] = (
            deltas.get("prefix_cache_hits", 0.0) / deltas["prefix_cache_queries"]
        )
    if deltas.get("spec_decode_num_draft_tokens"):
        accepted = deltas.get("spec_decode_num_accepted_tokens", 0.0)
        deltas["spec_decode_acceptance_rate"] = accepted / deltas["spec_decode_num_draft_tokens"]
        if deltas.get("spec_decode_num_drafts"):
            deltas["spec_decode_acceptance_length"] = 1 + accepted / deltas["spec_decode_num_drafts"]
    return deltas


def disagreement(totals: Totals, deltas: Mapping[str, float]) -> str | None:
    """In what the server's counters differ from the sum of its usage reports; None if they agree.

    Only comparable when every request ended well and nobody else used the server.
    """
    if not totals.sent or totals.failed:
        return None
    if deltas.get("request_success") != totals.sent:
        return None
    pairs = (
        ("prompt_tokens", totals.input_tokens),
        ("generation_tokens", totals.output_tokens),
    )
    wrong = [
        f"{name}: /metrics {deltas[name]:.0f}, usage {total}"
        for name, total in pairs
        if name in deltas and deltas[name] != total
    ]
    return "; ".join(wrong) or None


def others_used_the_server(totals: Totals, deltas: Mapping[str, float]) -> bool:
    """Whether more requests ended on the server than we sent."""
    return deltas.get("request_success", 0.0) > totals.sent
