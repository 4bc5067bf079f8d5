"""The simulator against strangers' measurements under load: closed loops and offered rates with prompts.

Sources give mean lengths only. Where the prompts are a named data set, a row is simulated with equal lengths
and with lengths drawn, spread as in the ``chat`` preset; and a third time, drawn, with two constants of its
steps from one other row of the same record, the one with the longest prompts: a factor on decoding, and
seconds added per prompt token. That tests the scheduler more than the speed model. The clients' rate, cap
and number of requests are the source's; a sweep that sends waves is simulated as a wave.

Decided after errors were seen: drawn lengths (equal ones move in lockstep, which no source with real prompts
does), the waves (read in the source's script), and the form of the calibration (scaling all that prompts
cost, by the row with the shortest, had not helped).

Bar: TTFT and TPOT off by 20 % in the median and by 35 % at the 90th percentile. Exit code 1 where missed.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any

from common import RESULTS, write_result
from speed_points import Point, points, step_model

from qwenhost.plan import StepShape
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Request
from qwenhost.simulate.load import Arrival, Sizes, arrival_times
from qwenhost.simulate.virtual import Labels, Simulation, Simulator, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from strangers import Record

MEDIAN_BAR, P90_BAR = 0.20, 0.35
FIRST_ASYNC_BY_DEFAULT = (0, 14)
REQUESTS_PER_USER = 12  # where a source does not say how many
# club-3090's scripts/concurrency-probe.sh: each round sends as many requests as it has streams, of one length
# and at once, waits for all, and tells the median over the streams of tokens over the time they came in.
WAVES = ("qwen36-35b-2x3090-concurrency-sweep",)
SEEDS = 5  # of the arrivals; the mean over them is compared
ROUNDS, DAMPING = 12, 0.5  # of fitting two constants to two latencies
VARIANTS = {"equal": "equal", "drawn": "drawn", "calibrated": "drawn, steps calibrated"}
FIGURES = ("output tok/s", "TPOT", "TTFT")
SPREAD = "chat"  # the preset whose spread of lengths is taken


@dataclass(frozen=True)
class Factors:
    """How far a record's steps are from the speed model's."""

    decode: float = 1.0
    prompt_token_s: float = 0.0


@dataclass(frozen=True)
class Line:
    """One figure of one row."""

    record: str
    row: int
    source: str
    load: str
    figure: str
    statistic: str
    measured: float
    equal: float
    drawn: float
    calibrated: float | None
    """Drawn, with the record's factors; None in the row they come from and where there are none."""

    def error(self, variant: str) -> float | None:
        """Of a variant, relative to the measurement."""
        value = getattr(self, variant)
        return None if value is None else value / self.measured - 1


def scheduler_config(record: Record) -> EngineConfig:
    """The record's engine as the simulator sees it: its flags, vLLM's defaults and the planned cache."""
    start = record.start
    figures = start.figures()
    version = tuple(int(part) for part in (record.version or "0.33").split(".")[:2])
    caching = start.launch.enable_prefix_caching
    return EngineConfig(
        max_model_len=figures.max_model_len,
        max_num_seqs=figures.max_num_seqs,
        max_num_batched_tokens=figures.max_num_batched_tokens,
        num_blocks=figures.num_blocks,
        block_size=figures.block_size,
        state_blocks_per_sequence=start.state_blocks,
        enable_prefix_caching=caching,
        async_scheduling=version >= FIRST_ASYNC_BY_DEFAULT,
    )


def step_seconds(record: Record, factors: Factors) -> Callable[[StepShape], float]:
    """Seconds of a step: what decodes is scaled, prompt tokens cost something more or less."""
    cost = step_model(record).cost

    def seconds(shape: StepShape) -> float:
        added = factors.prompt_token_s * shape.prefill_tokens
        if not shape.decode_sequences:
            return cost(shape).seconds + added
        alone = StepShape(
            decode_sequences=shape.decode_sequences, decode_context_tokens=shape.decode_context_tokens
        )
        decode = cost(alone).seconds
        return max(0.0, (factors.decode - 1) * decode + cost(shape).seconds + added)

    return seconds


def lengths(point: Point, seed: int, *, drawn: bool) -> Iterator[Request]:
    """Requests of the row's mean lengths."""
    prompt, output = max(1, round(point.input_tokens)), max(2, round(point.output_tokens))
    if not drawn or not _row(point)["workload"].get("dataset"):
        yield from repeat(Request(prompt, output))
    preset = point.record.catalog.workloads[SPREAD]
    rng = random.Random(seed)  # noqa: S311 - a model's draws
    prompts, outputs = Sizes(preset.input_tokens), Sizes(preset.output_tokens)
    prompts.mean, outputs.mean = prompt, output
    while True:
        yield Request(prompts.draw(rng), max(2, outputs.draw(rng)))


