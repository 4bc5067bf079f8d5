"""The terminal shows the same figures."""

from __future__ import annotations

import io

import pytest
from cost_samples import CATALOG, CHAT, DAY
from report_samples import SAMPLES, made
from rich.console import Console

from qwenhost.cost import ApiTerms, Success, quote_workload
from qwenhost.report import quote_table, side_by_side, terminal, words


def shown(*parts: object, width: int = 110) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("width", [60, 110])
def test_every_sample_prints_at_any_width(sample: str, width: int) -> None:
    """No line is wider than the terminal."""
    text = shown(*terminal(SAMPLES[sample], width=width), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "USD/month" in text.replace("\n", "")


def test_verdict_bills_and_levers_are_there() -> None:
    """The headline, both bills, the tornado."""
    text = shown(*terminal(SAMPLES["predicted"]))
    assert "Stay with Claude Sonnet 4.6" in text
    assert "$10,083" in text
    assert "What moves the break-even most" in text
    assert "PREDICTED" in text


def test_hostile_markup_is_printed_as_it_stands() -> None:
    """Rich markup in a name has no effect."""
    text = shown(*terminal(SAMPLES["hostile"]))
    assert "<script>" in text


def test_two_comparisons_stand_side_by_side() -> None:
    """One column each."""
    text = shown(side_by_side({"a": SAMPLES["measured"], "b": SAMPLES["no_break_even"]}))
    assert "measured" in text
    assert "predicted" in text
    assert "none" in text


def test_a_quote_lists_every_api() -> None:
    """Sonnet first, then the hosted offers."""
    text = shown(quote_table(quote_workload(CATALOG, CHAT, ApiTerms(as_of=DAY))))
    assert text.index("Claude Sonnet 4.6") < text.index("openrouter")
    assert "$0.00663" in text


def test_solved_tasks_are_priced_with_the_users_own_rates_first() -> None:
    """At 50 % and two attempts 75 % are solved, at twice the cost of an attempt."""
    found = made(requests_per_day=50_000, success=Success(qwen=0.5, baseline=0.8, max_attempts=2))
    text = shown(*terminal(found))
    assert "Your tasks" in text
    assert f"{words.usd(found.self_host.usd_per_request * 2)} (75% solved)" in text
    assert text.index("Your tasks") < text.index("SWE-bench Verified")
