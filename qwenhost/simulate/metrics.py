"""``/metrics`` in Prometheus text under vLLM's names, and one gauge that says it is simulated."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

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
TOKEN_BUCKETS: Final = tuple(float(f * 10**e) for e in range(6) for f in (1, 2, 5))


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


class EngineMetrics:
    """Counters and histograms of one data-parallel rank."""

    def __init__(self, rank: int, model: str) -> None:
        self.labels = f'engine="{rank}",model_name="{model}"'
        self.prompt_tokens = 0
        self.prompt_tokens_cached = 0
        self.generation_tokens = 0
        self.drafts = 0
        self.draft_tokens = 0
        self.accepted = 0
        self.success = {"stop": 0, "length": 0, "abort": 0}
        self.ttft = Histogram("vllm:time_to_first_token_seconds", "Time to first token.", TTFT_BUCKETS)
        self.itl = Histogram("vllm:inter_token_latency_seconds", "Inter-token latency.", ITL_BUCKETS)
        self.tpot = Histogram(
            "vllm:request_time_per_output_token_seconds", "Time per output token of a request.", ITL_BUCKETS
        )
        self.e2e = Histogram("vllm:e2e_request_latency_seconds", "End-to-end latency.", E2E_BUCKETS)
        self.queue = Histogram("vllm:request_queue_time_seconds", "Time in the waiting queue.", E2E_BUCKETS)
        self.prefill = Histogram("vllm:request_prefill_time_seconds", "Time in prefill.", E2E_BUCKETS)
        self.decode = Histogram("vllm:request_decode_time_seconds", "Time in decode.", E2E_BUCKETS)
        self.prompt_sizes = Histogram("vllm:request_prompt_tokens", "Prompt tokens.", TOKEN_BUCKETS)
        self.output_sizes = Histogram("vllm:request_generation_tokens", "Generated tokens.", TOKEN_BUCKETS)
        self.iteration = Histogram("vllm:iteration_tokens_total", "Tokens per engine step.", TOKEN_BUCKETS)

    def finished(self, *, arrival: float, scheduled: float, first: float, last: float, output: int) -> None:
        """A request that ended by itself, with its instants."""
        self.e2e.observe(last - arrival)
        self.queue.observe(scheduled - arrival)
        self.prefill.observe(first - scheduled)
        self.decode.observe(last - first)
        self.output_sizes.observe(output)
        if output > 1:
            self.tpot.observe((last - first) / (output - 1))

    def lines(self, gauges: Mapping[str, float], counters: Mapping[str, float]) -> Iterable[str]:
        """Prometheus text; the caller adds what the scheduler knows."""
        own: dict[str, float] = {
            "vllm:prompt_tokens": self.prompt_tokens,
            "vllm:prompt_tokens_cached": self.prompt_tokens_cached,
            "vllm:generation_tokens": self.generation_tokens,
            **({"vllm:spec_decode_num_drafts": self.drafts} if self.drafts else {}),
            **({"vllm:spec_decode_num_draft_tokens": self.draft_tokens} if self.drafts else {}),
            **({"vllm:spec_decode_num_accepted_tokens": self.accepted} if self.drafts else {}),
        }
        for name, value in gauges.items():
            yield f"# TYPE {name} gauge"
            yield f"{name}{{{self.labels}}} {value}"
        for name, value in (own | dict(counters)).items():
            yield f"# TYPE {name}_total counter"
            yield f"{name}_total{{{self.labels}}} {value}"
        yield "# TYPE vllm:request_success_total counter"
        for reason, count in self.success.items():
            yield f'vllm:request_success_total{{{self.labels},finished_reason="{reason}"}} {count}'
        for histogram in (
            self.ttft, self.itl, self.tpot, self.e2e, self.queue, self.prefill, self.decode,
            self.prompt_sizes, self.output_sizes, self.iteration,
        ):  # fmt: skip
            yield from histogram.lines(self.labels)