def simulated(point: Point, factors: Factors, seed: int, *, drawn: bool) -> Simulation:
    """The row's load."""
    work = _workload(point)
    simulator = Simulator(scheduler_config(point.record), step_seconds(point.record, factors), seed=seed)
    users, rate = work.get("concurrency"), work.get("request_rate")
    rounds = 1 if point.record.id in WAVES else REQUESTS_PER_USER
    count = int(work.get("num_prompts") or rounds * (users or 1))
    requests = lengths(point, seed, drawn=drawn)
    started = time.perf_counter()
    if users:
        # vLLM's client sends at its rate until the cap is reached: its users begin that far apart.
        ramp = int(users) / float(rate) if rate else 0.0
        simulator.closed_loop(requests, concurrency=int(users), count=count, ramp_s=ramp)
        load: dict[str, object] = {"kind": "closed", "concurrency": int(users)}
    else:
        due = islice(arrival_times("poisson", float(rate), seed), count)
        simulator.open_loop(Arrival(at, request) for at, request in zip(due, requests, strict=False))
        load = {"kind": "open", "rate": float(rate), "arrivals": "poisson"}
    labels = Labels(engine=point.record.id, gpus=point.group, workload=point.label, seed=seed)
    return summarise(simulator, labels, load, None, started)


def figures(point: Point, factors: Factors, *, drawn: bool = True) -> dict[tuple[str, str], float]:
    """(figure, statistic) -> value, the mean over the seeds."""
    runs = [simulated(point, factors, seed, drawn=drawn) for seed in range(SEEDS)]
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        found.setdefault(("output tok/s", "mean"), []).append(run.output_tokens_per_s)
        for name, row in (("TTFT", run.ttft_ms), ("TPOT", run.tpot_ms)):
            for statistic, value in (("mean", row.mean), ("median", row.p50), ("p99", row.p99)):
                if value is not None:
                    found.setdefault((name, statistic), []).append(value)
    return {key: statistics.mean(values) for key, values in found.items()}


def measured(point: Point) -> dict[tuple[str, str], float]:
    """What the source printed: all statistics of a latency, and the rate."""
    row = _row(point)
    found: dict[tuple[str, str], float] = {}
    for name, key in (("TTFT", "ttft_ms"), ("TPOT", "tpot_ms")):
        values = row.get(key)
        if isinstance(values, dict):
            found |= {(name, s): float(values[s]) for s in ("mean", "median", "p99") if values.get(s)}
    if ("TPOT", "mean") not in found and point.tpot_s:
        found["TPOT", "median" if point.record.id in WAVES else "mean"] = 1000 * point.tpot_s
    if row.get("output_tok_s"):
        found["output tok/s", "mean"] = float(row["output_tok_s"])
    elif point.output_tok_s:
        found["output tok/s", "mean"] = point.output_tok_s
    return found


def calibration_points(taken: list[Point]) -> dict[str, Point]:
    """The row of each record its factors come from: both mean latencies given, the longest prompts."""
    found: dict[str, Point] = {}
    for point in taken:
        got = measured(point)
        before = found.get(point.record.id)
        if {("TTFT", "mean"), ("TPOT", "mean")} <= set(got) and (
            before is None or point.input_tokens > before.input_tokens
        ):
            found[point.record.id] = point
    return found


def fitted(point: Point) -> Factors:
    """Factors at which the simulated mean latencies are the measured ones."""
    target, factors = measured(point), Factors()
    for _ in range(ROUNDS):
        got = figures(point, factors)
        factors = Factors(
            decode=factors.decode * target["TPOT", "mean"] / got["TPOT", "mean"],
            prompt_token_s=factors.prompt_token_s
            + DAMPING * (target["TTFT", "mean"] - got["TTFT", "mean"]) / 1000 / point.input_tokens,
        )
    return factors


def lines_of(point: Point, factors: Factors | None) -> list[Line]:
    """Every figure the row gives."""
    equal, drawn = figures(point, Factors(), drawn=False), figures(point, Factors())
    scaled = figures(point, factors) if factors else {}
    lines = []
    for (figure, statistic), value in measured(point).items():
        key = (figure, statistic)
        lines.append(
            Line(
                record=point.record.id, row=point.row, source=point.source, load=_load(point), figure=figure,
                statistic=statistic, measured=value, equal=equal[key], drawn=drawn[key],
                calibrated=scaled.get(key),
            )
        )  # fmt: skip
    return lines


def summary(lines: list[Line]) -> list[dict[str, Any]]:
    """Errors of medians (means where no median is given) by figure, and of the 99th percentiles."""
    found = []
    for figure in FIGURES:
        rows = [line for line in lines if line.figure == figure]
        given = {(line.record, line.row) for line in rows if line.statistic == "median"}
        middle = [line for line in rows if line.statistic == "median"]
        middle += [line for line in rows if line.statistic == "mean" and (line.record, line.row) not in given]
        for name, part in (("typical", middle), ("p99", [line for line in rows if line.statistic == "p99"])):
            for variant in VARIANTS:
                given_by = [line for line in part if line.error(variant) is not None]
                if given_by:
                    found.append(_summary(figure, name, variant, given_by))
    return found


