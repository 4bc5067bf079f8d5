"""A run from start to end: identify, prepare prompts, warm up, offer the load, judge."""

from __future__ import annotations

import asyncio
import datetime as dt
import random
from typing import TYPE_CHECKING, Final

import msgspec

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.measurements import Measurements, RequestRecord
from qwenhost.probe.bodies import Ask, auth_headers, request_body
from qwenhost.probe.client import Client
from qwenhost.probe.clock import new_runner
from qwenhost.probe.content import FilePrompts, SyntheticPrompts, TextPool
from qwenhost.probe.counters import counter_deltas, read_counters
from qwenhost.probe.course import Singles
from qwenhost.probe.endpoints import PATHS
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.identify import Sampler, calibrate, identify
from qwenhost.probe.records import RecordWriter, Tail, head_of
from qwenhost.probe.results import Run, measurements_of
from qwenhost.probe.traffic import Progress, Traffic
from qwenhost.probe.wire import parse_url, request_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from qwenhost.probe.clock import StampingSelector
    from qwenhost.probe.config import ProbeConfig
    from qwenhost.probe.content import Prompts, TokenFit
    from qwenhost.probe.identify import Identity
    from qwenhost.probe.wire import Target

_WARMUP_TOKENS: Final = 32


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures and the records they were drawn from."""

    measurements: Measurements
    records: tuple[RequestRecord, ...]
    """In the order in which they ended; those dropped at an interruption carry ``interrupted``.

    Past two million token times they come without ``token_times_s``."""
    clock_zero_s: float
    """The start of the run on CLOCK_MONOTONIC; records count from here."""


def run_probe(config: ProbeConfig, *, on_progress: Callable[[Progress], None] | None = None) -> ProbeResult:
    """Measure an endpoint.

    Args:
        config: what to send where.
        on_progress: called about four times a second.

    Raises:
        BadInputError: the configuration cannot be run, or the model is not served.
        UnavailableError: the endpoint does not answer, or every warm-up request failed.
    """
    config.check()
    target = parse_url(config.url)
    runner, selector = new_runner()
    with runner:
        return runner.run(_run(config, target, selector, on_progress))


async def _run(
    config: ProbeConfig,
    target: Target,
    selector: StampingSelector,
    on_progress: Callable[[Progress], None] | None,
) -> ProbeResult:
    seed = config.seed if config.seed is not None else random.SystemRandom().getrandbits(32)
    headers = auth_headers(config.endpoint, config.api_key)
    identity = await identify(target, selector, headers, model=config.model)
    sampler = Sampler(
        target=target,
        selector=selector,
        headers=headers,
        endpoint=config.endpoint,
        timeout_s=config.timeout_s,
    )
    prompts, fit = await _prompts(config, identity, sampler, seed)
    requests = _Requests(config, target, identity, prompts, seed)
    client = Client(
        target,
        selector,
        on_end=lambda _: None,
        timeout_s=config.timeout_s,
        idle_timeout_s=config.idle_timeout_s,
    )
    writer = RecordWriter(config.records)
    await client.open()
    try:
        if on_progress is not None:
            on_progress(Progress(phase="warm-up", total_requests=config.warmup_requests))
        await _warm_up(config, client, requests)
        before = await read_counters(target, selector, headers)
        started_at = dt.datetime.now(dt.UTC)
        writer.write(
            head_of(
                config,
                server=identity.server,
                fit=fit,
                seed=seed,
                exact=requests.exact,
                started_at=started_at,
            )
        )
        traffic = Traffic(
            config,
            client,
            course=Singles(requests.payload),
            seed=seed,
            writer=writer,
            on_progress=on_progress,
        )
        lag = await traffic.offer()
        counters = counter_deltas(before, await read_counters(target, selector, headers))
        writer.write(Tail(lag=lag, counters=counters, interrupted=traffic.interrupted))
    finally:
        writer.close()
        await client.close()
    run = Run(
        config=config,
        records=traffic.store.records,
        dropped=traffic.store.dropped,
        server=identity.server,
        fit=fit,
        seed=seed,
        exact=requests.exact,
        counters=counters,
        lag=lag,
        started_at=started_at,
        interrupted=traffic.interrupted,
    )
    return ProbeResult(
        measurements=measurements_of(run), records=tuple(traffic.store.records), clock_zero_s=traffic.zero
    )


async def _prompts(
    config: ProbeConfig, identity: Identity, sampler: Sampler, seed: int
) -> tuple[Prompts, TokenFit | None]:
    """The user's own prompts, or synthetic ones fitted to the server's tokenizer."""
    if config.prompts is not None:
        return FilePrompts(config.prompts, max_tokens=round(config.output_tokens.mean)), None
    wanted, limit = config.input_tokens.mean + config.output_tokens.mean, identity.max_model_len
    if limit is not None and wanted > limit:
        raise BadInputError(
            f"{wanted:,.0f} tokens a request, but the server's max_model_len is {limit:,}",
            remedy="Lower --input-tokens or --output-tokens.",
        )
    pool = TextPool(seed)
    fit = await calibrate(
        sampler,
        pool,
        model=identity.server.model,
        input_tokens=config.input_tokens.mean,
        seed=seed,
        thinking=config.thinking,
    )
    prompts = SyntheticPrompts(
        input_tokens=config.input_tokens,
        output_tokens=config.output_tokens,
        distribution=config.distribution,
        prefix_hit=config.prefix_hit,
        max_model_len=identity.max_model_len,
        fit=fit,
        seed=seed,
        pool=pool,
    )
    return prompts, fit


class _Requests:
    """Prompts as bytes on the wire."""

    def __init__(
        self, config: ProbeConfig, target: Target, identity: Identity, prompts: Prompts, seed: int
    ) -> None:
        self.exact = identity.speaks_vllm if config.exact_output is None else config.exact_output
        self._config, self._target, self._prompts, self._seed = config, target, prompts, seed
        self._model = identity.server.model
        self._headers = auth_headers(config.endpoint, config.api_key)

    def payload(self, index: int, *, at_most: int | None = None) -> bytes:
        """The request of an index, its answer no longer than ``at_most`` tokens."""
        prompt = self._prompts[index]
        ask = Ask(
            model=self._model,
            prompt=prompt.text,
            messages=prompt.messages,
            max_tokens=prompt.max_tokens if at_most is None else min(at_most, prompt.max_tokens),
            exact_output=self.exact,
            thinking=self._config.thinking,
            temperature=self._config.temperature,
        )
        return request_bytes(
            self._target,
            "POST",
            PATHS[self._config.endpoint],
            headers=[*self._headers, ("x-request-id", f"qwenhost-{self._seed:x}-{index}")],
            body=request_body(self._config.endpoint, ask),
        )


async def _warm_up(config: ProbeConfig, client: Client, requests: _Requests) -> None:
    """Send requests of the run's input size and at most 32 output tokens, and forget them.

    Raises:
        UnavailableError: all of them failed.
    """
    count = config.warmup_requests
    if count == 0:
        return
    ended: list[Exchange] = []
    waiting = [requests.payload(-2 - i, at_most=_WARMUP_TOKENS) for i in range(count)]
    finished = asyncio.Event()

    def go_on(exchange: Exchange) -> None:
        ended.append(exchange)
        if waiting:
            client.start(Exchange(waiting.pop()))
        elif len(ended) == count:
            finished.set()

    client.on_end = go_on
    for _ in range(min(count, config.concurrency or count)):
        client.start(Exchange(waiting.pop()))
    await finished.wait()
    failed = [exchange for exchange in ended if exchange.error is not None or exchange.status != 200]
    if len(failed) == count:
        last = failed[-1]
        detail = last.detail or bytes(last.body[:300]).decode(errors="replace")
        raise UnavailableError(
            f"{client.target.origin}: every warm-up request failed: "
            f"{last.error or f'HTTP {last.status}'} {detail}".rstrip(),
            remedy="Try one request by hand, or look at the server's log.",
        )
