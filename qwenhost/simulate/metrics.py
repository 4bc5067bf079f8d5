"""``/metrics`` in Prometheus text under vLLM's names, and one gauge that says it is simulated."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# vLLM 0.33 ``v1/metrics/loggers.py``.
TTFT_BUCKETS: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
    80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
ITL_BUCKETS: Final = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
E2E_BUCKETS: Final = (
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0,
    960.0, 1920.0, 7680.0,
)  # fmt: skip
ITERATION_BUCKETS: Final = tuple(float(2**power) for power in (0, *range(3, 15)))
N_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 20.0)
PREEMPTION_BUCKETS: Final = (1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 20.0)
# Of what no request here meets vLLM still shows the zero.
UNUSED_COUNTERS: Final = (
    "vllm:external_prefix_cache_queries", "vllm:external_prefix_cache_hits", "vllm:mm_cache_queries",
    "vllm:mm_cache_hits",
)  # fmt: skip


def token_buckets(max_model_len: int) -> tuple[float, ...]:
    """1, 2, 5, 10 ... up to the model's length."""
    steps = (mantissa * 10**power for power in range(10) for mantissa in (1, 2, 5))
    return tuple(float(step) for step in steps if step <= max_model_len)


class Histogram:
    """Counts of observations by upper bound."""

    def __init__(self, name: str, about: str, bounds: tuple[float, ...]) -> None:
        self.name, self.about, self._bounds = name, about, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def lines(self, labels: str) -> Iterable[str]:
        """Prometheus text."""
        yield f"# HELP {self.name} {self.about}"
        yield f"# TYPE {self.name} histogram"
        seen = 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            seen += count
            yield f'{self.name}_bucket{{{labels},le="{bound}"}} {seen}'
        yield f"{self.name}_count{{{labels}}} {seen}"
        yield f"{self.name}_sum{{{labels}}} {self._sum}"


AWAKE: Final = {"awake": 1, "weights_offloaded": 0, "discard_all": 0}


class FinishedRequest(NamedTuple):
    """A request that ended by itself, with its instants."""

    reason: str
    arrival_s: float
    scheduled_s: float
    first_s: float
    last_s: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    limit: int
    """``max_tokens``, or what the model's length left of it."""
    preemptions: int


