"""``qwenhost simulate``: laws of any queue, traces counted by hand, options that act, wrong ones named."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_kit import Cli

SLOW = ("--input-tokens", 100, "--output-tokens", 20)


@pytest.fixture
def simulate(cli: Cli, saved: Path) -> Callable[..., dict[str, Any]]:
    """``qwenhost simulate`` of the saved plan, as data."""

    def ask(*words: object, code: int = 0) -> dict[str, Any]:
        done = cli("simulate", "--plan", saved, *words, "--json")
        assert done.code == code, done.err
        found: dict[str, Any] = done.data
        return found

    return ask


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Ten requests, one a second from 0 s: 500 tokens in, 10 out."""
    path = tmp_path / "trace.jsonl"
    rows = [{"arrival_s": float(i), "input_tokens": 500, "output_tokens": 10} for i in range(10)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


class TestOneEngine:
    @pytest.mark.parametrize("users", [1, 3, 8])
    def test_littles_law(self, simulate: Any, users: int) -> None:
        """In flight = rate * time in the system, in a closed loop of equal users."""
        found = simulate("--concurrency", users, "--requests", 30 * users)
        in_flight = found["request_per_s"] * found["e2e_ms"]["mean"] / 1000
        assert in_flight == pytest.approx(users, rel=0.12)
        assert found["load"]["concurrency"] == users

    def test_tokens_are_requests_times_their_mean(self, simulate: Any) -> None:
        found = simulate("--concurrency", 4, "--requests", 40)
        whole = found["request_per_s"] * found["workload"]["mean_output_tokens"]
        assert found["output_tokens_per_s"] == pytest.approx(whole, rel=1e-6)
        into = found["request_per_s"] * found["workload"]["mean_input_tokens"]
        assert found["input_tokens_per_s"] == pytest.approx(into, rel=1e-6)
        assert found["total_tokens_per_s"] == pytest.approx(whole + into, rel=1e-6)

    def test_a_request_is_its_first_token_and_the_rest(self, simulate: Any) -> None:
        """Alone: e2e = TTFT + (tokens - 1) * TPOT, in the mean over equal answers."""
        found = simulate("--concurrency", 1, "--requests", 20, "--acceptance", "0", *SLOW)
        tokens = found["workload"]["mean_output_tokens"]
        whole = found["ttft_ms"]["mean"] + (tokens - 1) * found["tpot_ms"]["mean"]
        assert found["e2e_ms"]["mean"] == pytest.approx(whole, rel=0.05)

    @pytest.mark.parametrize("count", [1, 7, 50])
    def test_so_many_requests_and_no_more(self, simulate: Any, count: int) -> None:
        assert simulate("--rate", 5, "--requests", count)["requests"] == {
            "sent": count, "completed": count, "failed": 0, "by_error": {},
        }  # fmt: skip

    def test_percentiles_are_in_order(self, simulate: Any) -> None:
        found = simulate("--rate", 20, "--requests", 200)
        for name in ("ttft", "tpot", "itl", "e2e"):
            row = found[f"{name}_ms"]
            assert row["p50"] <= row["p90"] <= row["p95"] <= row["p99"]

    def test_constant_arrivals_are_evenly_spread(self, simulate: Any) -> None:
        """100 requests at 10/s last 10 s and the last one's own time; no two meet by chance."""
        even = simulate("--rate", 10, "--requests", 100, "--arrivals", "constant", *SLOW)
        assert even["load"]["duration_s"] == pytest.approx(10.0, abs=1.5)
        chance = simulate("--rate", 10, "--requests", 100, "--arrivals", "poisson", *SLOW)
        assert even["ttft_ms"]["p99"] <= chance["ttft_ms"]["p99"]

    def test_the_seed_repeats_and_changes(self, simulate: Any) -> None:
        words = ("--rate", 5, "--requests", 30, "--seed")
        one, again, other = (simulate(*words, seed) for seed in (1, 1, 2))
        for found in (one, again, other):
            found.pop("wall_s", None)
        assert one == again
        assert one["ttft_ms"] != other["ttft_ms"]

    def test_drafts_that_are_never_accepted_help_nobody(self, simulate: Any) -> None:
        never, always = (
            simulate("--concurrency", 2, "--requests", 20, "--acceptance", share)["tpot_ms"]["mean"]
            for share in ("0", "1")
        )
        assert never / always == pytest.approx(2.0, rel=0.1), "one draft, always taken: two tokens a step"

    def test_a_preset_of_its_own_name_wins_over_the_plans(self, simulate: Any) -> None:
        assert simulate("--requests", 5, "--rate", 1)["workload"]["id"] == "chat"
        assert (
            simulate("--requests", 5, "--rate", 1, "--workload", "extraction")["workload"]["id"]
            == "extraction"
        )

    def test_a_trace_is_played_as_recorded(self, simulate: Any, trace: Path) -> None:
        """Ten requests over nine seconds."""
        found = simulate("--trace", trace)
        assert found["requests"]["sent"] == 10
        assert found["workload"]["mean_input_tokens"] == 500
        assert found["workload"]["mean_output_tokens"] == 10
        assert found["load"]["rate"] == pytest.approx(10 / 9)
        assert simulate("--trace", trace, "--requests", 4)["requests"]["sent"] == 4

    def test_azures_csv_is_understood(self, simulate: Any, tmp_path: Path) -> None:
        path = tmp_path / "azure.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["TIMESTAMP", "ContextTokens", "GeneratedTokens"])
            rows.writerows([f"2023-11-16 18:00:0{i}.0000000", 100 + i, 10] for i in range(3))
        found = simulate("--trace", path)
        assert found["requests"]["sent"] == 3
        assert found["workload"]["mean_input_tokens"] == 101

    def test_text_and_json_agree(self, cli: Cli, simulate: Any, saved: Path) -> None:
        words = ("--rate", 5, "--requests", 40)
        data, shown = simulate(*words), cli("simulate", "--plan", saved, *words)
        assert shown.out.startswith("SIMULATED ")
        for name in ("ttft", "tpot", "itl", "e2e"):
            cells = [f"{data[f'{name}_ms'][key]:,.1f}" for key in ("mean", "p50", "p90", "p99")]
            assert shown.row(name.upper()) == [name.upper(), *cells]
        assert f"{data['output_tokens_per_s']:,.0f} output tokens/s" in shown.text
        assert "40 done, 0 refused" in shown.text
        assert shown.err == ""

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--rate", "1", "--concurrency", "1"), "--rate and --concurrency exclude each other"),
            (("--rate", "1", "--trace", "t"), "--rate and --trace exclude each other"),
            (("--concurrency", "1", "--trace", "t"), "--concurrency and --trace exclude each other"),
            (("--rate", "0"), "0.0 is not in the range x>0"),
            (("--rate", "nan"), "'nan' is no finite number"),
            (("--requests", "0"), "0 is not in the range x>=1"),
            (("--seed", "-1"), "-1 is not in the range x>=0"),
            (("--arrivals", "bursty"), "'bursty' is not one of 'poisson', 'constant'"),
            (("--acceptance", "1.5"), "--acceptance '1.5': expected shares within 0 and 1"),
            (("--acceptance", "0.5,0.6"), "none above the one before"),
            (("--acceptance", "most"), "--acceptance 'most': expected shares"),
            (("--workload", "nope"), "--workload 'nope': no such preset"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, saved: Path, words: tuple[str, ...], says: str) -> None:
        cli("simulate", "--plan", saved, *words).refused(says)


class TestFleet:
    FEW = ("--rate", 6, "--requests", 60)

    def test_two_replicas_cost_twice_one(self, simulate: Any) -> None:
        """By the hour; the day's bill is that of 24 hours."""
        one, two = (simulate("--replicas", n, *self.FEW) for n in (1, 2))
        assert two["usd_per_day"] == pytest.approx(2 * one["usd_per_day"])
        pool = one["pools"][0]
        assert one["usd_per_day"] == pytest.approx(24 * pool["usd_per_replica_hour"])

    def test_more_replicas_wait_less(self, simulate: Any) -> None:
        busy = ("--rate", 120, "--requests", 300)
        one, three = (simulate("--replicas", n, *busy)["ttft_ms"]["mean"] for n in (1, 3))
        assert three <= one

    def test_another_rent(self, simulate: Any) -> None:
        """Two GPUs of 5 USD."""
        found = simulate("--replicas", 1, "--gpu-price", 5, *self.FEW)
        assert found["pools"][0]["usd_per_replica_hour"] == 10.0

    def test_the_apis_bill_is_of_the_answered_requests(self, simulate: Any) -> None:
        """Mean tokens in and out of the sixty at 3 and 15 USD."""
        found = simulate("--replicas", 1, *self.FEW)
        usd = 60 * (found["mean_input_tokens"] * 3 + found["mean_output_tokens"] * 15) / 1e6
        assert found["api"][0]["id"] == "claude-sonnet-4.6"
        assert found["api"][0]["usd"] == pytest.approx(usd)

    def test_a_limit_that_nobody_keeps_is_5(self, cli: Cli, saved: Path) -> None:
        """The figures come all the same."""
        done = cli("simulate", "--plan", saved, "--replicas", 1, *self.FEW, "--slo", "ttft=1", "--json")
        assert done.code == 5
        assert done.data["kept_slo"] < 0.9
        assert "SLO missed" in done.err
        assert cli("simulate", "--plan", saved, "--replicas", 1, *self.FEW, "--slo", "ttft=90000").code == 0

    def test_text_and_json_agree(self, cli: Cli, simulate: Any, saved: Path) -> None:
        words = ("--replicas", 2, *self.FEW)
        data, said = simulate(*words), cli("simulate", "--plan", saved, *words).text
        assert said.startswith("SIMULATED chat for")
        assert "60 requests" in said
        assert f"{data['usd_per_day']:,.0f} USD a day" in said
        assert f"{data['api'][0]['name']}: {data['api'][0]['usd_per_day']:,.0f} USD a day" in said
        assert f"{data['kept_slo']:.2%} of requests kept it" in said

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--replicas", "0"), "--replicas '0': no number of replicas"),
            (("--replicas", "3..2"), "--replicas '3..2': no number of replicas"),
            (("--replicas", "1..4"), "nothing says when to have how many"),
            (("--replicas", "many"), "--replicas 'many'"),
            (("--replicas", "1", "--slo", "ttft"), "--slo 'ttft': expected KEY=VALUE"),
            (("--replicas", "1", "--slo", "p=99"), "--slo 'p=99': expected limits in ms"),
            (("--replicas", "1", "--slo", "speed=3"), "--slo 'speed=3': expected limits"),
            (("--replicas", "1", "--slo", "ttft=-3"), "--slo ttft: '-3' is no number above 0"),
            (("--replicas", "1", "--slo", "ttft=inf"), "--slo ttft: 'inf' is no number"),
            (("--replicas", "1..2", "--autoscale", "mood=3"), "--autoscale mood=3: not understood"),
            (("--replicas", "1..2", "--autoscale", "poll=3"), "no metric"),
            (("--replicas", "1..2", "--autoscale", "in-flight=3,up=x"), "--autoscale: policy 'x'"),
            (("--replicas", "1", "--schedule", "25:00-26:00=2"), "--schedule '25:00-26:00=2': not"),
            (("--replicas", "1", "--spot", "often"), "--spot: 'often' is no number"),
            (("--replicas", "1", "--start-up", "slow"), "--start-up 'slow': expected cold, warm"),
            (("--replicas", "1", "--fail-mtbf", "0"), "0.0 is not in the range x>0"),
            (("--replicas", "1", "--routing", "random"), "'random' is not one of"),
            (("--replicas", "1", "--peak-hour", "25"), "25.0 is not in the range 0<=x<=24"),
            (("--replicas", "1", "--concurrency", "3"), "--concurrency drives one engine"),
            (("--replicas", "1", "--days", "1", "--requests", "3"), "--days and --requests both say"),
            (("--html", "nowhere/f.html"), "--html nowhere/f.html: no such folder"),
            (("--save", "nowhere/f.json"), "--save nowhere/f.json: no such folder"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, saved: Path, words: tuple[str, ...], says: str) -> None:
        rate = () if "--concurrency" in words else ("--rate", "2")
        cli("simulate", "--plan", saved, *words, *rate).refused(says)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("2xH200,colour=red", "no key colour"),
            (",replicas=2", "no plan and no GPUs"),
            ("2xH200,usd=cheap", "--pool usd=cheap: no number"),
            ("2xH200,replicas=0", "no number of replicas"),
            ("2xH200,start=soon", "--start-up 'soon'"),
            ("2xNothing", "no GPU called 'Nothing'"),
            ("2xH200,replicas", "expected KEY=VALUE"),
        ],
    )
    def test_wrong_pools(self, cli: Cli, text: str, says: str) -> None:
        cli("simulate", "--pool", text, "--rate", "2").refused(says)

    def test_a_fleet_needs_a_load(self, cli: Cli, saved: Path) -> None:
        cli("simulate", "--plan", saved, "--replicas", 1).refused("a fleet needs a load", "--rate R")

    def test_pools_are_named_and_priced_apart(self, simulate: Any, cli: Cli) -> None:
        """Of two alike the second gets a number; each its own rent."""
        done = cli(
            "simulate", "--pool", "2xH200,usd=1", "--pool", "2xH200,usd=2", *self.FEW, "--json",
        )  # fmt: skip
        assert done.code == 0, done.err
        pools = done.data["pools"]
        assert pools[1]["name"] == f"{pools[0]['name']} #2"
        assert [pool["usd_per_replica_hour"] for pool in pools] == [2.0, 4.0]

    def test_a_search_for_the_rate_takes_no_load(self, cli: Cli, saved: Path, trace: Path) -> None:
        for words in (("--concurrency", 3), ("--trace", trace)):
            cli("simulate", "--plan", saved, "--slo", "ttft=900", *words).refused(
                "--slo alone searches the rate"
            )
