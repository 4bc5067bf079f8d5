"""Predicted against observed memory for 78 deployments by strangers, one line each, misses included.

Groups: ``cache`` block size, tokens and concurrency given the log's available memory; ``loading`` "Model
loading took"; ``available`` "Available KV cache memory" from GPU name and flags alone, error as a share of
GPU memory; ``fit`` whether vLLM starts. Exit code 1 where a bar is missed.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass

from common import RESULTS, write_result
from strangers import Record, blocks_of, records

from qwenhost.units import GIB

BARS = {
    "cache": "every record within 1 %",
    "loading": "median within 1.5 %, worst within 3 %",
    "available": "median within 5 % of GPU memory",
    "fit": "right for 95 %",
}


@dataclass(frozen=True)
class Line:
    """One comparison."""

    record: str
    group: str
    what: str
    predicted: str
    observed: str
    error: float | None
    """Relative; None where only equality is asked."""
    right: bool
    note: str = ""


def lines_of(record: Record) -> list[Line]:
    """Every comparison a record allows."""
    if "checkpoint" not in record.setup:
        return []
    found: list[Line] = []
    for group, compare in (
        ("cache", cache_lines),
        ("loading", loading_lines),
        ("available", available_lines),
        ("fit", fit_lines),
    ):
        if not record.skipped(group):
            found += compare(record)
    return found


def cache_lines(record: Record) -> list[Line]:
    """Block size, tokens and concurrency, given what the log had available."""
    observed, found = record.observed, []
    available = observed.get("available_kv_gib")
    figures = record.start.figures_given(int((available or 1.0) * GIB))
    size = observed.get("attention_block_size")
    if size:
        exact = figures.block_size == size
        found.append(
            _line(
                record,
                "cache",
                "block size",
                f"{figures.block_size}",
                f"{size}",
                figures.block_size / size - 1,
                right=exact,
            )
        )
    tokens, concurrency = observed.get("kv_cache_tokens"), observed.get("max_concurrency")
    if available and tokens:
        error = figures.tokens / tokens - 1
        found.append(
            _line(
                record,
                "cache",
                "tokens",
                f"{figures.tokens:,}",
                f"{tokens:,}",
                error,
                right=abs(error) <= 0.01,
            )
        )
    if available and concurrency:
        error = figures.concurrency / concurrency - 1
        found.append(
            _line(
                record,
                "cache",
                "concurrency",
                f"{figures.concurrency:.2f}",
                f"{concurrency:.2f}",
                error,
                right=abs(error) <= 0.01,
            )
        )
    return found


def loading_lines(record: Record) -> list[Line]:
    """What the weights take on one GPU."""
    observed = record.observed.get("model_loading_gib")
    if not observed:
        return []
    predicted = record.start.figures().memory.weights_bytes / GIB
    error = predicted / observed - 1
    return [
        _line(
            record, "loading", "GiB", f"{predicted:.2f}", f"{observed:.2f}", error, right=abs(error) <= 0.03
        )
    ]


def available_lines(record: Record) -> list[Line]:
    """What is left for the cache; also from a number of blocks, where a source gives that."""
    figures, observed = record.start.figures(), record.observed
    available, note = observed.get("available_kv_gib"), ""
    if available is None and blocks_of(record):
        available = blocks_of(record) * record.start.block_bytes / GIB
        note = "from the number of blocks"
    if available is None or not _utilization_known(record):
        return []
    predicted = figures.available_kv_bytes / GIB
    error = (predicted - available) / (figures.memory.total_bytes / GIB)
    return [
        _line(
            record,
            "available",
            "GiB",
            f"{predicted:.2f}",
            f"{available:.2f}",
            error,
            right=abs(error) <= 0.05,
            note=note,
        )
    ]


def fit_lines(record: Record) -> list[Line]:
    """Whether vLLM starts."""
    refusal = record.start.figures().refusal
    predicted = refusal.rule if refusal else "starts"
    observed = "starts" if record.started else "does not start"
    return [
        _line(record, "fit", "start", predicted, observed, None, right=(refusal is None) == record.started)
    ]


def _utilization_known(record: Record) -> bool:
    """Given, or left out of a log's list of flags that are not at their default."""
    given = record.fields.get("gpu_memory_utilization") is not None
    return given or "gpu_memory_utilization not" in str(record.fields.get("flags", ""))


