"""The front of a plan: nothing on it is beaten, and what is beaten is not on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qwenhost.cli.main import run
from qwenhost.planner import pareto_front

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from qwenhost.plan import Plan


def test_nothing_on_the_front_is_beaten(plan: Callable[..., Plan]) -> None:
    """The fastest node is on it, each member wins somewhere, and some candidate is left out."""
    made = plan("8xH200")
    front = pareto_front(made)
    everyone = [made.chosen, *made.alternatives]
    rates = [one.estimate.output_tokens_per_s.value for one in everyone]
    assert front[0].output_tokens_per_s == max(rates)
    assert 0 < len(front) < len(everyone)
    assert [one.chosen for one in front].count(True) == 1
    for one in (point for point in front if point.on_front):
        for other in front:
            better = (
                other.output_tokens_per_s > one.output_tokens_per_s,
                other.output_tokens_per_s_per_gpu > one.output_tokens_per_s_per_gpu,
                other.output_tokens_per_s_per_user > one.output_tokens_per_s_per_user,
                other.max_model_len > one.max_model_len,
            )
            assert not all(better)


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people; as JSON the plan with one more key."""
    assert run(["plan", "--gpus", "2xH200", "--pareto"]) == 0
    assert "tok/s per user" in capsys.readouterr().out
    assert run(["plan", "--gpus", "2xH200", "--pareto", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["schema"] == "qwenhost.plan/1"
    assert shown["pareto"][0]["output_tokens_per_s"] > 0
