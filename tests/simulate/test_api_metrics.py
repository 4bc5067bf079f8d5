"""``/metrics``: names, kinds and labels against vLLM's own registry, figures against what was sent."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_engine import LiveEngine

from qwenhost.simulate.metrics import (
    E2E_BUCKETS,
    ITERATION_BUCKETS,
    ITL_BUCKETS,
    TTFT_BUCKETS,
    FinishedRequest,
    Histogram,
    token_buckets,
)
from qwenhost.simulate.metrics import EngineMetrics as RankMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REGISTRY = Path(__file__).parents[1] / "data" / "vllm-metrics-0.33.txt"
RANK = 'engine="0",model_name="qwen"'
# Not of vLLM's loggers: what labels this engine, and the information about its cache.
OURS = {"qwenhost_simulated", "qwenhost_simulated_pacing_lag_seconds", "vllm:cache_config_info"}
# What vLLM shows by default and on this model, and nothing simulated could fill.
NOT_SHOWN = {
    "vllm:admission_rejections",  # queue limits are not simulated
    "vllm:corrupted_requests",  # with VLLM_COMPUTE_NANS_IN_LOGITS
    "vllm:kv_block_idle_before_evict_seconds",  # with --kv-cache-metrics
    "vllm:kv_block_lifetime_seconds",
    "vllm:kv_block_reuse_gap_seconds",
    "vllm:lora_requests_info",
    "vllm:num_requests_kv_fetch_by_stage",  # with a KV connector
    "vllm:prompt_tokens_cached_by_source",  # of tiers this cache does not have
    "vllm:spec_decode_num_accepted_tokens_per_pos",  # positions are drawn at once
    "vllm:watermark_requests",
}


def registry() -> dict[str, tuple[str, set[str]]]:
    """Name -> kind and labels, of vLLM 0.33."""
    rows = (line.split() for line in REGISTRY.read_text().splitlines() if not line.startswith("#"))
    return {name: (kind, set(labels)) for kind, name, *labels in rows}


def families(text: str) -> dict[str, str]:
    """Name -> kind, of the exposition."""
    return dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE))


def base(name: str, kind: str) -> str:
    """A counter's name as vLLM registers it: its client adds the end."""
    return name.removesuffix("_total") if kind == "counter" else name


@pytest.fixture(scope="module")
def used() -> Iterator[str]:
    """The exposition of two ranks with drafts, after streams on both."""
    engine = LiveEngine(ranks=2, drafts=2)
    body = {"prompt": "Once upon", "max_tokens": 200, "ignore_eos": True}
    streams = [engine.stream("/v1/completions", body) for _ in range(4)]
    for stream in streams:
        next(stream)
    for stream in streams:
        assert list(stream)
    yield engine.ask("/metrics").body.decode()
    engine.end()


class TestNames:
    def test_every_one_is_vllms(self, used: str) -> None:
        """With its kind: no dashboard will look for a name that only a simulation has."""
        known = registry()
        for name, kind in families(used).items():
            if name not in OURS:
                assert known[base(name, kind)][0] == kind, name

    def test_every_one_of_vllms_is_there(self, used: str) -> None:
        """But those of features that are off, each with its reason above."""
        shown = {base(name, kind) for name, kind in families(used).items()}
        assert set(registry()) - shown == NOT_SHOWN

    def test_labels_are_vllms(self, used: str) -> None:
        """Each sample has them all and no others."""
        known = registry()
        kinds = families(used)
        for name, labels in re.findall(r"^(\S+?)\{(.*)\} \S+$", used, re.MULTILINE):
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            if family in OURS:
                continue
            found = set(re.findall(r'(\w+)="', labels)) - {"le"}
            assert found == known[base(family, kinds[family])][1], name

    def test_drafts_are_counted_only_where_they_are_made(self, plain: LiveEngine) -> None:
        """VLLM registers them with a speculative configuration."""
        shown = families(plain.ask("/metrics").body.decode())
        assert not {name for name in shown if "spec_decode" in name}

    def test_it_says_that_it_is_simulated(self, used: str) -> None:
        """First of all, and in words."""
        head = used.splitlines()[:3]
        assert head[0] == "# HELP qwenhost_simulated 1: every figure here comes from a simulated engine."
        assert head[2] == "qwenhost_simulated 1"


