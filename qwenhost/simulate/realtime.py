"""Real time: the engine's ranks on the event loop's clock.

Each step ends at an instant computed from the one before, never from when the loop woke up, so that the
pace does not drift; a machine too slow to keep up shows in ``max_lag_s``.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from qwenhost.simulate.engine import Engine
from qwenhost.simulate.metrics import EngineMetrics, FinishedRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qwenhost.plan import StepShape
    from qwenhost.simulate.config import EngineConfig
    from qwenhost.simulate.engine import Request, Sequence, StepResult


class EngineDeadError(Exception):
    """The engine ended while requests were in flight."""


class Ticket:
    """A request in flight: the engine adds tokens, the client's task takes them."""

    __slots__ = ("_tokens", "_waiter", "dead", "finish_reason", "first_s", "limit", "rank", "sequence")

    def __init__(self, rank: RealTimeRank, finish_reason: str, limit: int) -> None:
        self.rank = rank
        self.finish_reason = finish_reason
        self.limit = limit
        self.first_s = 0.0
        self.sequence: Sequence | None = None
        self.dead = False
        self._tokens = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens found in the cache; known from the first token on."""
        return self.sequence.cached_tokens if self.sequence else 0

    def add(self, tokens: int) -> None:
        """Called by the engine's loop."""
        self._tokens += tokens
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    def kill(self) -> None:
        """The engine is gone."""
        self.dead = True
        self.add(0)

    async def take(self) -> int:
        """Tokens since the last call, at least one.

        Raises:
            EngineDeadError: no more will come.
        """
        while not self._tokens:
            if self.dead:
                raise EngineDeadError
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        tokens, self._tokens = self._tokens, 0
        return tokens

    def close(self) -> None:
        """The client is done with it, or went away."""
        if self.sequence is not None and not self.sequence.finished:
            self.rank.engine.abort(self.sequence)
            self.rank.metrics.success["abort"] += 1


class RealTimeRank:
    """One data-parallel rank and its loop."""

    def __init__(self, engine: Engine, metrics: EngineMetrics, speedup: float) -> None:
        self.engine = engine
        self.metrics = metrics
        self.max_lag_s = 0.0
        self._speedup = speedup
        self._wake = asyncio.Event()

    def submit(self, request: Request, finish_reason: str, limit: int) -> Ticket:
        """Queue a request now."""
        ticket = Ticket(self, finish_reason, limit)
        ticket.sequence = self.engine.submit(request, time.monotonic())
        ticket.sequence.tag = ticket
        self._wake.set()
        return ticket

    async def run(self) -> None:
        """Step for ever."""
        instant = time.monotonic()
        while True:
            if self.engine.idle:
                self._wake.clear()
                await self._wake.wait()
                instant = max(instant, time.monotonic())
                continue
            result = self.engine.step(instant, collect=True)
            instant += result.duration_s / self._speedup
            await asyncio.sleep(max(0.0, instant - time.monotonic()))
            self.max_lag_s = max(self.max_lag_s, time.monotonic() - instant)
            self._deliver(result, instant)

    def _deliver(self, result: StepResult, instant: float) -> None:
        metrics = self.metrics
        tokens = 0
        for sequence in result.first_tokens:
            ticket: Ticket = sequence.tag
            if not ticket.first_s:
                ticket.first_s = instant
                metrics.ttft.observe(instant - sequence.arrival_s)
                metrics.prompt_tokens += sequence.request.prompt_tokens
                metrics.prompt_tokens_cached += sequence.cached_tokens
                metrics.prompt_sizes.observe(sequence.request.prompt_tokens)
        for sequence, count in result.emitted:
            sequence.tag.add(count)
            tokens += count
        metrics.generation_tokens += tokens
        metrics.iteration.observe(result.prefill_tokens + result.decode_sequences)
        if result.decode_sequences:
            metrics.itl.observe(result.duration_s / self._speedup, result.decode_sequences)
            if self.engine.config.num_speculative_tokens:
                metrics.drafts += result.decode_sequences
                metrics.draft_tokens += result.decode_sequences * self.engine.config.num_speculative_tokens
                metrics.accepted += tokens - len(result.first_tokens) - result.decode_sequences
        for sequence in result.finished:
            ticket = sequence.tag
            metrics.finished(
                FinishedRequest(
                    reason=ticket.finish_reason,
                    arrival_s=sequence.arrival_s,
                    scheduled_s=sequence.first_scheduled_s or sequence.arrival_s,
                    first_s=ticket.first_s,
                    last_s=instant,
                    prompt_tokens=sequence.request.prompt_tokens,
                    cached_tokens=sequence.cached_tokens,
                    output_tokens=sequence.request.output_tokens,
                    limit=ticket.limit,
                    preemptions=sequence.preemptions,
                )
            )


