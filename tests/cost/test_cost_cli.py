"""The commands cost, compare and report on the built-in profiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from cost_samples import run as measured_run

from qwenhost.cli.main import run
from qwenhost.measurements import measurements_to_json

if TYPE_CHECKING:
    from pathlib import Path

DAY = ("--as-of", "2026-11-23")


def answer(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    """JSON of a command that must succeed."""
    assert run([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Stderr of a command that must end with bad input, without a traceback."""
    assert run(list(argv)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "Traceback" not in said.err
    return said.err


@pytest.mark.parametrize(
    ("workload", "cache", "api", "usd"),
    [
        ("coding_agent", "none", "claude-sonnet-4.6", 0.3737),
        ("coding_agent", "5m", "claude-sonnet-4.6", 0.0788),
        ("coding_agent", "1h", "claude-sonnet-4.6", 0.0715),
        ("coding_agent", "none", "qwen3.5-122b-openrouter", 0.0327),
        ("coding_agent", "none", "qwen3.5-122b-novita", 0.0504),
        ("chat", "auto", "claude-sonnet-4.6", 0.00663),
        ("chat", "auto", "qwen3.5-122b-openrouter", 0.000739),
        ("chat", "auto", "qwen3.5-122b-novita", 0.001137),
    ],
)
def test_published_results_from_the_built_in_profiles(
    capsys: pytest.CaptureFixture[str], workload: str, cache: str, api: str, usd: float
) -> None:
    """To the last printed digit."""
    found = answer(capsys, "cost", "--workload", workload, "--cache", cache, *DAY)
    line = next(line for line in found["api"] if line["id"] == api)
    last_digit = 10.0 ** -len(f"{usd:f}".rstrip("0").split(".")[1])
    assert line["usd_per_request"] == pytest.approx(usd, abs=0.51 * last_digit)


def test_batch_halves_chat(capsys: pytest.CaptureFixture[str]) -> None:
    """3.31 per thousand requests."""
    found = answer(capsys, "cost", "--workload", "chat", "--batch", *DAY)
    assert found["usd_per_request"] * 1000 == pytest.approx(3.315)


def test_a_usage_file_is_priced_by_the_day(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """250,000 tokens in cost 1.50 before the premium ended and 0.75 after."""
    path = tmp_path / "usage.jsonl"
    path.write_text('{"input_tokens": 250000, "output_tokens": 0}\n')
    before = answer(capsys, "cost", "--usage", str(path), "--as-of", "2026-03-12")
    after = answer(capsys, "cost", "--usage", str(path), "--as-of", "2026-03-13")
    assert (before["usd_per_request"], after["usd_per_request"]) == pytest.approx((1.50, 0.75))
    assert before["breakdown"].keys() == {"uncached_input", "cache_write", "cache_read", "output", "fees"}


def test_the_whole_way_from_gpus_to_a_page(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Compare writes JSON and HTML; report shows the saved one again, with the same figures."""
    saved, page, again = (tmp_path / name for name in ("c.json", "c.html", "again.html"))
    found = answer(
        capsys, "compare", "--gpus", "2xH200", "--requests-per-day", "50000", *DAY,
        "--save", str(saved), "--html", str(page),
    )  # fmt: skip
    assert found["api"][0]["usd_per_request"] == pytest.approx(0.00663)
    assert found["requests_per_day"] == 50_000
    assert json.loads(saved.read_text()) == found
    assert run(["report", str(saved), "--html", str(again)]) == 0
    assert again.read_text() == page.read_text()
    assert found["verdict"]["headline"] in capsys.readouterr().out


def test_measurements_replace_the_prediction(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The goodput of the run is the capacity."""
    path = tmp_path / "run.json"
    path.write_bytes(measurements_to_json(measured_run()))
    found = answer(capsys, "compare", "--gpus", "2xH200", "--measurements", str(path), *DAY)
    assert found["self_host"]["requests_per_s_per_node"]["value"] == pytest.approx(9.5)
    assert found["measured"]["server"]["name"] == "vllm"


def test_a_given_gpu_price_wins(capsys: pytest.CaptureFixture[str]) -> None:
    """Two GPUs at 1 dollar, two nodes: 2,920 a month."""
    found = answer(
        capsys, "compare", "--gpus", "2xH200", "--gpu-price", "1", "--requests-per-day", "1000", *DAY
    )
    assert found["self_host"]["monthly"]["nodes"] == pytest.approx(2920)


def test_two_saved_comparisons_stand_side_by_side(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Both names head a column."""
    paths = [tmp_path / "hopper.json", tmp_path / "blackwell.json"]
    for path, gpus in zip(paths, ("2xH200", "1xB200"), strict=True):
        answer(capsys, "compare", "--gpus", gpus, *DAY, "--save", str(path))
    assert run(["report", *map(str, paths)]) == 0
    shown = capsys.readouterr().out
    assert "hopper" in shown
    assert "blackwell" in shown


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("cost", "--workload", "none"), "'none': no such preset"),
        (("cost", "--usage", "/nowhere.jsonl"), "/nowhere.jsonl"),
        (("cost", "--as-of", "2020-01-01"), "no price on 2020-01-01"),
        (("cost", "--as-of", "yesterday"), "yesterday"),
        (("cost", "--residency", "mars"), "residency 'mars'"),
        (("cost", "--baseline", "gpt"), "no such price"),
        (("compare", "--gpus", "2xH200", "--plan", "plan.json"), "--gpus: plan.json has decided that"),
        (("compare", "--plan", "/nowhere.json"), "/nowhere.json"),
        (("compare", "--gpus", "2xH200", "--measurements", "/nowhere.json"), "/nowhere.json"),
        (("compare", "--gpus", "2xH200", "--html", "/nowhere/report.html"), "/nowhere/report.html"),
        (("report", "/nowhere.json"), "/nowhere.json"),
        (("report",), "FILE"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], said: str
) -> None:
    """Exit code 2, the culprit by name, nothing on stdout."""
    assert said in refusal(capsys, *argv)


def test_several_presets_stand_in_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Both sides' cost, break-even and confidence of three presets from one command."""
    names = ["chat", "coding_agent", "thinking_chat"]
    base = ["compare", "--gpus", "2xH200", "--workloads", ",".join(names), *DAY]
    assert list(answer(capsys, *base)) == names
    assert run(base) == 0
    said = capsys.readouterr().out
    for label in (*names, "self-host, month", "baseline, month", "break-even", "confidence"):
        assert label in said
    assert "--workloads" in refusal(capsys, *base, "--engine", "simulated")
    assert "no such preset" in refusal(capsys, "compare", "--gpus", "2xH200", "--workloads", "chat,x")
