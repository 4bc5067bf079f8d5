"""``qwenhost plan``: figures that follow from the catalog, text and JSON that agree, options that act."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.units import format_gib

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cli_kit import Cli

    from qwenhost.facts import Catalog

G = ("plan", "--gpus", "2xH200")
GIB = 2**30


@pytest.fixture
def plan(cli: Cli) -> Callable[..., dict[str, Any]]:
    """``plan("--rate", "3")`` for two H200, as data."""

    def ask(*words: object, gpus: str = "2xH200") -> dict[str, Any]:
        done = cli("plan", "--gpus", gpus, *words, "--json")
        assert done.code == 0, done.err
        found: dict[str, Any] = done.data
        return found

    return ask


class TestFigures:
    """Against the catalog's rows and simple products."""

    def test_the_rent_is_the_cheapest_listed(self, plan: Any, known: Catalog) -> None:
        """On demand, for as many GPUs as a node has; two GPUs cost twice one."""
        cheapest = min(
            row.usd_per_gpu_hour
            for row in known.gpu_prices
            if row.gpu == "h200" and row.tier == "on_demand" and row.min_gpus <= 8
        )
        found = plan()
        assert found["inputs"]["gpu_price"]["usd_per_gpu_hour"] == cheapest
        assert found["chosen"]["usd_per_hour"] == pytest.approx(2 * cheapest)

    @pytest.mark.parametrize("usd", [0.5, 4.0, 20.0])
    def test_tokens_cost_the_rent_over_their_rate(self, plan: Any, usd: float) -> None:
        """usd/h for 2 GPUs / 3600 s / tokens per second * 1e6."""
        chosen = plan("--gpu-price", usd)["chosen"]
        rate = chosen["estimate"]["output_tokens_per_s"]["value"]
        assert chosen["usd_per_hour"] == pytest.approx(2 * usd)
        assert chosen["usd_per_mtok_output"] == pytest.approx(2 * usd / 3600 / rate * 1e6)

    def test_memory_adds_up(self, plan: Any, known: Catalog) -> None:
        """The parts are the whole that vLLM may use, which is the GPU's share."""
        found = plan()
        memory, args = found["chosen"]["memory_per_gpu"], found["chosen"]["engine_args"]
        assert memory["total_bytes"] == known.gpus["h200"].memory_bytes
        share = args["gpu_memory_utilization"]
        # vLLM's own total is what CUDA reports, 0.5 % below NVML's at most.
        assert share * 0.995 <= memory["usable_bytes"] / memory["total_bytes"] <= share
        parts = ("weights", "activation", "cudagraph", "non_torch", "kv_cache")
        whole = sum(memory[f"{name}_bytes"] for name in parts)
        assert whole == pytest.approx(memory["usable_bytes"], rel=1e-3)

    def test_the_cache_is_whole_blocks(self, plan: Any) -> None:
        """Blocks * tokens of a block; the concurrency vLLM prints is its tokens over the context's."""
        cache = plan()["chosen"]["kv_cache"]
        assert cache["num_blocks"] == int(cache["num_blocks"]) > 0
        assert cache["tokens"] > 0
        assert cache["max_concurrency_at_max_model_len"] > 1

    def test_weights_are_the_checkpoints_halved_over_two_gpus(self, plan: Any, known: Catalog) -> None:
        """TP2 holds about half of what the repository has on disk; replicated layers make it a bit more."""
        found = plan("--checkpoint", "fp8", "-tp", 2, "--num-speculative-tokens", 0)
        disk = known.checkpoints["fp8"].disk_bytes
        held = found["chosen"]["memory_per_gpu"]["weights_bytes"]
        assert 0.45 < held / disk < 0.55

    @pytest.mark.parametrize("gpus", ["2xH200", "4xH100-80GB", "2xB200", "8xA100-80GB"])
    def test_every_estimate_lies_in_its_band(self, plan: Any, gpus: str) -> None:
        """And says on what it rests."""
        for name, one in plan(gpus=gpus)["chosen"]["estimate"].items():
            if isinstance(one, dict) and "low" in one:
                assert one["low"] <= one["value"] <= one["high"], name
                assert one["basis"] in {"measured", "modelled", "assumed"}

    def test_text_and_json_agree(self, cli: Cli, plan: Any) -> None:
        """The same choice, context, memory, speed and money."""
        data, shown = plan(), cli(*G)
        chosen, said = data["chosen"], shown.text
        args, memory, speed = chosen["engine_args"], chosen["memory_per_gpu"], chosen["estimate"]
        assert chosen["checkpoint"]["repo_id"] in said
        assert f"context per request {args['max_model_len']:,} tokens" in said
        assert f"{format_gib(memory['weights_bytes'])} weights" in said
        assert f"{format_gib(memory['kv_cache_bytes'])} cache" in said
        assert f"output {speed['output_tokens_per_s']['value']:,.0f} tokens/s" in said
        assert f"first token {speed['ttft_ms']['value']:,.0f} ms" in said
        assert f"per token {speed['tpot_ms']['value']:,.1f} ms" in said
        assert f"${chosen['usd_per_hour']:.2f}/h" in said
        price = data["inputs"]["gpu_price"]
        assert f"({price['provider']}, {price['tier']}, {price['as_of']})" in said

    def test_the_command_shown_is_the_one_in_json(self, cli: Cli, plan: Any) -> None:
        """Ready to be copied: one line, quoted for a shell."""
        argv = plan()["chosen"]["vllm_argv"]
        line = next(line for line in cli(*G).out.splitlines() if line.startswith("vllm serve "))
        assert shlex.split(line) == argv

    def test_alternatives_are_the_next_best(self, cli: Cli, plan: Any) -> None:
        """--top decides how many are shown, never how many there are."""
        data = plan()
        for top in (0, 1, 5):
            shown = cli(*G, "--top", top)
            found = [
                one
                for one in data["alternatives"]
                if re.search(rf"^{re.escape(_label(one))} ", shown.out, re.MULTILINE)
            ]
            assert found == data["alternatives"][:top]
        assert "Alternatives" not in cli(*G, "--top", 0).out


