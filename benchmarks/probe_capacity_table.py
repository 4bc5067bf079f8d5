"""The capacity benchmark's result as Markdown."""

from __future__ import annotations

from typing import Any, Final

from common import commit, machine

LIMITS_MS: Final = {"strict": 5.0, "lenient": 50.0}
"""Bounds on the 99th percentile of send lag."""
OURS: Final = "qwenhost"


def table(result: dict[str, Any]) -> str:
    """A row for each client, most sustained first, with the conditions below."""
    strict, lenient = LIMITS_MS["strict"], LIMITS_MS["lenient"]
    rows = result["clients"]
    our_cpu = rows.get(OURS, {}).get("cpu_us_per_token")
    body = []
    by_rate = sorted(rows.values(), key=lambda one: sorted(one["sustained_tokens_per_s"].values()))
    for one in reversed(by_rate):
        cpu = one["cpu_us_per_token"]
        times = f"{cpu / our_cpu:,.1f}" if cpu and our_cpu else "-"
        cells = [
            f"{one['client']} {one['version']}",
            *(_sustained(one, verdict) for verdict in LIMITS_MS),
            f"{cpu:,.0f} us" if cpu else "-",
            times,
            _error(one),
        ]
        body.append(f"| {' | '.join(cells)} |")
    head = ["client", f"tokens/s, send lag p99 < {strict:g} ms", f"< {lenient:g} ms", "client CPU per token"]
    head += ["times ours", "TTFT error, p50 / p99"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    lines += [*body, "", *_against_the_best(rows), f"{result['conditions']}. {_basis()}"]
    box = machine()
    lines.append(f"{box['cpu']}, Python {box['python']}, commit {commit()}.")
    if result["missing"]:
        lines.append(f"Not here, so not measured: {', '.join(result['missing'])}.")
    return "\n".join(lines) + "\n"


def _basis() -> str:
    return (
        "Sustained: that bound kept by the server's own log, all requests answered in full; for the tighter "
        "one the client must not call its run void either. TTFT error: reported less the server's own, at "
        "the highest level within the tighter bound, or else at the lowest tried."
    )


def _sustained(one: dict[str, Any], verdict: str) -> str:
    rate = one["sustained_tokens_per_s"][verdict]
    if rate:
        return f"{rate:,.0f}"
    return f"none ({min(level['offered_tokens_per_s'] for level in one['levels']):,.0f} failed)"


def _error(one: dict[str, Any]) -> str:
    kept = [level for level in one["levels"] if level["strict"]]
    error = (kept[-1] if kept else one["levels"][0]).get("ttft_error_ms")
    return "-" if error is None else "{p50:+.1f} / {p99:+.1f} ms".format(**error)


def _against_the_best(rows: dict[str, Any]) -> list[str]:
    """Ours against the best of the others in each column."""
    ours, others = rows.get(OURS), [one for name, one in rows.items() if name != OURS]
    if ours is None or not others:
        return []
    parts = []
    for verdict, limit in LIMITS_MS.items():
        best = max(others, key=lambda one: one["sustained_tokens_per_s"][verdict])
        theirs = best["sustained_tokens_per_s"][verdict]
        if theirs:
            times = ours["sustained_tokens_per_s"][verdict] / theirs
            parts.append(f"{times:,.0f} times the sustained rate of {best['client']} within {limit:g} ms")
    known = [one for one in others if one["cpu_us_per_token"]]
    if known and ours["cpu_us_per_token"]:
        thrifty = min(known, key=lambda one: one["cpu_us_per_token"])
        times = thrifty["cpu_us_per_token"] / ours["cpu_us_per_token"]
        parts.append(f"{times:,.0f} times as many tokens for the same CPU as {thrifty['client']}")
    return [f"Against the best of the others: {', '.join(parts)}.", ""] if parts else []