class TestExposition:
    def test_the_content_type(self, plain: LiveEngine) -> None:
        """Prometheus' text format."""
        kind = plain.ask("/metrics").headers["content-type"]
        assert kind.startswith("text/plain; version=0.0.4")

    def test_each_family_is_one_block(self, used: str) -> None:
        """Also of two ranks: the format forbids a second one."""
        order: list[str] = []
        for line in used.splitlines():
            name = line.split()[2] if line.startswith("#") else re.split(r"[{ ]", line)[0]
            family = re.sub(r"_(bucket|count|sum)$", "", name)
            if not order or order[-1] != family:
                order.append(family)
        assert len(order) == len(set(order))

    def test_no_sample_twice(self, used: str) -> None:
        """A name with its labels occurs once."""
        samples = [line.rpartition(" ")[0] for line in used.splitlines() if not line.startswith("#")]
        assert len(samples) == len(set(samples))

    def test_both_ranks_are_there(self, used: str) -> None:
        """Under their own label."""
        assert set(re.findall(r'vllm:num_requests_running\{engine="(\d)"', used)) == {"0", "1"}

    def test_buckets_add_up(self, used: str) -> None:
        """They never fall, and the last is the count."""
        found: dict[str, list[float]] = {}
        for name, labels, value in re.findall(
            r"^(\S+)_bucket\{(.*),le=\"[^\"]+\"\} (\S+)$", used, re.MULTILINE
        ):
            found.setdefault(f"{name}_count{{{labels}}}", []).append(float(value))
        assert len(found) == 16 * 2  # histograms x ranks
        counts = dict(re.findall(r"^(\S+_count\{.*\}) (\S+)$", used, re.MULTILINE))
        for name, values in found.items():
            assert values == sorted(values)
            assert values[-1] == float(counts[name])

    def test_sleep_is_three_gauges(self, plain: LiveEngine) -> None:
        """Awake is 1; the others of its states are 0."""
        found = plain.metrics()
        states = {
            s: found[f'vllm:engine_sleep_state{{{RANK},sleep_state="{s}"}}'] for s in ("awake", "discard_all")
        }
        assert states == {"awake": 1, "discard_all": 0}

    def test_the_cache_is_described(self, plain: LiveEngine) -> None:
        """Blocks, their size and prefix caching, as labels."""
        text = plain.ask("/metrics").body.decode()
        assert 'num_gpu_blocks="1001",block_size="16",enable_prefix_caching="True"} 1' in text


class TestFigures:
    def test_of_known_requests(self, start_live: Callable[..., LiveEngine]) -> None:
        """Three of 40 prompt tokens and 10 of answer; the second and third find 32 in the cache."""
        engine = start_live()
        for _ in range(3):
            engine.post("/v1/completions", {"prompt": list(range(40)), "max_tokens": 10, "ignore_eos": True})
        found = engine.metrics()

        def value(name: str, more: str = "") -> float:
            return found[f"vllm:{name}{{{RANK}{more}}}"]

        assert value("prompt_tokens_total") == 120
        assert value("prompt_tokens_cached_total") == 64
        assert value("prompt_tokens_by_source_total", ',source="local_compute"') == 56
        assert value("prompt_tokens_by_source_total", ',source="local_cache_hit"') == 64
        assert value("prompt_tokens_by_source_total", ',source="external_kv_transfer"') == 0
        assert value("generation_tokens_total") == 30
        assert value("request_success_total", ',finished_reason="length"') == 3
        assert value("request_success_total", ',finished_reason="stop"') == 0
        assert value("time_to_first_token_seconds_count") == 3
        assert value("inter_token_latency_seconds_count") == 27
        assert value("request_prompt_tokens_sum") == 120
        assert value("request_generation_tokens_sum") == value("request_max_num_generation_tokens_sum") == 30
        assert value("request_prefill_kv_computed_tokens_sum") == 56
        assert value("request_params_max_tokens_sum") == 30
        assert value("request_params_n_sum") == 3
        assert value("request_num_preemptions_sum") == 0
        assert value("request_num_preemptions_bucket", ',le="1.0"') == 3
        assert value("num_preemptions_total") == 0
        phases = value("request_prefill_time_seconds_sum") + value("request_decode_time_seconds_sum")
        assert value("request_inference_time_seconds_sum") == pytest.approx(phases)
        whole = phases + value("request_queue_time_seconds_sum")
        assert value("e2e_request_latency_seconds_sum") == pytest.approx(whole)

    def test_a_limit_that_was_left_open(self, start_live: Callable[..., LiveEngine]) -> None:
        """2,000 tokens of context less two of prompt, as vLLM fills it in."""
        engine = start_live()
        engine.post("/v1/chat/completions", {"messages": [], "max_tokens": None})
        assert engine.metrics()[f"vllm:request_params_max_tokens_sum{{{RANK}}}"] == 2000 - 3

    def test_while_it_runs(self, start_live: Callable[..., LiveEngine]) -> None:
        """One running, none waiting, blocks in use; all gone after it left, counted as an abort."""
        engine = start_live(step_ms=20)
        stream = engine.stream("/v1/completions", {"prompt": "x", "max_tokens": 900, "ignore_eos": True})
        next(stream)
        found = engine.metrics()
        assert found[f"vllm:num_requests_running{{{RANK}}}"] == 1
        assert found[f"vllm:num_requests_waiting{{{RANK}}}"] == 0
        for reason in ("capacity", "deferred"):
            assert found[f'vllm:num_requests_waiting_by_reason{{{RANK},reason="{reason}"}}'] == 0
        assert found[f"vllm:kv_cache_usage_perc{{{RANK}}}"] > 0
        stream.close()  # type: ignore[attr-defined]
        engine.wait_for(lambda: engine.metrics()[f"vllm:num_requests_running{{{RANK}}}"] == 0)
        found = engine.metrics()
        assert found[f"vllm:kv_cache_usage_perc{{{RANK}}}"] == 0
        assert found[f'vllm:request_success_total{{{RANK},finished_reason="abort"}}'] == 1
        assert found[f"vllm:e2e_request_latency_seconds_count{{{RANK}}}"] == 0

    def test_who_waits_is_counted_by_reason(self, start_live: Callable[..., LiveEngine]) -> None:
        """64 places: of 70 requests, 6 wait, all for capacity; the two gauges agree."""
        engine = start_live(step_ms=100)
        raw = b'{"prompt": "x", "max_tokens": 400, "ignore_eos": true}'
        asked = [engine.connection() for _ in range(70)]
        for connection in asked:
            connection.request("POST", "/v1/completions", raw, {"content-type": "application/json"})
        waiting = f"vllm:num_requests_waiting{{{RANK}}}"
        engine.wait_for(lambda: engine.host.in_flight == 70 and engine.metrics()[waiting] == 6)
        found = engine.metrics()
        assert found[f"vllm:num_requests_running{{{RANK}}}"] == 64
        assert found[f'vllm:num_requests_waiting_by_reason{{{RANK},reason="capacity"}}'] == found[waiting]
        for connection in asked:
            connection.close()


