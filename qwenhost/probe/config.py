"""What a run is asked to do."""

from __future__ import annotations

from pathlib import Path

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, TokenStats, Value
from qwenhost.probe.arrivals import Law
from qwenhost.probe.content import Distribution
from qwenhost.probe.endpoints import Endpoint

DEFAULT_RATE_DURATION_S = 30.0
_WAVES = 10
_MAX_WARMUP = 16


class ProbeConfig(Value, frozen=True, kw_only=True):
    """One run against one endpoint. Closed loop with ``concurrency``, open loop with ``rate``."""

    url: str
    endpoint: Endpoint = "chat"
    model: str | None = None
    """None takes the first the server lists."""
    api_key: str | None = None

    concurrency: int | None = None
    rate: float | None = None
    """Requests per second."""
    arrivals: Law = "poisson"
    burstiness: float = 1.0
    """Shape of the gamma law."""
    ramp_up_s: float = 0.0
    """Over which a closed loop's slots open. About a request's length leaves no burst at the start."""
    requests: int | None = None
    duration_s: float | None = None
    """Time during which requests are sent; those in flight then are waited for."""
    warmup: int | None = None
    """Requests sent and discarded before the clock starts; None: see ``warmup_requests``."""

    workload: str = "custom"
    """A name for the report."""
    input_tokens: TokenStats = TokenStats(mean=512)
    output_tokens: TokenStats = TokenStats(mean=128)
    distribution: Distribution = "fixed"
    prefix_hit: float = 0.0
    """Share of the prompt that all requests have in common."""
    prompts: Path | None = None
    """JSONL file of the user's own prompts, in place of synthetic ones."""
    thinking: bool | None = None
    """None leaves the server's default."""
    exact_output: bool | None = None
    """Make the server go on to exactly the wanted length. None: where it is vLLM."""
    temperature: float | None = None
    seed: int | None = None
    """Of arrivals, sizes and texts. None draws one, so that no two runs send the same prompts."""

    timeout_s: float = 600.0
    """From due time to the end of the answer."""
    idle_timeout_s: float = 120.0
    """Longest silence of the server."""
    slo: Slo | None = None
    records: Path | None = None
    """JSONL file that each request's record is appended to as it ends."""
    gpus: str | None = None
    """Hardware behind the endpoint, for the report."""

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            BadInputError: names the option.
        """
        if (self.concurrency is None) == (self.rate is None):
            raise BadInputError(
                "give exactly one of --concurrency and --rate",
                remedy="--concurrency C keeps C requests in flight; --rate R sends R a second regardless.",
            )
        for name in (
            "concurrency",
            "rate",
            "requests",
            "duration_s",
            "timeout_s",
            "idle_timeout_s",
            "burstiness",
        ):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise BadInputError(f"{name} is {value}, expected more than 0")
        if not 0 <= self.prefix_hit < 1:
            raise BadInputError(f"prefix_hit is {self.prefix_hit}, expected at least 0 and less than 1")

    @property
    def planned_requests(self) -> int | None:
        """How many, where a number rules; None where time does."""
        if self.requests is not None or self.duration_s is not None or self.concurrency is None:
            return self.requests
        return max(20, min(_WAVES * self.concurrency, 1000), self.concurrency)

    @property
    def planned_duration_s(self) -> float | None:
        """For how long requests are sent, where time rules."""
        if self.duration_s is None and self.requests is None and self.rate is not None:
            return DEFAULT_RATE_DURATION_S
        return self.duration_s

    @property
    def warmup_requests(self) -> int:
        """One, and one for each of up to 16 slots: engines compile and capture at first use."""
        if self.warmup is not None:
            return self.warmup
        return max(1, min(self.concurrency or 2, _MAX_WARMUP))
