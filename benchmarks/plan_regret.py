"""What the model's first choice delivered, as a share of the best measured: regret, group by group.

A group holds records that measured several configurations of one model family size on the same GPUs under
the same load. The model ranks them with constants fitted without the group's sources. A second kind lets
the model choose the number of requests in flight within one record. The others are layouts that InferenceX
measured on data centre GPUs (``inferencex.py``): one engine over all GPUs against several behind a router,
tensor parallel against data and expert parallel; nothing is fitted to those rows.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import inferencex
from common import RESULTS, write_result
from fit_speed import fit
from speed_points import Point, points, predict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MEDIAN_BAR, WORST_BAR = 0.95, 0.85


@dataclass(frozen=True)
class Choice:
    """One group: what was chosen and what it was worth."""

    kind: str
    group: str
    sources: int
    measured_tok_s: dict[str, float]
    """By option."""
    chosen: str

    @property
    def best(self) -> str:
        """The option that measured most."""
        return max(self.measured_tok_s, key=lambda name: self.measured_tok_s[name])

    @property
    def delivered(self) -> float:
        """Chosen over best."""
        return self.measured_tok_s[self.chosen] / self.measured_tok_s[self.best]

    @property
    def guess(self) -> float:
        """What an option drawn by lot delivers on average."""
        return statistics.mean(self.measured_tok_s.values()) / self.measured_tok_s[self.best]

    @property
    def margin(self) -> float:
        """How far the second lies behind the best."""
        first, second = sorted(self.measured_tok_s.values(), reverse=True)[:2]
        return 1 - second / first


def configurations(taken: list[Point]) -> dict[str, dict[str, list[Point]]]:
    """Group -> configuration -> rows."""
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in taken:
        record = point.record
        model = record.catalog.checkpoints[record.setup["checkpoint"]].architecture
        prompt = f"{point.input_tokens:,.0f}" if point.kind == "loop" or point.one_prompt else "short"
        if point.kind == "loop" and point.input_tokens < 100:
            prompt = "short"
        load = f"{point.concurrency} in flight, prompt {prompt}"
        name = f"{model}, {record.gpu_count}x {record.setup['gpu']}, {load}"
        found[name][_configuration(point)].append(point)
    return {name: dict(rows) for name, rows in found.items() if len(rows) > 1}


def loads(taken: list[Point]) -> dict[str, dict[str, list[Point]]]:
    """Record and prompt -> requests in flight -> rows."""
    found: dict[str, dict[str, list[Point]]] = defaultdict(lambda: defaultdict(list))
    for point in taken:
        name = f"{point.record.id}, prompt {point.input_tokens:,.0f}+{point.output_tokens:,.0f}"
        found[name][f"{point.concurrency} in flight"].append(point)
    return {name: dict(rows) for name, rows in found.items() if len(rows) > 1}


def choose(kind: str, groups: Mapping[str, Mapping[str, list[Point]]], taken: list[Point]) -> list[Choice]:
    """The model's first choice of every group; measured figures of one configuration are averaged."""
    fits: dict[frozenset[str], dict[str, float]] = {}
    found = []
    for name, options in groups.items():
        sources = frozenset(point.source for rows in options.values() for point in rows)
        if sources not in fits:
            fits[sources] = fit([point for point in taken if point.in_fit and point.source not in sources])
        constants = fits[sources]
        measured = {key: _mean(point.output_tok_s for point in rows) for key, rows in options.items()}
        predicted = {
            key: _mean(predict(point, constants).output_tok_s for point in rows)
            for key, rows in options.items()
        }
        chosen = max(predicted, key=lambda key: predicted[key])
        found.append(Choice(kind, name, len(sources), measured, chosen))
    return found


def layout_choices() -> list[Choice]:
    """The model's first choice of every group of layouts, the precision given and to be chosen as well."""
    taken, _ = inferencex.runs()
    by_load: dict[tuple[Any, ...], list[inferencex.Run]] = defaultdict(list)
    for run in taken:
        load = (run.model, run.engine, run.version, run.gpu, run.input_tokens, run.output_tokens)
        by_load[load].append(run)
    found = []
    for (model, engine, version, gpu, *tokens), rows in by_load.items():
        for gpus in sorted({run.layout.world_size for run in rows}):
            for users in sorted({run.concurrency for run in rows}):
                offered = _on_node(rows, gpus, users)
                name = f"{model.split('/')[1]} on {engine} {version}, {gpus}x {gpu}, {users} in flight, "
                name += f"{tokens[0]:,}+{tokens[1]:,}"
                # At least one spans all GPUs: the rest of a larger node asks nothing new.
                for precision in sorted({run.precision for run, _ in offered}):
                    same = [(run, n) for run, n in offered if run.precision == precision]
                    found += _chosen(f"layout, {engine}", f"{name}, {precision}", same)
                if len({run.precision for run, _ in offered}) > 1:
                    found += _chosen(f"layout and precision, {engine}", name, offered)
    return found


def _on_node(rows: list[inferencex.Run], gpus: int, users: int) -> list[tuple[inferencex.Run, int]]:
    """Runs that fill so many GPUs with so many users, as one engine or several with their share each."""
    found = []
    for run in rows:
        engines, rest = divmod(gpus, run.layout.world_size)
        if not rest and engines and run.concurrency * engines == users:
            found.append((run, engines))
    return found