class TestBuckets:
    def test_tokens_go_up_to_the_models_length(self) -> None:
        """1, 2, 5 times powers of ten, none above it (``build_1_2_5_buckets``)."""
        assert token_buckets(2000) == (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)
        assert token_buckets(1999)[-1] == 1000
        assert token_buckets(262144)[-2:] == (100000, 200000)
        assert token_buckets(1) == (1,)

    def test_a_step_has_powers_of_two(self) -> None:
        """``ITERATION_TOKENS_BUCKETS``: 1, then 8 to 16384."""
        assert ITERATION_BUCKETS == (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)

    @pytest.mark.parametrize(
        ("bounds", "ends", "number"),
        [
            (TTFT_BUCKETS, (0.001, 2560.0), 22),
            (ITL_BUCKETS, (0.01, 80.0), 19),
            (E2E_BUCKETS, (0.3, 7680.0), 21),
        ],
    )
    def test_times(self, bounds: tuple[float, ...], ends: tuple[float, float], number: int) -> None:
        """First, last and number of vLLM's, each above the one before."""
        assert (bounds[0], bounds[-1], len(bounds)) == (*ends, number)
        assert all(a < b for a, b in pairwise(bounds))

    def test_a_bound_belongs_to_its_own_bucket(self) -> None:
        """``le`` is less or equal."""
        histogram = Histogram("h", "About.", (1.0, 2.0))
        for value in (0.5, 1.0, 1.5, 2.0, 2.5):
            histogram.observe(value)
        assert list(histogram.lines('a="b"')) == [
            "# HELP h About.", "# TYPE h histogram",
            'h_bucket{a="b",le="1.0"} 2', 'h_bucket{a="b",le="2.0"} 4',
            'h_bucket{a="b",le="+Inf"} 5', 'h_count{a="b"} 5', 'h_sum{a="b"} 7.5',
        ]  # fmt: skip

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), max_size=20))
    def test_nothing_is_lost(self, observed: list[tuple[float, int]]) -> None:
        """Count and sum are those of what was observed; a bucket counts what is at most its bound."""
        histogram = Histogram("h", "About.", TTFT_BUCKETS)
        for value, times in observed:
            histogram.observe(value, times)
        found = dict(line.rsplit(" ", 1) for line in histogram.lines("") if not line.startswith("#"))
        assert int(found["h_count{}"]) == sum(times for _, times in observed)
        assert float(found["h_sum{}"]) == pytest.approx(sum(value * times for value, times in observed))
        assert int(found['h_bucket{,le="1.0"}']) == sum(times for value, times in observed if value <= 1)

    def test_one_token_has_no_time_per_token(self) -> None:
        """Nothing to divide by; all else is counted."""
        metrics = RankMetrics(0, "qwen", 100)
        fields: dict[str, Any] = {
            "reason": "stop", "arrival_s": 1.0, "scheduled_s": 1.5, "first_s": 2.0, "last_s": 2.0,
            "prompt_tokens": 9, "cached_tokens": 4, "output_tokens": 1, "limit": 7, "preemptions": 2,
        }  # fmt: skip
        metrics.finished(FinishedRequest(**fields))
        lines = list(metrics.lines({"vllm:num_requests_waiting": 0}, {}))
        labels = 'engine="0",model_name="qwen"'
        for name, value in (
            ("vllm:request_time_per_output_token_seconds_count", "0"),
            ("vllm:e2e_request_latency_seconds_sum", "1.0"),
            ("vllm:request_queue_time_seconds_sum", "0.5"),
            ("vllm:request_inference_time_seconds_sum", "0.5"),
            ("vllm:request_prefill_time_seconds_sum", "0.5"),
            ("vllm:request_decode_time_seconds_sum", "0.0"),
            ("vllm:request_prefill_kv_computed_tokens_sum", "5.0"),
            ("vllm:request_num_preemptions_sum", "2.0"),
            ("vllm:request_params_max_tokens_sum", "7.0"),
        ):
            assert f"{name}{{{labels}}} {value}" in lines
