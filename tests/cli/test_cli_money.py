"""``cost``, ``compare``, ``advise`` and ``report``: bills that can be multiplied out by hand."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_kit import Cli

    from qwenhost.facts import Catalog

SONNET = "claude-sonnet-4.6"
MONTH = 365 / 12  # days
# Sonnet 4.6, USD a million: 3 in, 15 out, 3.75 written for 5 minutes, 6 for an hour, 0.3 read.
IN, OUT, WRITE_5M, WRITE_1H, READ = (usd / 1e6 for usd in (3.0, 15.0, 3.75, 6.0, 0.3))
CHAT = (1155, 211)  # mean tokens in and out


@pytest.fixture
def cost(cli: Cli) -> Callable[..., dict[str, Any]]:
    """Sonnet's line of ``qwenhost cost``."""

    def ask(*words: object) -> dict[str, Any]:
        done = cli("cost", *words, "--json")
        assert done.code == 0, done.err
        line = next(one for one in done.data["api"] if one["id"] == SONNET)
        return {**line, "quote": done.data}

    return ask


@pytest.fixture
def compare(cli: Cli, saved: Path) -> Callable[..., dict[str, Any]]:
    """``qwenhost compare`` for the saved plan, as data."""

    def ask(*words: object) -> dict[str, Any]:
        done = cli("compare", "--plan", saved, *words, "--json")
        assert done.code == 0, done.err
        found: dict[str, Any] = done.data
        return found

    return ask


