"""Fleets on the command line: what is understood, what is refused, what comes out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from qwenhost.cli import fleet_options
from qwenhost.cli.main import run
from qwenhost.errors import BadInputError
from qwenhost.facts import Slo
from qwenhost.simulate.fleet_config import Policy, Range, Trigger

if TYPE_CHECKING:
    from pathlib import Path

SMALL = ("--input-tokens", "300", "--output-tokens", "20", "--rate", "5", "--requests", "60")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved plan for two H200."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert run(["plan", "--gpus", "2xH200", "--workload", "chat", "--save", str(path), "--json"]) == 0
    return str(path)


def ran(capsys: pytest.CaptureFixture[str], *args: str, code: int = 0) -> dict[str, Any]:
    """The command's JSON."""
    capsys.readouterr()
    assert run(["simulate", "--json", *args]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


class TestWords:
    def test_numbers_of_replicas(self) -> None:
        """One number or two."""
        assert fleet_options.parse_range("4", "--replicas") == Range(low=4, high=4)
        assert fleet_options.parse_range("0..8", "--replicas") == Range(low=0, high=8)

    @pytest.mark.parametrize("text", ["", "x", "4..2", "-1", "0", "1..", "1...3", "99999"])
    def test_no_numbers_of_replicas(self, text: str) -> None:
        """Named with the flag."""
        with pytest.raises(BadInputError, match="--replicas"):
            fleet_options.parse_range(text, "--replicas")

    def test_autoscaling(self) -> None:
        """Triggers, times, windows and policies; the rest keeps the controllers' defaults."""
        rules = fleet_options.parse_autoscale(
            "in-flight=32,kv=0.7,poll=10,cooldown=0,tolerance=0.05,up-window=30,up=2/60,up=50%/60,down=10%/120"
        )
        assert rules.triggers == (Trigger(metric="in-flight", target=32), Trigger(metric="kv", target=0.7))
        assert (rules.polling_interval_s, rules.cooldown_s, rules.sync_s) == (10, 0, 15)
        assert rules.tolerance == 0.05
        assert (rules.up.window_s, rules.down.window_s) == (30, 300)
        assert rules.up.policies == (
            Policy(kind="pods", value=2, period_s=60), Policy(kind="percent", value=50, period_s=60),
        )  # fmt: skip
        assert rules.down.policies == (Policy(kind="percent", value=10, period_s=120),)

    @pytest.mark.parametrize(
        "text",
        ["", "in-flight", "poll=30", "in-flight=0", "load=3", "in-flight=3,up=4", "in-flight=3,poll=0"],
    )
    def test_no_autoscaling(self, text: str) -> None:
        """A sentence."""
        with pytest.raises(BadInputError, match="--autoscale"):
            fleet_options.parse_autoscale(text)

    def test_hours(self) -> None:
        """Days, a range over midnight, and several days by name."""
        row = fleet_options.parse_hours("fri-mon,wed 22:30-06:00=1..3")
        assert row.days == (0, 2, 4, 5, 6)
        assert (row.from_s, row.to_s) == (81_000, 21_600)
        assert row.replicas == Range(low=1, high=3)
        assert fleet_options.parse_hours("20:00-24:00=2").to_s == 0

    @pytest.mark.parametrize("text", ["8-20=3", "08:00-08:00=3", "foo 08:00-09:00=3", "08:00-25:00=3"])
    def test_no_hours(self, text: str) -> None:
        """A sentence."""
        with pytest.raises(BadInputError, match="--schedule"):
            fleet_options.parse_hours(text)

    def test_service_levels(self) -> None:
        """Limits given replace the workload's; the percentile is kept unless given."""
        own = Slo(ttft_ms=2000, tpot_ms=50, percentile=90)
        assert fleet_options.parse_slo("", own) == own
        assert fleet_options.parse_slo("ttft=500,p=99", own) == Slo(ttft_ms=500, percentile=99)
        for text in ("p=95", "ttft=-1", "speed=3", "ttft=1,p=100"):
            with pytest.raises(BadInputError, match="--slo"):
                fleet_options.parse_slo(text, own)

    def test_spot_and_pools(self) -> None:
        """Interruptions a day with or without notice; keys of a pool."""
        assert fleet_options.parse_spot("2", 120.0).notice_s == 120
        assert fleet_options.parse_spot("0.5/30", 120.0).notice_s == 30
        assert fleet_options.parse_pool("2xH200,tier=spot,replicas=1..4").values["tier"] == "spot"
        with pytest.raises(BadInputError, match="colour"):
            fleet_options.parse_pool("plan.json,colour=red")


class TestRuns:
    def test_a_fixed_fleet(self, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Cost = replicas x price x time; the API's bill stands beside it; start-up comes from the plan."""
        found = ran(capsys, "--plan", plan, "--replicas", "2", *SMALL)
        assert (found["schema"], found["simulated"]) == ("qwenhost.fleet/1", True)
        assert found["requests"]["completed"] == 60
        pool = found["pools"][0]
        hours = found["duration_s"] / 3600
        assert found["usd"] == pytest.approx(2 * hours * pool["usd_per_replica_hour"])
        assert found["gpu_hours"] == pytest.approx(4 * hours)
        assert found["api"][0]["name"].startswith("Claude Sonnet 4.6")
        assert found["api"][0]["usd"] == pytest.approx(sum(w["api_usd"] for w in found["windows"]))
        assert pool["startup_cold_s"]["weights"] == pytest.approx(127.15e9 / 1.6e9)
        assert any("to start" in line for line in found["assumptions"])

    def test_a_day_that_scales(self, plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Files are written, replicas stay in their range, and people read what was simulated."""
        page, saved = tmp_path / "fleet.html", tmp_path / "fleet.json"
        args = [
            "--plan",
            plan,
            "--replicas",
            "1..3",
            "--autoscale",
            "in-flight=2",
            "--days",
            "0.02",
            "--rate",
            "1",
        ]
        args += ["--spare", "1", "--fail-mtbf", "0.1", "--start-up", "60", "--slo", "ttft=60000"]
        capsys.readouterr()
        assert run(["simulate", *args, "--html", str(page), "--save", str(saved)]) == 0
        said = capsys.readouterr().out
        assert said.startswith("SIMULATED chat")
        assert "USD a day" in said
        saved_run = json.loads(saved.read_text())
        assert 2 <= saved_run["pools"][0]["replicas_min"] <= saved_run["pools"][0]["replicas_max"] <= 4
        assert saved_run["failures"] > 0
        text = page.read_text()
        assert "<title>" in text
        assert "http" not in text.split("</style>")[0]

    def test_a_trace_through_two_pools(
        self, plan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Sessions are read, both pools serve, and the trace is what the API is asked to price."""
        trace = tmp_path / "trace.jsonl"
        rows = (
            {"arrival_s": i / 4, "input_tokens": 400, "output_tokens": 30, "session_id": f"s{i % 8}"}
            for i in range(200)
        )
        trace.write_text("\n".join(map(json.dumps, rows)))
        found = ran(
            capsys, "--pool", f"{plan},name=a", "--pool", f"{plan},name=b,usd=1,replicas=2",
            "--trace", str(trace), "--routing", "session-sticky",
        )  # fmt: skip
        assert found["requests"]["completed"] == 200
        assert [p["name"] for p in found["pools"]] == ["a", "b"]
        assert found["pools"][1]["usd_per_replica_hour"] == 2.0
        assert found["mean_input_tokens"] == 400

    def test_the_highest_rate(self, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Found within the tolerance, with the curve."""
        said = ran(
            capsys, "--plan", plan, "--slo", "ttft=500,tpot=20", "--requests", "300",
            "--input-tokens", "300", "--output-tokens", "20",
        )  # fmt: skip
        assert said["schema"] == "qwenhost.rate_search/1"
        found = said["search"]
        assert 0 < found["found_rate"] < found["missed_rate"] <= found["found_rate"] * 1.021
        assert len(found["points"]) > 5

    def test_a_missed_service_level(self, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Exit 5, with the figures all the same; no rate at all is 5 as well."""
        found = ran(capsys, "--plan", plan, "--replicas", "1", *SMALL, "--slo", "ttft=1", code=5)
        assert found["meets_slo"] is False
        small = ("--input-tokens", "300", "--output-tokens", "20", "--requests", "30")
        ran(capsys, "--plan", plan, "--slo", "ttft=1", *small, code=5)

    def test_the_cheapest_fleet(self, plan: str, capsys: pytest.CaptureFixture[str]) -> None:
        """One replica is enough for five requests a second; none for a millisecond to the first token."""
        found = ran(capsys, "--plan", plan, "--find-fleet", *SMALL)
        assert found["schema"] == "qwenhost.fleet_search/1"
        assert found["label"].startswith("1 x ")
        assert found["chosen"]["requests"]["completed"] == 60
        assert found["why"]
        capsys.readouterr()
        assert run(["simulate", "--plan", plan, "--find-fleet", *SMALL, "--slo", "ttft=1"]) == 3

    @pytest.mark.parametrize(
        ("args", "named"),
        [
            (("--replicas", "2"), "--rate"),
            (("--replicas", "1..2", "--rate", "1"), "--autoscale"),
            (("--replicas", "2", "--rate", "1", "--concurrency", "3"), "--concurrency"),
            (("--replicas", "2", "--rate", "1", "--days", "1", "--requests", "3"), "--days"),
            (("--pool", "2xH200", "--rate", "1", "--replicas", "3"), "--pool"),
            (("--slo", "--concurrency", "3"), "--concurrency"),
            (("--replicas", "1", "--rate", "1", "--save", "/nowhere/run.json"), "/nowhere"),
            (("--replicas", "1", "--rate", "1", "--start-up", "soon"), "--start-up"),
        ],
    )
    def test_bad_input_is_a_sentence(
        self, plan: str, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], named: str
    ) -> None:
        """Exit 2 and the flag."""
        own = () if "--pool" in args else ("--plan", plan)
        assert run(["simulate", *own, *args]) == 2
        assert named in capsys.readouterr().err


def test_help_has_an_example_of_each() -> None:
    """Fleet, rate and search stand in --help; --replicas counts a fleet's replicas here."""
    from qwenhost.cli.simulate import command

    text = CliRunner().invoke(command, ["--help"]).output
    for word in ("--slo", "--autoscale in-flight", "--find-fleet", "--schedule", "MIN..MAX"):
        assert word in text
    assert text.count("--replicas N|MIN..MAX") == 1
