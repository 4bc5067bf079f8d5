"""Whether a run may be used, decided from what the client observed of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.measurements import RequestRecord, percentile
from qwenhost.probe.counters import disagreement, others_used_the_server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.probe.clock import LoopLag
    from qwenhost.probe.totals import Totals

SEND_LAG_MS: Final = 5.0
SEND_LAG_OF_TTFT: Final = 0.05
LOOP_LAG_MS: Final = 10.0
LOOP_LAG_OF_TTFT: Final = 0.10
BUSY_SHARE: Final = 0.90
DELIVERED: Final = 0.95
DELIVERED_SLACK_S: Final = 0.1
"""A schedule that took no longer than this beyond its plan was kept; single sends are judged apart."""
CPU_WAIT_SHARE: Final = 0.02
CPU_WAIT_OFTEN: Final = 0.05
"""Share of time without a core from which one arrival in twenty met it, as many as may be stamped late."""
CPU_WAIT_STARVED: Final = 0.5
"""Whoever lacks a core for as long as it would take to do all again is no instrument, however short each
wait was. At up to 0.35, with waits below a millisecond, medians were still within 1.3 ms of the truth."""
COUNT_TOLERANCE: Final = 0.01


def void_reason(
    records: Sequence[RequestRecord],
    totals: Totals,
    *,
    open_loop: bool,
    lag: LoopLag,
    counters: Mapping[str, float],
) -> str | None:
    """Why a run may not be used; None if it may. The first reason found, worst first.

    Args:
        records: finished requests, or an even sample of them.
        totals: of all of them.
        open_loop: whether requests were due whatever the server did.
        lag: how late the client's stamps can be.
        counters: deltas of the server's counters.
    """
    if not totals.sent:
        return "no request was sent"
    if not totals.completed:
        return f"no request succeeded ({', '.join(sorted(totals.by_error))})"
    if "client_limit" in totals.by_error:
        return "this machine ran out of sockets or descriptors; raise `ulimit -n`"
    # Of very many requests with few successes the sample may hold none: the fixed bounds then rule.
    ttft_p50 = percentile(sorted(record.ttft_ms or 0.0 for record in records if record.ok) or [0.0], 50)
    return (
        _late_sends(records, ttft_p50, tolerated=0.01 if open_loop else 0.05)
        or _late_stamps(lag, ttft_p50)
        or (_undelivered(totals) if open_loop else None)
        or _miscounted(totals, counters)
    )


def _late_sends(records: Sequence[RequestRecord], ttft_p50: float, *, tolerated: float) -> str | None:
    """One send in a hundred may be late in an open loop, one in twenty in a closed one; two in any."""
    bound = max(SEND_LAG_MS, SEND_LAG_OF_TTFT * ttft_p50)
    late = sum(record.send_lag_ms > bound for record in records)
    if late <= max(2, tolerated * len(records)):
        return None
    return f"the client sent {late} of {len(records)} requests more than {bound:.1f} ms late"


def _late_stamps(lag: LoopLag, ttft_p50: float) -> str | None:
    """One arrival in twenty may be stamped late; more, and the client was the bottleneck."""
    bound = max(LOOP_LAG_MS, LOOP_LAG_OF_TTFT * ttft_p50)
    if lag.busy_share > BUSY_SHARE:
        return f"the client was saturated: its event loop was busy {lag.busy_share:.0%} of the time"
    if lag.p95_ms > bound:
        return f"the client read late: p95 loop lag {lag.p95_ms:.1f} ms, allowed {bound:.1f} ms"
    share = f"the client was without a core for {lag.cpu_wait_share:.0%} of the time"
    if lag.cpu_wait_share > CPU_WAIT_STARVED:
        return f"others held this machine: {share}"
    if lag.cpu_wait_share > CPU_WAIT_OFTEN and lag.cpu_wait_ms > bound:
        return (
            f"others held this machine: {share}, {lag.cpu_wait_ms:.1f} ms at a time, allowed {bound:.1f} ms"
        )
    return None


def _undelivered(totals: Totals) -> str | None:
    """Compare how long the schedule was with how long sending it took."""
    planned = totals.last_due_s - totals.first_due_s
    taken = totals.last_sent_s - totals.first_sent_s
    if taken - planned <= DELIVERED_SLACK_S or planned / taken >= DELIVERED:
        return None
    return f"the client delivered {planned / taken:.0%} of the offered rate, allowed {DELIVERED:.0%}"


def _miscounted(totals: Totals, counters: Mapping[str, float]) -> str | None:
    differing = disagreement(totals, counters)
    if differing is None:
        return None
    reported = totals.output_tokens
    counted = counters.get("generation_tokens", float(reported))
    if abs(counted - reported) <= COUNT_TOLERANCE * max(counted, 1.0):
        return None
    return f"token counts disagree: {differing}"


def warnings(
    totals: Totals,
    *,
    lag: LoopLag,
    counters: Mapping[str, float],
    wanted_output: float | None,
    interrupted: int | None,
) -> list[str]:
    """What a reader should know although the run may be used.

    Args:
        totals: of all finished requests.
        lag: how late the client's stamps can be.
        counters: deltas of the server's counters.
        wanted_output: mean output tokens asked for, where the length was to be exact.
        interrupted: requests dropped at an interruption; None without one.
    """
    said = []
    if interrupted is not None:
        said.append(f"interrupted; {interrupted} requests in flight were dropped and are not counted")
    if others_used_the_server(totals, counters):
        said.append("others used the server during the run: its counters hold more requests than were sent")
    differing = disagreement(totals, counters)
    if differing:
        said.append(f"token counts differ: {differing}")
    completed = totals.completed
    if completed and totals.input_tokens == 0:
        said.append(
            "the server reported no usage: output tokens are counted as chunks, input tokens are unknown"
        )
    if completed and wanted_output:
        mean = totals.output_tokens / completed
        if abs(mean - wanted_output) > 0.05 * wanted_output:
            said.append(f"answers averaged {mean:.0f} tokens where {wanted_output:.0f} were asked for")
    if lag.p99_ms > LOOP_LAG_MS:
        said.append(f"this machine paused: the highest percentiles may be {lag.p99_ms:.0f} ms too high")
    if lag.cpu_wait_share > CPU_WAIT_SHARE:
        share = f"{lag.cpu_wait_share:.0%}"
        said.append(f"this machine was short of cores: the client waited for one {share} of the time")
    if totals.failed:
        said.append(f"{totals.failed} of {totals.sent} requests failed; latencies are of the others")
    return said