class TestCost:
    def test_a_mean_chat_request(self, cost: Any) -> None:
        """1,155 * 3 + 211 * 15 USD a million = 0.00663."""
        assert cost("--workload", "chat")["usd_per_request"] == pytest.approx(0.00663)

    @pytest.mark.parametrize(("tokens_in", "tokens_out"), [(1, 1), (1000, 1000), (100_000, 10)])
    def test_given_sizes(self, cost: Any, tokens_in: int, tokens_out: int) -> None:
        found = cost("--input-tokens", tokens_in, "--output-tokens", tokens_out)["breakdown"]
        assert found["uncached_input"] == pytest.approx(tokens_in * IN)
        assert found["output"] == pytest.approx(tokens_out * OUT)

    def test_a_cache_of_five_minutes(self, cost: Any) -> None:
        """Of 10,000 tokens 9,000 are read; the other 1,000 are written for the next."""
        found = cost("--input-tokens", 10_000, "--output-tokens", 100, "--prefix-hit", 0.9, "--cache", "5m")
        bill = found["breakdown"]
        assert bill["cache_read"] == pytest.approx(9_000 * READ)
        assert bill["cache_write"] + bill["uncached_input"] == pytest.approx(1_000 * WRITE_5M)
        assert found["cache_policy"] == "5m"

    def test_a_cache_of_an_hour_costs_more_to_write(self, cost: Any) -> None:
        words = ("--input-tokens", 10_000, "--output-tokens", 100, "--prefix-hit", 0.9)
        short, long = (cost(*words, "--cache", name)["breakdown"]["cache_write"] for name in ("5m", "1h"))
        assert long / short == pytest.approx(WRITE_1H / WRITE_5M)

    def test_without_a_cache_every_token_is_new(self, cost: Any) -> None:
        found = cost("--input-tokens", 10_000, "--output-tokens", 100, "--prefix-hit", 0.9, "--cache", "none")
        assert found["breakdown"]["uncached_input"] == pytest.approx(10_000 * IN)
        assert found["breakdown"]["cache_read"] == 0

    def test_auto_takes_the_cheapest(self, cost: Any) -> None:
        words = ("--input-tokens", 10_000, "--output-tokens", 100, "--prefix-hit", 0.9)
        usd = {
            name: cost(*words, "--cache", name)["usd_per_request"] for name in ("auto", "none", "5m", "1h")
        }
        assert usd["auto"] == min(usd.values())

    def test_a_batch_is_half(self, cost: Any) -> None:
        assert cost("--batch")["usd_per_request"] == pytest.approx(0.00663 / 2)

    def test_residency_is_a_tenth_more(self, cost: Any) -> None:
        """1.1 on every token."""
        assert cost("--residency", "us")["usd_per_request"] == pytest.approx(0.00663 * 1.1)

    def test_searches_are_a_cent_each(self, cost: Any) -> None:
        """10 USD a thousand."""
        assert cost("--web-searches", 2.5)["breakdown"]["fees"] == pytest.approx(0.025)

    @pytest.mark.parametrize("choice", ["auto", "any"])
    def test_tools_come_with_a_prompt(self, cost: Any, known: Catalog, choice: str) -> None:
        """Its tokens are billed as input."""
        kind = {"auto": "auto_or_none", "any": "any_or_tool"}[choice]
        more = known.api_prices[SONNET].tool_system_prompt_tokens[kind]
        found = cost("--tools", choice)["usage"]["uncached_input_tokens"]
        assert found == CHAT[0] + more

    def test_a_picture_adds_tokens_by_its_pixels(self, cost: Any) -> None:
        """Four times the pixels, more tokens; output stays."""
        small, large = (cost("--image", size)["usage"] for size in ("200x200", "800x800"))
        assert CHAT[0] < small["uncached_input_tokens"] < large["uncached_input_tokens"]
        assert small["output_tokens"] == CHAT[1]

    def test_pictures_add_up(self, cost: Any) -> None:
        one = cost("--image", "400x400")["usage"]["uncached_input_tokens"] - CHAT[0]
        three = cost(*("--image", "400x400") * 3)["usage"]["uncached_input_tokens"] - CHAT[0]
        assert three == pytest.approx(3 * one)

    def test_prices_are_of_the_day(self, cost: Any) -> None:
        """Above 200,000 tokens a request cost twice as much until 2026-03-12."""
        words = ("--input-tokens", 300_000, "--output-tokens", 100, "--cache", "none")
        before, after = (cost(*words, "--as-of", day) for day in ("2026-03-12", "2026-03-13"))
        assert before["breakdown"]["uncached_input"] == pytest.approx(
            2 * after["breakdown"]["uncached_input"]
        )
        assert before["usage"]["long_context"] or before["breakdown"] != after["breakdown"]

    def test_baselines_are_the_ones_asked_for_in_order(self, cli: Cli) -> None:
        names = ["qwen3.5-122b-alibaba", SONNET]
        found = cli("cost", *(word for name in names for word in ("--baseline", name)), "--json").data["api"]
        assert [one["id"] for one in found][:2] == names

    def test_text_and_json_agree(self, cli: Cli) -> None:
        """Name and price of every offer that is shown."""
        shown = cli("cost").text
        for one in cli("cost", "--json").data["api"][:3]:
            assert one["name"].removeprefix("Qwen3.5-122B-A10B on ")[:12] in shown
        assert "$0.00663" in shown

    @pytest.mark.parametrize(
        ("rows", "usd"),
        [
            # OpenAI's: cached tokens are part of the prompt.
            ([{"prompt_tokens": 1000, "completion_tokens": 10}], 1000 * IN + 10 * OUT),
            (
                [{"prompt_tokens": 1000, "completion_tokens": 10,
                  "prompt_tokens_details": {"cached_tokens": 400}}],
                600 * IN + 400 * READ + 10 * OUT,
            ),
            # Anthropic's: they stand beside the rest.
            (
                [{"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 100,
                  "cache_creation_input_tokens": 20}],
                5 * IN + 7 * OUT + 100 * READ + 20 * WRITE_5M,
            ),
            ([{"input_tokens": 1, "output_tokens": 1}] * 3, 3 * (IN + OUT)),
        ],
        ids=["openai", "openai cached", "anthropic", "three"],
    )  # fmt: skip
    def test_recorded_usage_is_billed_as_recorded(
        self, cost: Any, tmp_path: Path, rows: list[dict[str, Any]], usd: float
    ) -> None:
        path = tmp_path / "usage.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        found = cost("--usage", path)
        assert found["usd_total"] == pytest.approx(usd)
        assert found["quote"]["requests"] == len(rows)
        assert found["usd_per_request"] == pytest.approx(usd / len(rows))

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--cache", "1d"), "'1d' is not one of 'auto', 'none', '5m', '1h'"),
            (("--residency", "moon"), "no price for residency 'moon'"),
            (("--image", "wide"), "--image 'wide': not a size in pixels"),
            (("--image", "0x5"), "--image '0x5': not a size in pixels"),
            (("--image", "-1x5"), "--image '-1x5': not a size in pixels"),
            (("--web-searches", "-1"), "-1.0 is not in the range x>=0"),
            (("--web-searches", "nan"), "'nan' is no finite number"),
            (("--as-of", "2026-02-30"), "--as-of"),
            (("--as-of", "2019-01-01"), "Choose --as-of within"),
            (("--baseline", "gpt"), "--baseline 'gpt': no such price"),
            (("--prefix-hit", "1.1"), "1.1 is not in the range 0<=x<=1"),
            (("--input-tokens", "0"), "0 is not in the range x>=1"),
            (("--tools", "some"), "'some' is not one of 'auto', 'any'"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, words: tuple[str, ...], says: str) -> None:
        cli("cost", *words).refused(says)