def _summary(figure: str, name: str, variant: str, part: list[Line]) -> dict[str, Any]:
    errors = [line.error(variant) or 0.0 for line in part]
    sizes = sorted(abs(error) for error in errors)
    return {
        "figure": figure,
        "statistic": name,
        "lengths": VARIANTS[variant],
        "rows": len(errors),
        "sources": len({line.source for line in part}),
        "median": statistics.median(sizes),
        "p90": sizes[math.ceil(0.9 * len(sizes)) - 1],
        "bias": statistics.mean(errors),
        "bar": _bar(figure, name, sizes) if variant == "drawn" else "",
    }


def _bar(figure: str, name: str, sizes: list[float]) -> str:
    if figure == "output tok/s" or name != "typical":
        return ""
    met = statistics.median(sizes) <= MEDIAN_BAR and sizes[math.ceil(0.9 * len(sizes)) - 1] <= P90_BAR
    return f"{MEDIAN_BAR:.0%}, {P90_BAR:.0%}: {'met' if met else 'missed'}"


def markdown(table: list[dict[str, Any]], lines: list[Line], factors: dict[str, Factors]) -> str:
    """Summary first, then every figure."""
    text = [
        "# The simulator against what strangers measured under load",
        "",
        "| figure | statistic | lengths | rows | sources | median abs error | p90 | bias | bar |",
        "|---|---|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in table:
        cells = (
            row["figure"], row["statistic"], row["lengths"], row["rows"], row["sources"],
            f"{row['median']:.1%}", f"{row['p90']:.1%}", f"{row['bias']:+.1%}", row["bar"],
        )  # fmt: skip
        text.append(f"| {' | '.join(map(str, cells))} |")
    text += [
        "",
        "`typical` is the median over requests where the source gives it, else the mean. `drawn`: lengths",
        f"of real prompts, spread as in the `{SPREAD}` preset; what a source fixes stays equal.",
        "`calibrated`: two constants of the steps from the record's row with the longest prompts, which is",
        "left out of the calibrated figures:",
        "",
        *(
            f"- {name}: decoding x {one.decode:.2f}, {1e6 * one.prompt_token_s:+.0f} us per prompt token"
            for name, one in factors.items()
        ),
        "",
        "| record | row | load | figure | measured | equal | error | drawn | error | calibrated | error |",
        "|---|--:|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for line in lines:
        unit = "" if line.figure == "output tok/s" else f" {line.statistic}, ms"
        cells = [line.record, str(line.row), line.load, line.figure + unit, f"{line.measured:,.1f}"]
        for variant in VARIANTS:
            value, error = getattr(line, variant), line.error(variant)
            cells += ["", ""] if error is None else [f"{value:,.1f}", f"{error:+.1%}"]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def _row(point: Point) -> dict[str, Any]:
    found: dict[str, Any] = point.record.fields["throughput"][point.row - 1]
    return found


def _workload(point: Point) -> dict[str, Any]:
    work = dict(_row(point)["workload"])
    if not work.get("concurrency") and not work.get("request_rate"):
        work["request_rate"] = point.rate
    return work


def _load(point: Point) -> str:
    work = _workload(point)
    rate, users, count = work.get("request_rate"), work.get("concurrency"), work.get("num_prompts")
    parts = [
        f"{users} users" if users else "",
        f"{rate:g}/s" if rate else "",
        f"{count} requests" if count else "",
    ]
    return f"{', '.join(filter(None, parts))} x {point.input_tokens:,.0f}+{point.output_tokens:,.0f}"


def under_load() -> list[Point]:
    """Rows whose requests bring a prompt, from more than one user."""
    taken, _ = points()
    rows = [point for point in taken if point.kind in ("loop", "open") and point.concurrency != 1]
    return [replace(point, input_tokens=max(1.0, point.input_tokens)) for point in rows]


def main() -> int:
    """Simulate all rows, keep the results, say whether the bars are met."""
    taken = under_load()
    sources = calibration_points(taken)
    factors = {name: fitted(point) for name, point in sources.items()}
    lines: list[Line] = []
    for point in taken:
        own = sources.get(point.record.id)
        lines += lines_of(point, factors[point.record.id] if own and own.row != point.row else None)
    table = summary(lines)
    for row in table:
        print(
            f"{row['figure']:<13} {row['statistic']:<8} {row['lengths']:<24} {row['rows']:>2} rows  "
            f"median {row['median']:.1%} p90 {row['p90']:.1%} bias {row['bias']:+.1%} {row['bar']}"
        )
    (RESULTS / "simulated_measurements.md").write_text(markdown(table, lines, factors))
    kept = {"summary": table, "factors": {name: asdict(one) for name, one in factors.items()}}
    print(write_result("simulated_measurements", kept | {"lines": [asdict(line) for line in lines]}))
    return int(any(row["bar"].endswith("missed") for row in table))


if __name__ == "__main__":
    sys.exit(main())