class Host:
    """All ranks of the simulated engine.

    Args:
        config: of one rank.
        step_time: seconds of a step of one rank.
        model: label of the metrics.
        seed: of everything drawn inside the engine.
        speedup: simulated seconds per second.
        cache_info: further labels of ``vllm:cache_config_info``.
    """

    def __init__(
        self,
        config: EngineConfig,
        step_time: Callable[[StepShape], float],
        *,
        model: str,
        cache_info: Mapping[str, object] | None = None,
        seed: int = 0,
        speedup: float = 1.0,
    ) -> None:
        self.config = config
        self.ranks = [
            RealTimeRank(
                Engine(config, step_time, seed + index),
                EngineMetrics(index, model, config.max_model_len),
                speedup,
            )
            for index in range(config.data_parallel_size)
        ]
        self._cache_info = {
            "num_gpu_blocks": config.num_blocks,
            "block_size": config.block_size,
            "enable_prefix_caching": config.enable_prefix_caching,
            **(cache_info or {}),
        }
        self.dead = False
        self._tickets: set[Ticket] = set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def in_flight(self) -> int:
        """Requests accepted and not closed."""
        return len(self._tickets)

    def start(self) -> None:
        """Start the ranks' loops."""
        self._tasks = [asyncio.create_task(rank.run()) for rank in self.ranks]

    async def stop(self) -> None:
        """End the ranks' loops."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def submit(self, request: Request, finish_reason: str, limit: int | None = None) -> Ticket:
        """Queue on the least loaded rank.

        Args:
            request: sizes and hashes.
            finish_reason: as it will end.
            limit: its ``max_tokens``; as many as it will have unless given.

        Raises:
            EngineDeadError: the engine has died.
        """
        if self.dead:
            raise EngineDeadError
        rank = min(self.ranks, key=lambda each: each.engine.load)
        ticket = rank.submit(request, finish_reason, limit or request.output_tokens)
        self._tickets.add(ticket)
        return ticket

    def close(self, ticket: Ticket) -> None:
        """Forget a request; aborts it where it still runs."""
        self._tickets.discard(ticket)
        ticket.close()

    def die(self) -> None:
        """Fail everything in flight and everything to come."""
        self.dead = True
        for task in self._tasks:
            task.cancel()
        for ticket in self._tickets:
            ticket.kill()

    def metrics_text(self) -> str:
        """``/metrics``."""
        families: dict[str, list[str]] = {}
        name = ""
        for line in self._all_lines():
            # The format allows one block of lines per metric, so the ranks' lines are brought together.
            name = line.split()[2] if line.startswith("#") else name
            block = families.setdefault(name, [])
            if not (line.startswith("#") and line in block):
                block.append(line)
        return "\n".join(line for block in families.values() for line in block) + "\n"

    def _all_lines(self) -> list[str]:
        lines = [
            "# HELP qwenhost_simulated 1: every figure here comes from a simulated engine.",
            "# TYPE qwenhost_simulated gauge",
            "qwenhost_simulated 1",
            "# HELP qwenhost_simulated_pacing_lag_seconds Most a step came late on this machine.",
            "# TYPE qwenhost_simulated_pacing_lag_seconds gauge",
            f"qwenhost_simulated_pacing_lag_seconds {max(rank.max_lag_s for rank in self.ranks):.6f}",
        ]
        for rank in self.ranks:
            lines += self._rank_lines(rank)
        return lines

    def _rank_lines(self, rank: RealTimeRank) -> list[str]:
        engine = rank.engine
        gauges = {
            "vllm:num_requests_running": engine.num_running,
            "vllm:num_requests_waiting": engine.num_waiting,
            "vllm:kv_cache_usage_perc": engine.pool.usage,
        }
        counters = {
            "vllm:num_preemptions": engine.preemptions,
            "vllm:prefix_cache_queries": engine.prefix_queries,
            "vllm:prefix_cache_hits": engine.prefix_hits,
        }
        info = ",".join(f'{name}="{value}"' for name, value in self._cache_info.items())
        info = f"{rank.metrics.labels},{info}"
        cache = ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{info}}} 1"]
        return [*cache, *rank.metrics.lines(gauges, counters)]