class TestCompare:
    def test_a_month_is_the_rent_of_the_nodes(self, compare: Any) -> None:
        """Nodes * 2 GPUs * USD/h * 730 h."""
        own = compare("--requests-per-day", 50_000, "--gpu-price", 3.5)["self_host"]
        assert own["monthly"]["nodes"] == pytest.approx(own["nodes"] * 2 * 3.5 * 730)
        assert own["usd_per_month"] == pytest.approx(sum(own["monthly"].values()))
        assert own["usd_per_request"] == pytest.approx(own["usd_per_month"] / (50_000 * MONTH))

    def test_the_api_by_volume(self, compare: Any) -> None:
        """50,000 a day at 0.00663 USD."""
        line = next(one for one in compare("--requests-per-day", 50_000)["api"] if one["is_baseline"])
        assert line["id"] == SONNET
        assert line["usd_per_month"] == pytest.approx(50_000 * MONTH * 0.00663)

    def test_at_the_break_even_both_cost_the_same(self, compare: Any) -> None:
        """Asked for again at that volume, the bills meet."""
        volume = compare("--requests-per-day", 50_000)["break_even"]["requests_per_day"]
        again = compare("--requests-per-day", volume)
        api = next(one for one in again["api"] if one["is_baseline"])
        assert again["self_host"]["usd_per_month"] == pytest.approx(api["usd_per_month"], rel=0.01)

    @pytest.mark.parametrize(("volume", "choice"), [(1_000, "api"), (2_000_000, "self_host")])
    def test_the_verdict_follows_the_bills(self, compare: Any, volume: int, choice: str) -> None:
        found = compare("--requests-per-day", volume)
        api = next(one for one in found["api"] if one["is_baseline"])["usd_per_month"]
        assert (found["self_host"]["usd_per_month"] < api) == (choice == "self_host")
        assert found["verdict"]["choice"] == choice

    def test_staff_is_their_share_of_a_salary(self, compare: Any, known: Catalog) -> None:
        """Twice the people, twice the money; none, none."""
        words = ("--requests-per-day", 50_000, "--staff-fte")
        none, one, two = (compare(*words, fte)["self_host"]["monthly"]["staff"] for fte in (0, 1, 2))
        assert none == 0
        assert two == pytest.approx(2 * one)
        assert one > 1_000

    def test_spare_nodes_are_paid(self, compare: Any) -> None:
        words = ("--requests-per-day", 50_000, "--spare-nodes")
        none, two = (compare(*words, n)["self_host"] for n in (0, 2))
        assert two["nodes"] - none["nodes"] == 2
        assert two["monthly"]["nodes"] > none["monthly"]["nodes"]

    def test_a_peaky_day_needs_more_nodes(self, compare: Any) -> None:
        words = ("--requests-per-day", 3_000_000, "--mean-over-peak")
        flat, peaky = (compare(*words, share)["self_host"]["serving_nodes"] for share in (1, 0.2))
        assert peaky > flat

    def test_another_tokenizer_scales_the_apis_input(self, compare: Any) -> None:
        words = ("--requests-per-day", 50_000, "--token-ratio")
        one, more = (compare(*words, ratio)["api"][0]["usage"] for ratio in (1, 1.2))
        assert more["uncached_input_tokens"] == pytest.approx(1.2 * one["uncached_input_tokens"])

    def test_success_prices_a_solved_task(self, compare: Any) -> None:
        """Retried until solved, an attempt that succeeds every other time costs two: 2 * 0.00663 USD."""
        mine = compare("--success", "qwen=0.25,sonnet=0.5")["quality"][0]
        assert (mine["qwen"], mine["baseline"], mine["source"]) == (25.0, 50.0, "--success")
        assert (mine["qwen_attempts"], mine["baseline_attempts"]) == (4.0, 2.0)
        assert mine["baseline_usd_per_solved"] == pytest.approx(2 * 0.00663)

    def test_attempts_may_be_given_up(self, compare: Any) -> None:
        """Of two tries at one half, three quarters are solved, by 1.5 attempts."""
        mine = compare("--success", "qwen=0.5,sonnet=0.5", "--max-attempts", 2)["quality"][0]
        assert (mine["baseline_attempts"], mine["baseline_solved"]) == (1.5, 0.75)
        assert mine["baseline_usd_per_solved"] == pytest.approx(1.5 * 0.00663 / 0.75)

    def test_owned_hardware_replaces_the_rent(self, compare: Any) -> None:
        """A dearer purchase costs more a month; a longer life less."""
        words = ("--requests-per-day", 50_000, "--own")

        def nodes(*more: object) -> float:
            return float(compare(*words, *more)["self_host"]["monthly"]["nodes"])

        assert nodes("--own-usd", 80_000) > nodes("--own-usd", 40_000)
        assert nodes("--own-usd", 40_000, "--own-years", 6) < nodes("--own-usd", 40_000, "--own-years", 3)
        assert nodes("--electricity-usd-per-kwh", 0.4) > nodes("--electricity-usd-per-kwh", 0.1)
        assert nodes("--colo-usd-per-kw-month", 400) > nodes("--colo-usd-per-kw-month", 100)
        assert nodes("--own-kw", 3) > nodes("--own-kw", 1)
        assert nodes("--electricity-usd-per-kwh", 0.2, "--pue", 2) > nodes(
            "--electricity-usd-per-kwh", 0.2, "--pue", 1
        )

    @pytest.mark.parametrize(
        "flag",
        [
            "--own-usd",
            "--own-years",
            "--own-kw",
            "--colo-usd-per-kw-month",
            "--electricity-usd-per-kwh",
            "--pue",
        ],
    )
    def test_figures_of_owned_hardware_need_own(self, cli: Cli, saved: Path, flag: str) -> None:
        cli("compare", "--plan", saved, flag, "2").refused("the figures of owned hardware need --own")

    def test_another_workload_wins_over_the_plans(self, compare: Any) -> None:
        assert compare("--workload", "rag")["workload"]["id"] == "rag"
        assert compare()["workload"]["id"] == "chat"

    def test_sizes_alone_change_the_plans_own_workload(self, cli: Cli, tmp_path: Path) -> None:
        """Of a plan for code, the code's output stays where only the input is given; not that of chat."""
        path = tmp_path / "plan.json"
        assert cli("plan", "--gpus", "2xH200", "--workload", "coding_agent", "--save", path).code == 0
        found = cli("compare", "--plan", path, "--input-tokens", 50_000, "--json").data["workload"]
        assert found["id"] == "coding_agent"
        assert json.dumps(found).count("440") >= 1, "coding_agent's mean output"

    @pytest.mark.parametrize("flag", ["--slo-ttft-ms", "--slo-tpot-ms", "--rate", "--concurrency"])
    def test_a_prediction_cannot_be_judged_anew(self, cli: Cli, saved: Path, flag: str) -> None:
        """Load and limits are of the plan, unless it is measured now."""
        cli("compare", "--plan", saved, flag, "5").refused(f"{flag}: {saved} has decided that")

    def test_text_says_what_json_holds(self, cli: Cli, saved: Path) -> None:
        words = ("compare", "--plan", saved, "--requests-per-day", "50000")
        data, shown = cli(*words, "--json").data, re.sub(r"[│╭╮╰╯─]+", " ", cli(*words).out)
        said = " ".join(shown.split())
        assert data["verdict"]["headline"] in said
        assert data["verdict"]["sentence"] in said
        assert f"${data['self_host']['usd_per_month']:,.0f}" in said
        assert data["catalog_digest"][:12] in said

    def test_what_was_not_measured_is_called_predicted(self, cli: Cli, saved: Path) -> None:
        assert "PREDICTED: no hardware was measured." in cli("compare", "--plan", saved).out

    @pytest.mark.parametrize("columns", ["60", "80", "120"])
    def test_it_fits_the_width(
        self, cli: Cli, saved: Path, monkeypatch: pytest.MonkeyPatch, columns: str
    ) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        out = cli("compare", "--plan", saved).out
        assert max(map(len, out.splitlines())) <= int(columns)

    def test_presets_side_by_side(self, cli: Cli) -> None:
        """Each as it would be alone."""
        words = ("compare", "--gpus", "2xH200", "--requests-per-day", "9000")
        rows = cli(*words, "--workloads", "chat, rag", "--json").data
        assert set(rows) == {"chat", "rag"}
        alone = cli(*words, "--workload", "rag", "--json").data
        assert rows["rag"]["self_host"] == alone["self_host"]
        assert rows["rag"]["break_even"] == alone["break_even"]

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--workloads", "chat,rag", "--workload", "rag"), "--workloads predicts several presets"),
            (("--workloads", "chat", "--save", "x.json"), "--workloads predicts several presets"),
            (("--workloads", "chat,,rag"), "--workload '': no such preset"),
            (("--workloads", ""), "--workload '': no such preset"),
            (("--workloads", "chat,nope"), "--workload 'nope': no such preset"),
            (("--duration", "30"), "--duration has no effect without --engine"),
            (("--duration", "4", "--engine", "simulated"), "4.0 is not in the range 5<=x<=86400"),
            (("--success", "qwen=1.1"), "--success 'qwen=1.1': not a name and a rate"),
            (("--success", "gpt=0.5"), "--success 'gpt=0.5': not a name and a rate"),
            (("--success", "qwen"), "--success 'qwen': not a name and a rate"),
            (("--requests-per-day", "0"), "0.0 is not in the range x>0"),
            (("--requests-per-day", "inf"), "'inf' is no finite number"),
            (("--staff-fte", "nan"), "'nan' is no finite number"),
            (("--token-ratio", "inf"), "'inf' is no finite number"),
            (("--mean-over-peak", "1.5"), "1.5 is not in the range 0<x<=1"),
            (("--spare-nodes", "-1"), "-1 is not in the range x>=0"),
            (("--max-attempts", "0"), "0 is not in the range x>=1"),
            (("--pue", "0.5", "--own"), "0.5 is not in the range x>=1"),
            (("--gpu-tier", "stolen"), "'stolen' is not one of"),
            (("--engine", "simulated", "--measurements", "m.json"), "--engine and --measurements"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values(self, cli: Cli, words: tuple[str, ...], says: str) -> None:
        cli("compare", "--gpus", "2xH200", *words).refused(says)

    def test_pictures_go_with_no_file(self, cli: Cli, saved: Path) -> None:
        cli("compare", "--plan", saved, "--image", "10x10").refused("it goes with neither --plan nor --usage")


class TestAdvise:
    def test_the_least_money_without_other_needs(self, cli: Cli, saved: Path) -> None:
        data = cli("advise", "--plan", saved, "--requests-per-day", 50_000, "--json").data
        assert data["schema"] == "qwenhost.advice/1"
        assert data["choice"] == "hosted_qwen"

    @pytest.mark.parametrize("need", ["--privacy", "--no-operations", "--open-weights", "--long-context"])
    def test_a_need_is_among_the_reasons(self, cli: Cli, saved: Path, need: str) -> None:
        """And is not without it."""
        words = ("advise", "--plan", saved, "--requests-per-day", 50_000, "--json")
        name = need.removeprefix("--").replace("-", "_")
        asked, without = cli(*words, need).data, cli(*words).data
        assert name in {reason["need"] for reason in asked["reasons"]}
        assert name not in {reason["need"] for reason in without["reasons"]}

    def test_privacy_keeps_prompts_at_home(self, cli: Cli, saved: Path) -> None:
        data = cli("advise", "--plan", saved, "--requests-per-day", 50_000, "--privacy", "--json").data
        assert data["choice"] == "self_host"

    def test_piped_it_asks_nothing(self, cli: Cli, saved: Path) -> None:
        """No terminal, no question."""
        done = cli("advise", "--plan", saved)
        assert (done.code, done.err) == (0, "")
        assert "[y/N]" not in done.out

    def test_text_begins_with_the_headline(self, cli: Cli, saved: Path) -> None:
        words = ("advise", "--plan", saved, "--requests-per-day", "50000")
        said = " ".join(re.sub(r"[│╭╮╰╯─]+", " ", cli(*words).out).split())
        data = cli(*words, "--json").data
        assert said.startswith(data["headline"])
        for caution in data["cautions"]:
            assert " ".join(caution.split()) in said


class TestReport:
    def test_a_saved_one_is_shown_as_when_it_was_made(self, cli: Cli, saved: Path, compared: Path) -> None:
        """No price is asked for again."""
        first = cli("compare", "--plan", saved, "--requests-per-day", "50000").out
        assert cli("report", compared).out == first

    def test_json_is_the_file(self, cli: Cli, compared: Path) -> None:
        assert cli("report", compared, "--json").data == json.loads(compared.read_bytes())

    def test_several_stand_side_by_side(self, cli: Cli, compared: Path, tmp_path: Path) -> None:
        """By the file's name."""
        paths = [tmp_path / "old.json", tmp_path / "new.json"]
        for path in paths:
            shutil.copy(compared, path)
        done = cli("report", *paths)
        assert {"old", "new"} <= set(done.text.split())
        assert set(cli("report", *paths, "--json").data) == {"old", "new"}

    def test_files_of_one_name_stay_apart(self, cli: Cli, compared: Path, tmp_path: Path) -> None:
        """Two folders, the same name in both: none is lost."""
        paths = [tmp_path / folder / "comparison.json" for folder in ("a", "b")]
        for path in paths:
            path.parent.mkdir()
            shutil.copy(compared, path)
        assert set(cli("report", *paths, "--json").data) == {str(path) for path in paths}

    @pytest.mark.parametrize("option", [("--html", "x.html"), ("--csv", "tables")])
    def test_files_take_one(self, cli: Cli, compared: Path, option: tuple[str, str]) -> None:
        cli("report", compared, compared, *option).refused("--html and --csv take one comparison")

    def test_none_is_usage(self, cli: Cli) -> None:
        cli("report").refused("Missing argument 'FILE...'")