def _label(candidate: dict[str, Any]) -> str:
    """As the planner names it, from the JSON's parts."""
    layout, args = candidate["parallelism"], candidate["engine_args"]
    parts = [f"{layout['replicas']}x"] if layout.get("replicas", 1) > 1 else []
    parts.append(f"TP{layout['tensor_parallel_size']}")
    sizes = (
        ("PP", "pipeline_parallel_size"),
        ("DCP", "decode_context_parallel_size"),
        ("DP", "data_parallel_size"),
    )
    parts += [f"{short}{layout[name]}" for short, name in sizes if layout.get(name, 1) > 1]
    parts += ["EP"] if layout["enable_expert_parallel"] else []
    speculative = args.get("speculative_config") or {}
    drafts = f", MTP {speculative['num_speculative_tokens']}" if speculative else ""
    head = f"{candidate['checkpoint']['id']} {' '.join(parts)}"
    return f"{head}, {args['max_model_len']} ctx, kv {args['kv_cache_dtype']}{drafts}"


class TestPins:
    """What is pinned is what is chosen, in engine_args and in vLLM's own words."""

    @pytest.mark.parametrize(
        ("words", "key", "value", "argv"),
        [
            (("--max-model-len", 32768), "max_model_len", 32768, ["--max-model-len", "32768"]),
            (("--max-num-seqs", 24), "max_num_seqs", 24, ["--max-num-seqs", "24"]),
            (
                ("--max-num-batched-tokens", 4096), "max_num_batched_tokens", 4096,
                ["--max-num-batched-tokens", "4096"],
            ),
            (("--kv-cache-dtype", "fp8"), "kv_cache_dtype", "fp8", ["--kv-cache-dtype", "fp8"]),
            (("--gpu-memory-utilization", 0.8), "gpu_memory_utilization", 0.8, ["0.8"]),
            (("--num-speculative-tokens", 0), "speculative_config", None, []),
            (
                ("--num-speculative-tokens", 2), "speculative_config",
                {"method": "mtp", "num_speculative_tokens": 2},
                ["--speculative-config", '{"method":"mtp","num_speculative_tokens":2}'],
            ),
            (("--enable-prefix-caching",), "enable_prefix_caching", True, ["--enable-prefix-caching"]),
            (("--no-enable-prefix-caching",), "enable_prefix_caching", False, ["--no-enable-prefix-caching"]),
            (("--language-model-only",), "language_model_only", True, ["--language-model-only"]),
            (("--gdn-prefill-backend", "triton"), "gdn_prefill_backend", "triton", ["triton"]),
            (("--mamba-ssm-cache-dtype", "bfloat16"), "mamba_ssm_cache_dtype", "bfloat16", ["bfloat16"]),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_an_engine_argument(
        self, plan: Any, words: tuple[object, ...], key: str, value: object, argv: list[str]
    ) -> None:
        chosen = plan(*words)["chosen"]
        found = chosen["engine_args"].get(key)
        if isinstance(value, dict):
            found = {name: found[name] for name in value}
        assert found == value
        joined = " ".join(chosen["vllm_argv"])
        assert " ".join(argv) in joined
        if value is None:
            assert "--speculative-config" not in joined

    @pytest.mark.parametrize(
        ("words", "key", "value"),
        [
            (("-tp", 2), "tensor_parallel_size", 2),
            (("-tp", 1), "tensor_parallel_size", 1),
            (("-pp", 2), "pipeline_parallel_size", 2),
            (("-dp", 2), "data_parallel_size", 2),
            (("-dp", 2, "-ep"), "enable_expert_parallel", True),
            (("-dp", 2, "--no-enable-expert-parallel"), "enable_expert_parallel", False),
            (("--replicas", 2), "replicas", 2),
        ],
    )
    def test_a_layout(self, plan: Any, words: tuple[object, ...], key: str, value: object) -> None:
        found = plan(*words)
        for one in (found["chosen"], *found["alternatives"]):
            assert one["parallelism"].get(key, 1) == value

    @pytest.mark.parametrize("checkpoint", ["fp8", "gptq-int4", "int4-autoround"])
    def test_a_checkpoint(self, plan: Any, known: Catalog, checkpoint: str) -> None:
        """By id; the repository and its commit are the catalog's."""
        found = plan("--checkpoint", checkpoint)
        row = known.checkpoints[checkpoint]
        for one in (found["chosen"], *found["alternatives"]):
            assert one["checkpoint"]["id"] == checkpoint
            assert one["checkpoint"]["repo_id"] == row.repo_id
        assert row.repo_id in found["chosen"]["vllm_argv"]
        if row.revision:
            assert row.revision in found["chosen"]["vllm_argv"]

    def test_a_smaller_share_leaves_less_cache(self, plan: Any) -> None:
        """Seven percent of 140.4 GiB are 9.8 GiB."""
        pinned = ("--checkpoint", "fp8", "-tp", 2, "--max-num-seqs", 64, "--num-speculative-tokens", 0,
                  "--enable-prefix-caching", "--kv-cache-dtype", "auto",
                  "--max-num-batched-tokens", 8192)  # fmt: skip
        more, less = (
            plan(*pinned, "--gpu-memory-utilization", share)["chosen"]["memory_per_gpu"]["kv_cache_bytes"]
            for share in (0.92, 0.85)
        )
        assert (more - less) / GIB == pytest.approx(0.07 * 140.4, rel=0.02)

    def test_a_cache_of_eight_bits_holds_more_tokens(self, plan: Any) -> None:
        """Half the bytes of attention, the same of the linear layers' states."""
        pinned = ("--checkpoint", "fp8", "-tp", 2, "--available-kv-gib", 40, "--num-speculative-tokens", 0)
        wide, narrow = (
            plan(*pinned, "--kv-cache-dtype", dtype)["chosen"]["kv_cache"]["tokens"]
            for dtype in ("auto", "fp8")
        )
        assert 1.2 < narrow / wide <= 2.05

    def test_the_cache_of_a_log_is_taken_as_given(self, plan: Any) -> None:
        """Twice the GiB, twice the blocks."""
        pinned = ("--checkpoint", "fp8", "-tp", 2, "--num-speculative-tokens", 0, "--max-num-seqs", 16)
        small, large = (
            plan(*pinned, "--available-kv-gib", gib)["chosen"]["kv_cache"]["num_blocks"] for gib in (10, 20)
        )
        assert large in {2 * small, 2 * small + 1}

    @pytest.mark.parametrize(
        ("words", "rule"),
        [
            (("--checkpoint", "bf16", "-tp", 1, "-pp", 1, "-dp", 1), "weights"),
            (("--max-model-len", 2_000_000), "1,010,000"),
            (("-tp", 16), "TP16"),
            (("-tp", 2, "-dp", 2), "4 GPUs"),
            (("--num-speculative-tokens", 1, "--enable-prefix-caching"), "prefix"),
            (("--max-lora-rank", 7), "max_lora_rank 7 is none of vLLM's"),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
    )
    def test_what_cannot_be_is_3_with_its_reason(
        self, cli: Cli, words: tuple[object, ...], rule: str
    ) -> None:
        done = cli(*G, *words)
        assert done.code == 3, done.out + done.err
        assert done.out == ""
        assert rule.lower() in done.err.lower(), done.err
        assert cli(*G, *words, "--json").data["chosen"] is None

    @pytest.mark.parametrize(
        ("words", "says"),
        [
            (("--checkpoint", "nope"), "nope"),
            (("-tp", 0), "0 is not in the range x>=1"),
            (("--kv-cache-dtype", "int3"), "'int3' is not one of 'auto', 'bfloat16', 'fp8', 'nvfp4'"),
            (("--gpu-memory-utilization", 1.5), "1.5 is not in the range 0.1<=x<=1.0"),
            (("--num-speculative-tokens", 9), "9 is not in the range 0<=x<=8"),
            (("--available-kv-gib", 0), "0.0 is not in the range x>0"),
            (("--max-model-len", "8k"), "'8k' is not a valid integer range"),
            (("--memory-margin", 0.6), "0.6 is not in the range 0<=x<=0.5"),
            (("--top", -1), "-1 is not in the range x>=0"),
            (("--vllm-version", "latest"), "--vllm-version 'latest': not a version"),
            (("--rate", 1, "--concurrency", 2), "--concurrency and --rate were both given"),
            (("--objective", "fun"), "'fun' is not one of 'cost', 'throughput', 'latency', 'context'"),
            (("--gpu-provider", "nobody"), "no on_demand price of h200 by nobody"),
            (("--workload", ""), "--workload '': no such preset"),
            (("--lora-modules", "sql"), "--lora-modules 'sql': not NAME=DIR"),
            (("--lora-target-modules", "lm_tail"), "lm_tail: this model has no such module"),
            (("--why-not", "bf17/TP2"), "--why-not 'bf17/TP2': 'bf17' is no checkpoint and no layout"),
            (("--why-not", "/"), "--why-not '/': 'nothing' is no checkpoint"),
            (("--calibrate",), "--calibrate needs --check LOG"),
            (("--html", "f.html"), "--html needs --pareto"),
            (("--why-not", "bf16/TP2", "--pareto"), "--pareto has no effect with --why-not"),
            (("--check", "log", "--save", "p.json"), "--save has no effect with --check LOG"),
            (("--check", "log", "--explain"), "--explain has no effect with --check LOG"),
        ],
        ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
    )  # fmt: skip
    def test_wrong_values_are_2_with_the_flag(self, cli: Cli, words: tuple[object, ...], says: str) -> None:
        done = cli(*G, *words)
        assert (done.code, done.out) == (2, "")
        assert says in " ".join(done.err.split())
        assert str(words[0]).lstrip("-") in done.err or str(words[1]) in done.err

    @pytest.mark.parametrize("number", ["nan", "inf", "-inf", "1e999"])
    @pytest.mark.parametrize(
        "flag",
        [
            "--rate", "--gpu-price", "--slo-ttft-ms", "--slo-tpot-ms", "--prefix-hit", "--available-kv-gib",
            "--gpu-memory-utilization", "--memory-margin",
        ],
    )  # fmt: skip
    def test_a_number_is_a_number(self, cli: Cli, flag: str, number: str) -> None:
        """Neither nan, which lies in every range for a careless comparison, nor inf."""
        done = cli(*G, f"{flag}={number}")
        assert (done.code, done.out) == (2, "")
        assert flag in done.err


class TestWorkload:
    """What is asked for decides what is predicted."""

    def test_sizes_given_replace_the_presets(self, plan: Any) -> None:
        """Its published cache hits and pictures go with its sizes."""
        detail = plan("--workload", "coding_agent", "--input-tokens", 3000, "--output-tokens", 50)["inputs"][
            "workload_detail"
        ]
        assert (detail["input_tokens"]["mean"], detail["output_tokens"]["mean"]) == (3000, 50)
        assert detail["prefix_hit_5m"] is None
        assert detail["synthetic"] is True

    def test_dashes_are_underscores(self, plan: Any) -> None:
        assert plan("--workload", "coding-agent")["inputs"]["workload"] == "coding_agent"

    @pytest.mark.parametrize(("flag", "key"), [("--slo-ttft-ms", "ttft_ms"), ("--slo-tpot-ms", "tpot_ms")])
    def test_a_limit_replaces_one_and_keeps_the_other(self, plan: Any, flag: str, key: str) -> None:
        """Chat's own are 2000 ms and 50 ms for 90 %."""
        slo = plan(flag, 77)["inputs"]["slo"]
        assert slo[key] == 77
        other = {"ttft_ms": 2000.0, "tpot_ms": 50.0}
        del other[key]
        assert {name: slo[name] for name in other} == other
        assert slo["percentile"] == 90

    def test_a_harder_limit_means_fewer_at_once(self, plan: Any) -> None:
        fast, slow = (plan("--slo-tpot-ms", ms)["chosen"]["estimate"] for ms in (15, 80))
        assert fast["concurrency"]["value"] < slow["concurrency"]["value"]
        assert fast["tpot_ms"]["value"] <= 15
        assert fast["output_tokens_per_s"]["value"] < slow["output_tokens_per_s"]["value"]

    def test_longer_prompts_take_longer(self, plan: Any) -> None:
        short, long = (
            plan("--input-tokens", n, "--output-tokens", 200, "--concurrency", 8)["chosen"]["estimate"][
                "ttft_ms"
            ]
            for n in (500, 50_000)
        )
        assert long["value"] > 10 * short["value"]

    def test_cached_prompts_start_sooner(self, plan: Any) -> None:
        """Nine of ten tokens found: a prefill of a tenth."""
        pinned = ("--input-tokens", 40_000, "--output-tokens", 100, "--concurrency", 4,
                  "--enable-prefix-caching",
                  "--checkpoint", "fp8", "-tp", 2)  # fmt: skip
        none, most = (
            plan(*pinned, "--prefix-hit", hit)["chosen"]["estimate"]["ttft_ms"]["value"] for hit in (0, 0.9)
        )
        assert most < 0.5 * none

    @pytest.mark.parametrize("users", [1, 4, 16])
    def test_a_closed_loop_is_what_was_asked_for(self, plan: Any, users: int) -> None:
        estimate = plan("--concurrency", users)["chosen"]["estimate"]
        assert estimate["concurrency"]["value"] == pytest.approx(users, rel=0.02)

    def test_objectives_are_best_at_what_they_name(self, plan: Any) -> None:
        """None beats the one chosen for it."""
        found = {
            name: plan("--objective", name)["chosen"] for name in ("cost", "throughput", "latency", "context")
        }
        tpot = {name: one["estimate"]["tpot_ms"]["value"] for name, one in found.items()}
        rate = {name: one["estimate"]["output_tokens_per_s"]["value"] for name, one in found.items()}
        room = {name: one["kv_cache"]["tokens"] for name, one in found.items()}
        assert tpot["latency"] == min(tpot.values())
        assert rate["throughput"] == max(rate.values())
        assert room["context"] == max(room.values())

    def test_more_margin_plans_on_less(self, plan: Any) -> None:
        pinned = ("--checkpoint", "fp8", "-tp", 2)
        none, some = (
            plan(*pinned, "--memory-margin", m)["chosen"]["memory_per_gpu"]["margin_bytes"] for m in (0, 0.1)
        )
        assert none == 0
        assert some == pytest.approx(0.1 * 140.4 * GIB, rel=0.01)


class TestReasons:
    """--explain and --why-not."""

    def test_why_not_in_json_is_the_plan_with_the_lines(self, cli: Cli) -> None:
        """What people read stands under its own key; the rest is the plan."""
        words = (*G, "--why-not", "bf16/TP1")
        shown, data = cli(*words), cli(*words, "--json").data
        assert data["why_not"] == shown.out.rstrip("\n").split("\n")
        assert data["chosen"] == cli(*G, "--json").data["chosen"]
        assert data["why_not"][0].startswith("bf16, TP1: weights do not fit.")

    def test_why_not_where_nothing_fits_in_json(self, cli: Cli) -> None:
        done = cli("plan", "--gpus", "1xL40S", "--checkpoint", "bf16", "--why-not", "bf16/TP1", "--json")
        assert done.code == 3
        assert any("weights of bf16" in line for line in done.data["why_not"])

    @pytest.mark.parametrize("asked", ["fp8", "TP2", "fp8/TP2", "FP8/tp2", "2x TP1", "bf16,TP1"])
    def test_what_can_be_asked_after(self, cli: Cli, asked: str) -> None:
        """A checkpoint, a layout, both; as labels write them or not."""
        done = cli(*G, "--why-not", asked)
        assert done.code == 0
        assert "neither refused nor" not in done.out

    def test_explain_shows_the_whole_arithmetic(self, cli: Cli, plan: Any) -> None:
        """Every number of the breakdown, and every fallback by its trigger."""
        data, said = plan(), cli(*G, "--explain").text
        memory = data["chosen"]["memory_per_gpu"]
        for name in ("total", "usable", "weights", "activation", "kv_cache"):
            assert f"{memory[f'{name}_bytes'] / GIB:,.2f} GiB" in said
        for fallback in data["fallbacks"]:
            assert f"{fallback['trigger']}:" in said
        for note in data["chosen"]["notes"]:
            assert " ".join(note.split()) in said

    def test_notes_are_three_without_explain(self, cli: Cli, plan: Any) -> None:
        notes = plan()["chosen"]["notes"]
        shown = cli(*G)
        assert sum(line.startswith("- ") for line in shown.out.splitlines()) == 4
        assert f"- {len(notes) - 3} more notes with --explain" in shown.out


def test_the_next_step_names_the_saved_file(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    assert f"Next: qwenhost serve {path}" in cli(*G, "--save", path).out
    assert "add --save plan.json" in cli(*G).out


@pytest.mark.parametrize("columns", ["60", "80", "140"])
def test_tables_fit_the_width(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """But for the command, which is one line to be copied."""
    monkeypatch.setenv("COLUMNS", columns)
    head = cli(*G).out.split("\nCommand\n")[0]
    assert max(len(line) for line in head.splitlines()) <= int(columns)


def test_piped_it_is_quiet_and_plain(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """No colour, no progress."""
    monkeypatch.setenv("NO_COLOR", "1")
    done = cli(*G)
    assert "\x1b" not in done.out
    assert done.err == ""


def test_a_gpu_without_a_listed_price_says_so(cli: Cli, known: Catalog) -> None:
    """Nobody lists one on demand: tokens have no price, and the remedy is named."""
    listed = {row.gpu for row in known.gpu_prices if row.tier == "on_demand"}
    unlisted = [one for one in known.gpus.values() if one.id not in listed and one.memory_bytes > 90e9]
    for gpu in unlisted[:1]:
        done = cli("plan", "--gpus", f"4x{gpu.id}")
        if done.code == 0:
            assert "no price known; give --gpu-price USD" in done.text
            assert (
                json.loads(cli("plan", "--gpus", f"4x{gpu.id}", "--json").out)["chosen"]["usd_per_hour"]
                is None
            )
