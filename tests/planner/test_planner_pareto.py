"""The front of a request: nothing on it is beaten, and what is beaten is not on it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.cli.main import run
from qwenhost.cli.pareto_view import configurations, plot
from qwenhost.planner import make_plan, pareto_front, pareto_points
from qwenhost.planner.quality import quality_loss

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Ask

    from qwenhost.facts import Catalog
    from qwenhost.plan import Plan
    from qwenhost.planner.pareto import ParetoPoint


@pytest.fixture
def points(ask: Ask, catalog: Catalog) -> Callable[..., tuple[Plan, list[ParetoPoint]]]:
    """The plan and every point of a request."""

    def found(gpus: str, **given: Any) -> tuple[Plan, list[ParetoPoint]]:
        request = ask(gpus, **given)
        made = make_plan(request, catalog)
        return made, pareto_points(request, catalog, made)

    return found


def merits(point: ParetoPoint) -> tuple[float, ...]:
    return (
        point.output_tokens_per_s,
        point.output_tokens_per_s_per_gpu,
        point.output_tokens_per_s_per_user,
        point.max_model_len,
    )


def test_nothing_on_the_front_is_beaten(points: Callable[..., tuple[Plan, list[ParetoPoint]]]) -> None:
    """Each member wins somewhere against every point, each other point is beaten by a member."""
    made, everyone = points("8xH200")
    front = [point for point in everyone if point.on_front]
    assert 5 < len(front) < len(everyone) / 10
    for one in front:
        for other in everyone:
            assert not all(a > b for a, b in zip(merits(other), merits(one), strict=True))
    for beaten in (point for point in everyone if not point.on_front):
        assert any(all(a >= b for a, b in zip(merits(one), merits(beaten), strict=True)) for one in front)
    assert [point.chosen for point in everyone].count(True) == 1
    choice = next(point for point in everyone if point.chosen)
    assert choice.label.startswith(f"{made.chosen.checkpoint.id} {made.chosen.parallelism.label}")
    assert choice.output_tokens_per_s == pytest.approx(
        made.chosen.estimate.output_tokens_per_s.value, rel=0.02
    )


def test_it_runs_from_one_user_to_a_full_node(
    points: Callable[..., tuple[Plan, list[ParetoPoint]]],
) -> None:
    """More requests in flight: more per GPU, less per user; all keep the service level, dearest first."""
    made, everyone = points("2xH200")
    front = pareto_front(everyone)
    limit_ms = made.inputs.slo.tpot_ms
    assert limit_ms is not None
    assert all(
        point.meets_slo and 1000 / point.output_tokens_per_s_per_user <= limit_ms for point in everyone
    )
    by_user = [point.output_tokens_per_s_per_user for point in front]
    assert by_user == sorted(by_user)
    on_front = [point for point in front if point.on_front]
    assert on_front[-1].concurrency <= 2
    assert on_front[0].concurrency >= 64
    assert on_front[0].output_tokens_per_s_per_gpu > 5 * on_front[-1].output_tokens_per_s_per_gpu


def test_an_asked_load_is_the_only_one(points: Callable[..., tuple[Plan, list[ParetoPoint]]]) -> None:
    """32 users are 32 users in every row."""
    _, everyone = points("2xH200", concurrency=32)
    assert {point.concurrency for point in everyone} == {32}


def test_quality_is_stated_with_its_source(catalog: Catalog) -> None:
    """NVIDIA's card: GPQA Diamond 86.77 against 87.37; nobody published GPTQ's; BF16 is what was trained."""
    card = quality_loss(catalog.checkpoints["nvfp4"], "fp8")
    assert card.words == "-0.60 GPQA Diamond, worst of 5; mean +0.04"
    assert card.source is not None
    assert "huggingface.co/nvidia" in card.source.where
    assert quality_loss(catalog.checkpoints["gptq-int4"], "auto").words == "not published"
    assert quality_loss(catalog.checkpoints["bf16"], "auto").words == "none, as trained"
    bare = quality_loss(catalog.checkpoints["bf16"], "fp8")
    assert bare.words == "none, as trained; FP8 cache without scales: not published"


def test_the_plot_holds_every_combination(points: Callable[..., tuple[Plan, list[ParetoPoint]]]) -> None:
    """The slowest user's letter stands left; one point alone does not divide by zero."""
    _, everyone = points("2xH200")
    front = pareto_front(everyone)
    lines = plot(configurations(front), width=40, height=8)
    assert len(lines) == 11
    assert lines[1].split("|")[1][0] == "a"
    assert all(len(line.split("|")[1]) <= 40 for line in lines if "|" in line)
    assert plot({"one": front[:1]}, width=10, height=3)[3].endswith("|a")


def test_the_command_shows_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A plot and a table for people; as JSON the plan with one more key; a page that loads nothing."""
    page = tmp_path / "front.html"
    assert run(["plan", "--gpus", "2xH200", "--pareto", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert "output tokens/s per user" in shown
    assert "quality" in shown
    text = page.read_text()
    assert "choice</text>" in text
    assert "src=" not in text
    assert "@import" not in text
    assert len(text) < 400_000
    assert run(["plan", "--gpus", "2xH200", "--pareto", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "qwenhost.plan/1"
    assert document["pareto"][0]["output_tokens_per_s"] > 0
    assert document["pareto"][0]["quality"]["state"] in ("reference", "published", "not published")


def test_a_page_needs_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error, not a page of something else."""
    assert run(["plan", "--gpus", "2xH200", "--html", "x.html"]) == 2
    assert "--pareto" in capsys.readouterr().err
