"""The other plots: memory of a GPU, latency, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.report import words
from qwenhost.report.plots import cut
from qwenhost.report.svg import Anchor, Canvas, Scale, bottom_axis
from qwenhost.units import format_gib

if TYPE_CHECKING:
    from qwenhost.cost import Comparison
    from qwenhost.measurements import Percentiles
    from qwenhost.plan import Estimate, MemoryBreakdown

NARROW: Final = 420
MEMORY_PARTS: Final = (
    ("weights", "weights_bytes"),
    ("activations", "activation_bytes"),
    ("CUDA graphs", "cudagraph_bytes"),
    ("outside torch", "non_torch_bytes"),
    ("KV cache and state", "kv_cache_bytes"),
)
QUANTILES: Final = ("p50", "p90", "p95", "p99")


def memory_rows(memory: MemoryBreakdown) -> list[tuple[str, int, str]]:
    """(name, bytes, colour) of one GPU, what vLLM leaves alone at the end."""
    rows = [(name, getattr(memory, key), f"mem{i}") for i, (name, key) in enumerate(MEMORY_PARTS)]
    return [*rows, ("left to others", memory.total_bytes - memory.usable_bytes, "mem-free")]


def memory_bar(comparison: Comparison, width: int) -> str:
    """One GPU's memory as vLLM would share it out."""
    memory = comparison.plan.memory_per_gpu
    canvas = Canvas(width, 74)
    x = Scale(0, memory.total_bytes, 0, width)
    spent = 0
    for name, size, css in memory_rows(memory):
        if size <= 0:
            continue
        canvas.rect(
            (x(spent), 4), (x(spent + size) - x(spent), 34), f"part {css}", tip=f"{name}: {format_gib(size)}"
        )
        if x(size) > 76:
            canvas.text((x(spent) + 8, 26), format_gib(size, 1), f"inside {css}")
        spent += size
    edge = x(memory.usable_bytes)
    canvas.line((edge, 0), (edge, 46), "mark")
    canvas.text((min(edge, width - 4), 62), "gpu_memory_utilization", "tick", "end")
    return canvas.markup(
        f"memory-{width}",
        "Memory of one GPU",
        ", ".join(f"{name} {format_gib(size)}" for name, size, _ in memory_rows(memory)),
    )


def latency(comparison: Comparison, width: int) -> str:
    """Percentiles of the run, or the plan's predicted band, against the service level."""
    rows = latency_rows(comparison)
    row = 66
    values = [at for _, marks, limit in rows for at in [*(v for _, v in marks), limit] if at]
    x = Scale(min(values) / 1.4, max(values) * 1.3, 6, width - 14, log=True)
    canvas = Canvas(width, row * len(rows) + 30)
    bottom = row * len(rows) + 6
    bottom_axis(canvas, x, bottom, top=22, words=words.milliseconds, wanted=4)
    for i, (name, marks, limit) in enumerate(rows):
        y = i * row + 36
        first, last = marks[0], marks[-1]
        canvas.text((0, y - 18), name, "name")
        ends = f"{first[0]} {words.milliseconds(first[1])}, {last[0]} {words.milliseconds(last[1])}"
        canvas.text((width, y - 18), ends, "tick", "end")
        canvas.line((x(first[1]), y), (x(last[1]), y), "stem self")
        for label, value in marks:
            canvas.dot((x(value), y), 5, "dot self", tip=f"{name}, {label}: {words.milliseconds(value)}")
        if limit:
            at = x(limit)
            canvas.line((at, y - 10), (at, y + 10), "limit")
            anchor: Anchor = "start" if at < x.start + 50 else "middle" if at < x.end - 50 else "end"
            canvas.text((at, y + 24), f"limit {words.milliseconds(limit)}", "tick warn", anchor)
    said = "; ".join(
        f"{name}: " + ", ".join(f"{label} {words.milliseconds(v)}" for label, v in marks)
        for name, marks, _ in rows
    )
    return canvas.markup(f"latency-{width}", "Latency against the service level", said)


def latency_rows(comparison: Comparison) -> list[tuple[str, list[tuple[str, float]], float | None]]:
    """(name, marks, limit): the run's percentiles where there is a run, else the prediction with its band."""
    slo = comparison.workload.slo
    run = comparison.measured
    if run is not None:
        kinds = (
            ("time to first token", run.ttft_ms, slo.ttft_ms),
            ("time per output token", run.tpot_ms, slo.tpot_ms),
            ("end to end", run.e2e_ms, slo.e2e_ms),
        )
        return [(name, _marks(sample), limit) for name, sample, limit in kinds if _marks(sample)]
    estimate = comparison.plan.estimate
    return [
        ("time to first token", _span(estimate.ttft_ms), slo.ttft_ms),
        ("time per output token", _span(estimate.tpot_ms), slo.tpot_ms),
    ]


def scores(comparison: Comparison, width: int) -> str:
    """Both models' scores on one scale; hollow dots are not like for like."""
    rows = [r for r in comparison.quality if r.unit == "%" and r.qwen is not None and r.baseline is not None]
    narrow = width < NARROW
    label_width, row = (0, 46) if narrow else (178, 32)
    height = row * len(rows) + 40
    canvas = Canvas(width, height)
    known = [score for r in rows for score in (r.qwen, r.baseline) if score is not None]
    x = Scale(min([40.0, *known]) - 4, 100, label_width + 10, width - 20)
    bottom = row * len(rows) + 6
    bottom_axis(canvas, x, bottom, top=4, words=lambda v: f"{v:g}%", wanted=5 if narrow else 8)
    for i, item in enumerate(rows):
        y = i * row + (32 if narrow else 18)
        canvas.text(
            (0, y - 13) if narrow else (label_width - 8, y + 4),
            cut(item.benchmark, 26),
            "name",
            "start" if narrow else "end",
        )
        canvas.line((x(item.qwen or 0), y), (x(item.baseline or 0), y), "stem")
        for score, css, model in (
            (item.qwen, "self", "Qwen3.5"),
            (item.baseline, "base", item.baseline_model),
        ):
            if score is not None:
                fill = "dot" if item.like_for_like else "dot hollow"
                remark = "" if item.like_for_like else f" (not like for like: {item.remark})"
                canvas.dot(
                    (x(score), y), 6, f"{fill} {css}", tip=f"{item.benchmark}, {model}: {score:g}%{remark}"
                )
    return canvas.markup(
        f"scores-{width}",
        "Published scores of both models",
        "; ".join(f"{r.benchmark}: {_score(r.qwen)} and {_score(r.baseline)}" for r in rows),
    )


def _score(value: float | None) -> str:
    return words.DASH if value is None else f"{value:g}%"


def _marks(sample: Percentiles) -> list[tuple[str, float]]:
    found = ((name, getattr(sample, name)) for name in QUANTILES)
    return [(name, value) for name, value in found if value]


def _span(estimate: Estimate) -> list[tuple[str, float]]:
    return [("low", estimate.low), ("predicted", estimate.value), ("high", estimate.high)]