class EngineMetrics:
    """Counters and histograms of one data-parallel rank."""

    def __init__(self, rank: int, model: str, max_model_len: int) -> None:
        self.labels = f'engine="{rank}",model_name="{model}"'
        self.prompt_tokens = 0
        self.prompt_tokens_cached = 0
        self.generation_tokens = 0
        self.drafts = 0
        self.draft_tokens = 0
        self.accepted = 0
        self.success = {"stop": 0, "length": 0, "abort": 0, "error": 0, "repetition": 0}
        tokens = token_buckets(max_model_len)
        self.ttft = Histogram("vllm:time_to_first_token_seconds", "Time to first token.", TTFT_BUCKETS)
        self.itl = Histogram("vllm:inter_token_latency_seconds", "Inter-token latency.", ITL_BUCKETS)
        self.tpot = Histogram(
            "vllm:request_time_per_output_token_seconds", "Time per output token of a request.", ITL_BUCKETS
        )
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", "End-to-end latency.", E2E_BUCKETS)
        self.queue = Histogram("vllm:request_queue_time_seconds", "Time in the waiting queue.", E2E_BUCKETS)
        self.inference = Histogram("vllm:request_inference_time_seconds", "Time in the engine.", E2E_BUCKETS)
        self.prefill = Histogram("vllm:request_prefill_time_seconds", "Time in prefill.", E2E_BUCKETS)
        self.decode = Histogram("vllm:request_decode_time_seconds", "Time in decode.", E2E_BUCKETS)
        self.prompt_sizes = Histogram("vllm:request_prompt_tokens", "Prompt tokens.", tokens)
        self.output_sizes = Histogram("vllm:request_generation_tokens", "Generated tokens.", tokens)
        self.max_output = Histogram(
            "vllm:request_max_num_generation_tokens", "Most tokens of a request's sequences.", tokens
        )
        self.computed = Histogram(
            "vllm:request_prefill_kv_computed_tokens", "Prompt tokens computed in prefill.", tokens
        )
        self.limits = Histogram("vllm:request_params_max_tokens", "max_tokens of a request.", tokens)
        self.n = Histogram("vllm:request_params_n", "n of a request.", N_BUCKETS)
        self.preempted = Histogram(
            "vllm:request_num_preemptions", "Preemptions of a request.", PREEMPTION_BUCKETS
        )
        self.iteration = Histogram(
            "vllm:iteration_tokens_total", "Tokens per engine step.", ITERATION_BUCKETS
        )

    def finished(self, request: FinishedRequest) -> None:
        """A request that ended by itself."""
        r = request
        self.success[r.reason] += 1
        self.e2e.observe(r.last_s - r.arrival_s)
        self.queue.observe(r.scheduled_s - r.arrival_s)
        self.inference.observe(r.last_s - r.scheduled_s)
        self.prefill.observe(r.first_s - r.scheduled_s)
        self.decode.observe(r.last_s - r.first_s)
        self.output_sizes.observe(r.output_tokens)
        self.max_output.observe(r.output_tokens)
        self.computed.observe(r.prompt_tokens - r.cached_tokens)
        self.limits.observe(r.limit)
        self.n.observe(1)
        self.preempted.observe(r.preemptions)
        if r.output_tokens > 1:
            self.tpot.observe((r.last_s - r.first_s) / (r.output_tokens - 1))

    def lines(self, gauges: Mapping[str, float], counters: Mapping[str, float]) -> Iterable[str]:
        """Prometheus text; the caller adds what the scheduler knows."""
        drafts = {
            "vllm:spec_decode_num_drafts": self.drafts,
            "vllm:spec_decode_num_draft_tokens": self.draft_tokens,
            "vllm:spec_decode_num_accepted_tokens": self.accepted,
        }
        own: dict[str, float] = {
            "vllm:prompt_tokens": self.prompt_tokens,
            "vllm:prompt_tokens_cached": self.prompt_tokens_cached,
            "vllm:generation_tokens": self.generation_tokens,
            **(drafts if self.drafts else {}),
            **dict.fromkeys(UNUSED_COUNTERS, 0),
        }
        for name, value in gauges.items():
            yield from self._samples("gauge", name, {"": value})
        yield from self._samples("gauge", "vllm:engine_sleep_state", _labelled("sleep_state", AWAKE))
        waiting = {"capacity": gauges["vllm:num_requests_waiting"], "deferred": 0}
        by_reason = _labelled("reason", waiting)
        yield from self._samples("gauge", "vllm:num_requests_waiting_by_reason", by_reason)
        for name, value in (own | dict(counters)).items():
            yield from self._samples("counter", f"{name}_total", {"": value})
        computed = self.prompt_tokens - self.prompt_tokens_cached
        sources = {"local_compute": computed, "local_cache_hit": self.prompt_tokens_cached}
        by_source = _labelled("source", sources | {"external_kv_transfer": 0})
        yield from self._samples("counter", "vllm:prompt_tokens_by_source_total", by_source)
        reasons = _labelled("finished_reason", self.success)
        yield from self._samples("counter", "vllm:request_success_total", reasons)
        for histogram in (
            self.ttft, self.itl, self.tpot, self.e2e, self.queue, self.inference, self.prefill, self.decode,
            self.prompt_sizes, self.output_sizes, self.max_output, self.computed, self.limits, self.n,
            self.preempted, self.iteration,
        ):  # fmt: skip
            yield from histogram.lines(self.labels)

    def _samples(self, kind: str, name: str, values: Mapping[str, float]) -> Iterable[str]:
        yield f"# TYPE {name} {kind}"
        for labels, value in values.items():
            yield f"{name}{{{self.labels}{labels}}} {value}"


def _labelled(label: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f',{label}="{name}"': value for name, value in values.items()}
