"""What a run is asked to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwenhost.errors import BadInputError
from qwenhost.facts import Slo, TokenStats, Value
from qwenhost.probe.arrivals import Law
from qwenhost.probe.bodies import ToolChoice, auth_headers
from qwenhost.probe.content import Distribution
from qwenhost.probe.endpoints import Endpoint
from qwenhost.probe.spending import Budget
from qwenhost.probe.spread import SpreadOver

DEFAULT_RATE_DURATION_S = 30.0
_WAVES = 10
_MAX_WARMUP = 16


class ProbeConfig(Value, frozen=True, kw_only=True):
    """One run against one endpoint. Closed loop with ``concurrency``, open loop with ``rate``."""

    url: str
    more_urls: tuple[str, ...] = ()
    """Further replicas of the same model."""
    spread: SpreadOver | None = None
    """Over the URLs: each request to the next, or all of a session to one. None: sessions stay."""
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
    ramp_to: float | None = None
    """Rate at the end of ``duration_s``, reached in a straight line from ``rate``."""
    rush_s: float = 0.0
    """Of an open loop: so long it begins with twice the rate, and finds a server that is full."""
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
    prefix_hit: float | None = None
    """Share of prompt tokens that stood in an earlier prompt: a common beginning, and a session's history."""
    prompts: Path | None = None
    """File of the user's own prompts or conversations, in place of synthetic ones."""
    unique_prefix: bool = True
    """Open prompts with a mark that no cache has seen. Without it, runs of a seed repeat each other's."""
    turns: int = 1
    """Requests of a session, each with the answers before it; more than 1 makes sessions."""
    think_time_s: float = 0.0
    """Mean of the exponential time between an answer and the session's next request."""
    trace: Path | None = None
    """Recorded traffic: its sizes and, without ``rate`` and ``concurrency``, its instants."""
    trace_scale: float = 1.0
    """How many times as fast as recorded."""
    images: int = 0
    """Pictures in each request."""
    image_size: str = "1024x1024"
    image_files: tuple[Path, ...] = ()
    """The user's pictures in place of generated ones."""
    tools: tuple[dict[str, Any], ...] = ()
    """Functions in OpenAI's form: name, description, parameters."""
    tool_choice: ToolChoice | None = None
    thinking: bool | None = None
    """None leaves the server's default."""
    exact_output: bool | None = None
    """Make the server go on to exactly the wanted length. None: where it is vLLM."""
    temperature: float | None = None
    extra_headers: tuple[tuple[str, str], ...] = ()
    """Of every request, beside our own or in place of one. Values may be keys: no recording holds them."""
    extra_body: Mapping[str, Any] = {}
    """Fields of every request's body; objects are merged into those that are there."""
    seed: int | None = None
    """Of arrivals, sizes and texts. None draws one, so that no two runs send the same prompts; without
    unique prefixes it is 0."""

    timeout_s: float = 600.0
    """From due time to the end of the answer."""
    idle_timeout_s: float = 120.0
    """Longest silence of the server."""
    slo: Slo | None = None
    records: Path | None = None
    """JSONL file that each request's record is appended to as it ends."""
    anthropic: bool = False
    """Whether this is Claude's own API, which takes its key and its fields in another way."""
    budget: Budget | None = None
    """For an API that is paid by use."""
    gpus: str | None = None
    """Hardware behind the endpoint, for the report."""

    def check(self) -> None:
        """Refuse what cannot be run.

        Raises:
            BadInputError: names the option.
        """
        self._check_load()
        for name in (
            "concurrency",
            "rate",
            "ramp_to",
            "requests",
            "duration_s",
            "timeout_s",
            "idle_timeout_s",
            "burstiness",
            "turns",
            "trace_scale",
        ):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadInputError(f"{name} is {value}, expected more than 0")
        self._check_finite()
        if self.prefix_hit is not None and not 0 <= self.prefix_hit < 1:
            raise BadInputError(f"prefix_hit is {self.prefix_hit}, expected at least 0 and less than 1")
        if self.trace is not None and (self.prompts is not None or self.turns > 1 or self.prefix_hit):
            raise BadInputError(
                "a trace brings its own sizes and sessions",
                remedy="Leave --prompts, --turns and --prefix-hit out.",
            )
        if self.prompts is not None and self.prefix_hit:
            raise BadInputError("--prefix-hit makes synthetic prompts", remedy="Leave it or --prompts out.")
        if self.endpoint == "completions" and (self.turns > 1 or self.image_count or self.tools):
            raise BadInputError(
                "/v1/completions takes a plain text, no sessions, images or tools",
                remedy="Take --endpoint chat, responses or messages.",
            )

    def _check_finite(self) -> None:
        """Without an end in sight there is no schedule."""
        for name in ("rate", "ramp_to", "burstiness", "ramp_up_s", "think_time_s", "trace_scale"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise BadInputError(
                    f"{name} is {value}, expected a finite number",
                    remedy="To send N requests at once: --concurrency N --requests N.",
                )

    def _check_load(self) -> None:
        timed = self.trace is not None and self.rate is None and self.concurrency is None
        if (self.concurrency is None) == (self.rate is None) and not timed:
            raise BadInputError(
                "give exactly one of --concurrency and --rate",
                remedy="--concurrency C keeps C requests in flight; --rate R sends R a second regardless.",
            )
        if self.ramp_to is not None and (self.rate is None or self.duration_s is None):
            raise BadInputError(
                "a ramp has two rates and a length", remedy="Give --rate, --ramp-to and --duration."
            )

    @property
    def timed_by_trace(self) -> bool:
        """Whether requests are due when they were recorded."""
        return self.trace is not None and self.rate is None and self.concurrency is None

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Of every request, but for those that frame it."""
        replaced = {name.lower() for name, _ in self.extra_headers}
        own = auth_headers(self.endpoint, self.api_key, anthropic=self.anthropic)
        return [*(pair for pair in own if pair[0].lower() not in replaced), *self.extra_headers]

    @property
    def image_count(self) -> int:
        """Pictures in each request."""
        return self.images or (1 if self.image_files else 0)

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them."""
        return (self.url, *self.more_urls)

    @property
    def planned_requests(self) -> int | None:
        """How many, where a number rules; None where time does."""
        timed = self.duration_s is not None or self.trace is not None
        if self.requests is not None or timed or self.concurrency is None:
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
