"""Advice for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from qwenhost.report import words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from qwenhost.cost import Advice

_SPEAKS = {"self_host": "self-hosting", "qwen": "Qwen", "api": "the API", "either": "either"}


def advice_parts(advice: Advice) -> list[RenderableType]:
    """What to print, top to bottom: the answer, why, every way with its cost, fine-tuning."""
    body = Text(advice.headline, style="bold")
    for caution in advice.cautions:
        body.append(f"\n\n! {caution}", style="not bold")
    return [Panel(body), _reasons(advice), _options(advice), _fine_tuning(advice)]


def _reasons(advice: Advice) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="Why", title_justify="left")
    table.add_column("speaks for")
    table.add_column("reason", overflow="fold")
    for reason in advice.reasons:
        table.add_row(_SPEAKS[reason.speaks_for], escape(reason.text))
    return table


def _options(advice: Advice) -> Table:
    title = f"{words.count(advice.requests_per_day)} requests a day of {advice.workload} on {advice.hardware}"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=escape(title), title_justify="left")
    table.add_column("way", overflow="fold")
    for name in ("USD/month", "solved", "USD/solved"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("excluded by", overflow="fold")
    for option in advice.options:
        mark = "> " if option.way == advice.choice else ""
        table.add_row(
            escape(mark + option.name),
            words.usd(option.usd_per_month),
            words.percent(option.solved),
            words.usd(option.usd_per_solved),
            ", ".join(option.excluded_by),
        )
    return table


def _fine_tuning(advice: Advice) -> Text:
    tuned = advice.fine_tuning
    text = Text("Fine-tuning. ", style="bold")
    text.append(
        f"A LoRA takes {words.count(tuned.gpu_hours)} GPU hours ({words.usd(tuned.usd_training)}), "
        f"{words.usd(tuned.usd_work)} of work and {words.usd(tuned.usd_serving_per_month)} a month to serve: "
        f"{words.usd(tuned.usd_per_month)} a month in all. ",
        style="not bold",
    )
    left = "" if tuned.left_to_solve is None else f" of the {tuned.left_to_solve:.0%} left to solve"
    gain = (
        f"It cannot pay back{left.replace(' of', ' within')}."
        if tuned.gain_to_pay_back is None
        else f"It pays back from {tuned.gain_to_pay_back:.1%} of all tasks{left}."
    )
    text.append(gain + " Every figure of it is an assumption; see --json.", style="not bold")
    return text