def _line(  # noqa: PLR0917 - the columns of the table, in their order
    record: Record,
    group: str,
    what: str,
    predicted: str,
    observed: str,
    error: float | None,
    *,
    right: bool,
    note: str = "",
) -> Line:
    why = "" if right else record.setup.get("miss", {}).get(group, "")
    return Line(
        record.id, group, what, predicted, observed, error, right, "; ".join(filter(None, (note, why)))
    )


def summary(lines: list[Line]) -> dict[str, dict[str, float | int | bool | str]]:
    """Counts, medians and whether the bar is met, by group."""
    found: dict[str, dict[str, float | int | bool | str]] = {}
    for group, bar in BARS.items():
        rows = [line for line in lines if line.group == group]
        errors = [abs(line.error) for line in rows if line.error is not None]
        median, worst = (statistics.median(errors), max(errors)) if errors else (0.0, 0.0)
        share = sum(line.right for line in rows) / len(rows)
        met = {
            "cache": worst <= 0.01,
            "loading": median <= 0.015 and worst <= 0.03,
            "available": median <= 0.05,
            "fit": share >= 0.95,
        }[group]
        found[group] = {
            "comparisons": len(rows), "records": len({line.record for line in rows}), "right_share": share,
            "median_error": median, "worst_error": worst, "bar": bar, "met": met,
        }  # fmt: skip
    return found


def markdown(
    lines: list[Line], groups: dict[str, dict[str, float | int | bool | str]], out: dict[str, str]
) -> str:
    """The table the README shows."""
    text = ["# Memory: predicted against what strangers' logs say", ""]
    text += [
        "| group | records | comparisons | median error | worst | right | bar |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for name, row in groups.items():
        errors = "" if name == "fit" else f"{row['median_error']:.2%}"
        worst = "" if name == "fit" else f"{row['worst_error']:.2%}"
        bar = f"{row['bar']}: {'met' if row['met'] else 'missed'}"
        cells = (name, row["records"], row["comparisons"], errors, worst, f"{row['right_share']:.0%}", bar)
        text.append(f"| {' | '.join(map(str, cells))} |")
    text += [
        "",
        "`available` is an error as a share of GPU memory; the constants behind it were fitted to 10 of",
        "these records (`benchmarks/fit_memory.py` prints each with itself left out).",
        "",
    ]
    text += ["| record | group | what | predicted | observed | error | |", "|---|---|---|--:|--:|--:|---|"]
    for line in lines:
        error = "" if line.error is None else f"{line.error:+.2%}"
        mark = "" if line.right else "**miss** "
        cells = (line.record, line.group, line.what, line.predicted, line.observed, error, mark + line.note)
        text.append(f"| {' | '.join(cells)} |")
    text += ["", f"Not compared ({len(out)} records):", ""]
    text += [f"- {name}: {reason}" for name, reason in out.items()]
    return "\n".join(text) + "\n"


def main() -> int:
    """Print every line, keep the results, say whether the bars are met."""
    known = records()
    lines = [line for record in known for line in lines_of(record)]
    compared = {line.record for line in lines}
    out = {record.id: _reason(record) for record in known if record.id not in compared}
    for line in lines:
        error = "" if line.error is None else f"{line.error:+8.2%}"
        print(
            f"{line.record:<42} {line.group:<9} {line.what:<11} {line.predicted:>22} {line.observed:>15} "
            f"{error:>9} {'' if line.right else 'MISS '}{line.note}"
        )
    for name, reason in out.items():
        print(f"{name:<42} not compared: {reason}")
    groups = summary(lines)
    print()
    for name, row in groups.items():
        print(
            f"{name:<9} {row['records']:>3} records, {row['comparisons']:>3} comparisons, "
            f"right {row['right_share']:.0%}, median {row['median_error']:.2%}, "
            f"worst {row['worst_error']:.2%}; bar ({row['bar']}) {'met' if row['met'] else 'MISSED'}"
        )
    (RESULTS / "memory_accuracy.md").write_text(markdown(lines, groups, out))
    path = write_result(
        "memory_accuracy",
        {"groups": groups, "lines": [asdict(line) for line in lines], "not_compared": out},
    )
    print(f"kept {path.name} and memory_accuracy.md")
    return int(not all(row["met"] for row in groups.values()))


def _reason(record: Record) -> str:
    reasons = record.setup.get("skip", {})
    return reasons.get("all") or "; ".join(f"{group}: {why}" for group, why in reasons.items()) or "no figure"


if __name__ == "__main__":
    sys.exit(main())
