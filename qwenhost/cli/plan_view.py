"""A plan on a terminal: the choice, three numbers, speed, money, command, what next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from qwenhost.planner.explain import explain
from qwenhost.units import format_gib, format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import RenderableType

    from qwenhost.plan import Candidate, Estimate, Plan

NOTES_SHOWN: Final = 3


def blocks(plan: Plan, *, top: int, with_reasons: bool, saved: Path | None) -> Iterator[RenderableType]:
    """The first screen, from the choice to what to do next."""
    chosen, inputs = plan.chosen, plan.inputs
    yield Text(f"{inputs.node.description}, {inputs.workload}, objective {inputs.objective}", style="dim")
    yield Text(f"{chosen.checkpoint.repo_id}  {chosen.parallelism.label}", style="bold")
    yield _table(_rows(plan))
    shown = chosen.notes if with_reasons else chosen.notes[:NOTES_SHOWN]
    yield from (Text(f"- {note}", style="dim") for note in shown)
    if len(shown) < len(chosen.notes):
        yield Text(f"- {len(chosen.notes) - len(shown)} more notes with --explain", style="dim")
    if with_reasons:
        for title, lines in explain(plan):
            if lines:
                yield Text(f"\n{title}", style="bold")
                yield from map(_wrapped, lines)
    if chosen.formula is not None:
        from qwenhost.cli.plan_simulated import comparison

        yield Text("\nSimulated engine and closed formula", style="bold")
        yield comparison(plan)
    elif not with_reasons and top and plan.alternatives:
        yield Text("\nAlternatives, best first", style="bold")
        yield _alternatives(plan.alternatives[:top])
    yield Text("\nCommand", style="bold")
    yield _command(chosen)
    yield Text(_next(saved, with_reasons=with_reasons), style="dim")


def _wrapped(line: str) -> RenderableType:
    """A sentence wraps; a line of aligned figures stays as it is."""
    return line if line.startswith(" ") or "  " in line else Text(line)


def _rows(plan: Plan) -> Iterator[tuple[str, str]]:
    chosen, speed = plan.chosen, plan.chosen.estimate
    args, memory = chosen.engine_args, chosen.memory_per_gpu
    typical = round(
        plan.inputs.workload_detail.input_tokens.mean + plan.inputs.workload_detail.output_tokens.mean
    )
    yield "context per request", f"{args.max_model_len:,} tokens"
    at_typical = f"{chosen.concurrency_at_workload:,} of {typical:,} tokens"
    yield "requests at once", f"{at_typical}, {chosen.concurrency_at_max_model_len:,.1f} of full context"
    spare = memory.total_bytes - memory.usable_bytes - memory.outside_bytes
    held = f"{format_gib(memory.weights_bytes)} weights, {format_gib(memory.kv_cache_bytes)} cache"
    headroom = format_gib(memory.margin_bytes + max(0, spare))
    yield "memory per GPU", f"{held}, {headroom} headroom of {format_gib(memory.total_bytes)}"
    yield "output", f"{_band(speed.output_tokens_per_s, 'tokens/s')} at {_count(speed.concurrency)} in flight"
    yield "prompts, cached too", _band(speed.input_tokens_per_s, "tokens/s")
    yield "first token", _band(speed.ttft_ms, "ms")
    yield "per token", _band(speed.tpot_ms, "ms")
    basis = speed.output_tokens_per_s
    yield "basis", f"{basis.basis}, bound by {basis.bound}; {basis.source}"
    yield "cost", _cost(plan)


def _cost(plan: Plan) -> str:
    chosen, price = plan.chosen, plan.inputs.gpu_price
    if chosen.usd_per_hour is None or price is None:
        return "no price known; give --gpu-price USD"
    output, blended = chosen.usd_per_mtok_output, chosen.usd_per_mtok_blended
    per_token = (
        f", {format_usd(output)} per million output tokens, {format_usd(blended)} per million of both"
        if output is not None and blended is not None
        else ""
    )
    source = f"{price.provider}, {price.tier}" + (f", {price.as_of}" if price.as_of else "")
    return f"{format_usd(chosen.usd_per_hour)}/h{per_token} ({source})"


def _table(rows: Iterator[tuple[str, str]]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for label, value in rows:
        table.add_row(label, Text(value))
    return table


def _alternatives(candidates: tuple[Candidate, ...]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("", "output tok/s", "first token", "per token", "in flight", "$/Mtok"):
        table.add_column(title, justify="left" if not title else "right")
    for one in candidates:
        speed, usd = one.estimate, one.usd_per_mtok_blended
        table.add_row(
            Text(one.label),
            f"{speed.output_tokens_per_s.value:,.0f}",
            f"{speed.ttft_ms.value:,.0f} ms",
            f"{speed.tpot_ms.value:,.1f} ms",
            _count(speed.concurrency),
            "" if usd is None else format_usd(usd),
        )
    return table


def _command(candidate: Candidate) -> str:
    env = [f"{name}={shlex.quote(value)}" for name, value in candidate.vllm_env.items()]
    return " ".join([*env, shlex.join(candidate.vllm_argv)])


def _next(saved: Path | None, *, with_reasons: bool) -> str:
    start = f"qwenhost serve {saved}" if saved else "add --save plan.json, then qwenhost serve plan.json"
    reasons = "" if with_reasons else "; --explain shows why and the arithmetic"
    return f"\nNext: {start}{reasons}."


def _band(estimate: Estimate, unit: str) -> str:
    digits = 0 if estimate.value >= 100 else 1
    text = f"{estimate.value:,.{digits}f} {unit}"
    if estimate.low == estimate.high:
        return text
    return f"{text} ({estimate.low:,.{digits}f} to {estimate.high:,.{digits}f})"


def _count(estimate: Estimate) -> str:
    return f"{estimate.value:,.0f}" if estimate.value >= 10 else f"{estimate.value:,.1f}"