def _chosen(kind: str, group: str, offered: list[tuple[inferencex.Run, int]]) -> list[Choice]:
    measured: dict[str, list[float]] = defaultdict(list)
    predicted: dict[str, list[float]] = defaultdict(list)
    for run, engines in offered:
        name = f"{run.precision} {f'{engines}x ' if engines > 1 else ''}{run.layout.label}"
        measured[name].append(engines * run.output_tok_s)
        predicted[name].append(engines * run.predicted_tok_s)
    if len(measured) < 2 or all(engines > 1 for _, engines in offered):
        return []
    rates = {name: statistics.mean(values) for name, values in measured.items()}
    first = max(predicted, key=lambda name: statistics.mean(predicted[name]))
    return [Choice(kind, group, 1, rates, first)]


def _configuration(point: Point) -> str:
    flags = point.record.flags
    parts = [point.record.setup["checkpoint"], f"TP{flags.get('tp') or point.record.gpu_count}"]
    if point.drafts:
        parts.append(f"MTP {point.drafts}")
    if flags.get("enforce_eager"):
        parts.append("eager")
    return " ".join(parts)


def _mean(values: Iterable[float | None]) -> float:
    return statistics.mean(value for value in values if value is not None)


def summary(choices: list[Choice]) -> dict[str, Any]:
    """Median, worst, and whether the bar is met."""
    shares = [choice.delivered for choice in choices]
    median, worst = statistics.median(shares), min(shares)
    return {
        "groups": len(choices),
        "first_is_best": sum(choice.chosen == choice.best for choice in choices),
        "median": median,
        "worst": worst,
        "guess": statistics.mean(choice.guess for choice in choices),
        "margin": statistics.median(choice.margin for choice in choices),
        "met": median >= MEDIAN_BAR and worst >= WORST_BAR,
    }


def markdown(summaries: dict[str, dict[str, Any]], choices: list[Choice]) -> str:
    """Summary first, then every group."""
    text = [
        "# Regret: what the model's first choice delivered of the best measured",
        "",
        "| choice of | groups | first is best | median | worst | a guess, mean | margin, median | bar |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    for kind, row in summaries.items():
        bar = f"median {MEDIAN_BAR:.0%}, worst {WORST_BAR:.0%}: {'met' if row['met'] else 'missed'}"
        text.append(
            f"| {kind} | {row['groups']} | {row['first_is_best']} | {row['median']:.1%} | {row['worst']:.1%} "
            f"| {row['guess']:.1%} | {row['margin']:.1%} | {bar} |"
        )
    text += [
        "",
        "`configuration` and `requests in flight`: strangers' records, ranked with constants fitted without",
        "the group's sources. They are easy, best and second lie 4 to 690 % apart, most are of one lab, and",
        "none is of a data centre GPU. Rows whose window was mostly prefill (see speed_accuracy.md) are out.",
        "`layout`: InferenceX's dump of 2026-04-27, one lab, siblings of the model on H200, B200 and",
        "B300; nothing is fitted to them. Several engines are such engines side by side, each with its share",
        "of the users, their rates added. SGLang's rows test the order alone, since its kernels are others.",
        "`a guess`: what an option drawn by lot delivers on average; `margin`: best over second. That one",
        "group holds one engine version only was decided after a first look: on 8 H200 the worst group, at",
        "75 %, had TP8 on vLLM 0.18 beside TP4 on 0.16. vLLM's misses led to what sharding costs",
        "(docs/speed.md): terms from kernel tables and vLLM's code, but these rows are no blind test.",
        "",
        "| choice of | group | among | chosen | tok/s | best | tok/s | delivered |",
        "|---|---|---|---|--:|---|--:|--:|",
    ]
    for choice in choices:
        cells = (
            choice.kind, choice.group, "; ".join(choice.measured_tok_s), choice.chosen,
            f"{choice.measured_tok_s[choice.chosen]:,.1f}", choice.best,
            f"{choice.measured_tok_s[choice.best]:,.1f}",
            f"{choice.delivered:.1%}",
        )  # fmt: skip
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def main() -> int:
    """Print every group, keep the results, say whether the bar is met."""
    taken = [point for point in points()[0] if point.kind != "prefill"]
    rated = [point for point in taken if point.output_tok_s]
    choices = choose("configuration", configurations(rated), taken)
    choices += choose("requests in flight", loads(rated), taken)
    choices += layout_choices()
    summaries = {
        kind: summary([choice for choice in choices if choice.kind == kind])
        for kind in dict.fromkeys(choice.kind for choice in choices)
    }
    for choice in choices:
        print(f"{choice.delivered:7.1%} {choice.kind}: {choice.group}: {choice.chosen}, best {choice.best}")
    for kind, row in summaries.items():
        print(kind, row)
    (RESULTS / "plan_regret.md").write_text(markdown(summaries, choices))
    lines = [asdict(choice) | {"delivered": choice.delivered} for choice in choices]
    path = write_result("plan_regret", {"summary": summaries, "groups": lines})
    print(f"kept {path.name} and plan_regret.md")
    return int(not all(row["met"] for row in summaries.values()))


if __name__ == "__main__":
    sys.exit(main())
