"""Claude's own API: its dialect, its errors, and a cap on what a run may cost."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from claude_stand_in import KEY, Claude

from qwenhost.cli.probe_config import prices_on
from qwenhost.facts import TokenStats
from qwenhost.measurements import RequestRecord, Server
from qwenhost.probe import ProbeConfig, ProbeResult, run_probe
from qwenhost.probe.records import RecordWriter, head_of
from qwenhost.probe.resume import read_resumption
from qwenhost.probe.spending import Budget, Prices, Purse, spent_on, usd, worst_usd
from qwenhost.probe.totals import Totals
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PRICES = Prices(input=3, output=15, cache_write=3.75, cache_read=0.3, source="test")


@pytest.fixture(scope="module")
def claude() -> Iterator[Claude]:
    server = Claude()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def forget(claude: Claude) -> None:
    claude.seen.clear()
    claude.count = 0


def probe(claude: Claude, **options: Any) -> ProbeResult:
    defaults: dict[str, Any] = {
        "endpoint": "messages", "anthropic": True, "api_key": KEY, "model": "claude-sonnet-4-6", "warmup": 0,
        "concurrency": 2, "requests": 6, "input_tokens": TokenStats(mean=100),
        "output_tokens": TokenStats(mean=10), "budget": Budget(max_usd=1.0, prices=PRICES), "timeout_s": 20.0,
    }  # fmt: skip
    return run_probe(ProbeConfig(url=claude.url, **(defaults | options)))


def qwenhost(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenhost.cli.main", *arguments]
    environ = {k: v for k, v in os.environ.items() if k not in ("ANTHROPIC_API_KEY", "QWENHOST_API_KEY")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environ | environment, timeout=60
    )


def test_the_api_is_spoken_as_it_is_documented(claude: Claude) -> None:
    """x-api-key and no bearer, no field of vLLM's; prompts fitted with count_tokens, which is free."""
    result = probe(claude)
    assert result.measurements.requests.by_error == {}
    assert {r.output_tokens for r in result.records} == {10}
    paths = [body["path"] for _, body in claude.seen]
    assert paths.count("/v1/messages/count_tokens") == 2
    assert paths.count("/v1/messages") == 6
    assert all("authorization" not in headers for headers, _ in claude.seen)
    assert result.measurements.server.name == "anthropic"
    assert result.measurements.workload.mean_input_tokens == pytest.approx(100, abs=3)


def test_the_bill_is_that_of_the_usage(claude: Claude) -> None:
    """Tokens in at 3 and out at 15 USD a million."""
    result = probe(claude)
    tokens_in = sum(r.input_tokens for r in result.records)
    bill = result.measurements.spending
    assert bill is not None
    assert bill.usd == pytest.approx((tokens_in * 3 + 60 * 15) / 1e6)
    assert bill.max_usd == 1.0


def test_a_rate_limit_is_counted_and_waited_for(claude: Claude) -> None:
    """Every third request 429 with retry-after 1: an error each, the next one of its slot a second later."""
    result = probe(claude, model="claude-limited", concurrency=1)
    errors = [r.error for r in sorted(result.records, key=lambda r: r.index)]
    assert errors.count("http_429") == 2
    limited = [r for r in result.records if r.error]
    after = {r.index: r for r in result.records}.get(limited[0].index + 1)
    assert after is not None
    assert after.sent_s - limited[0].sent_s >= 1.0
    assert any("rate limit (429)" in said for said in result.measurements.warnings)


@pytest.mark.parametrize(("model", "kind"), [("claude-busy", "http_529"), ("claude-cut", "overloaded")])
def test_an_overloaded_api_is_an_error_of_its_own(claude: Claude, model: str, kind: str) -> None:
    """As a status, and as an event within a stream."""
    result = probe(claude, model=model, concurrency=1)
    assert result.measurements.requests.by_error == {kind: 2}


def test_thinking_is_asked_for_with_a_budget(claude: Claude) -> None:
    """1024 tokens beside those of the answer; the first visible token comes after it."""
    result = probe(claude, thinking=True, requests=1)
    body = next(body for _, body in claude.seen if body["path"] == "/v1/messages")
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert body["max_tokens"] == 1034
    record = result.records[0]
    assert record.first_visible_s is not None
    assert record.first_visible_s >= (record.first_token_s or 9)


def test_sessions_are_marked_for_the_cache_and_billed_for_it(claude: Claude) -> None:
    """Half of each marked prompt is written: at 3.75 in place of 3 USD."""
    result = probe(claude, turns=2, requests=4)
    bill = result.measurements.spending
    written = sum(r.cache_written_tokens for r in result.records)
    plain = sum(r.input_tokens for r in result.records) - written
    assert written > 0
    assert bill is not None
    assert bill.usd == pytest.approx((plain * 3 + written * 3.75 + 40 * 15) / 1e6)


def test_the_worst_case_is_above_the_cap(claude: Claude, tmp_path: Any) -> None:
    """Refused before anything was billed, with what it might have cost; exit 2."""
    arguments = ["--target", "sonnet", claude.url, "--requests", "1000", "--input-tokens", "100"]
    done = qwenhost("probe", *arguments, "--output-tokens", "10", "--max-usd", "0.5", ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 2
    assert "could cost 0.54 USD (1000 requests at worst)" in done.stderr  # 130 * 3 + 10 * 15 = 540 a million
    assert "Expected are 0.45 USD" in done.stderr
    assert not any(body["path"] == "/v1/messages" for _, body in claude.seen)
    assert not list(tmp_path.iterdir())


def test_the_command_says_beforehand_what_it_costs(claude: Claude) -> None:
    """On stderr; the bill in the result, and no key anywhere."""
    arguments = ["--target", "sonnet", claude.url, "--requests", "4", "--input-tokens", "100", "--json"]
    done = qwenhost("probe", *arguments, "--output-tokens", "10", "--max-usd", "0.5", ANTHROPIC_API_KEY=KEY)
    assert done.returncode in (0, 5), done.stderr
    assert "Expected cost: 0.0018 USD for 4 requests, 0.00216 USD at worst" in done.stderr
    assert json.loads(done.stdout)["spending"]["max_usd"] == 0.5
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--max-usd", "1"], "no key for Claude"),
        (["--max-usd", "1", "--duration", "10"], "Give --requests"),
        ([], "needs a spending cap"),
        (["--max-usd", "1", "--sweep", "concurrency=1,2"], "a sweep makes many"),
    ],
)
def test_what_cannot_be_capped_is_refused(claude: Claude, arguments: list[str], said: str) -> None:
    """Exit 2 and a remedy."""
    environment = {} if "no key" in said else {"ANTHROPIC_API_KEY": KEY}
    done = qwenhost("probe", "--target", "sonnet", claude.url, *arguments, **environment)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_key_of_our_own_service_is_never_offered(claude: Claude) -> None:
    """QWENHOST_API_KEY alone is no key for Claude."""
    done = qwenhost(
        "probe", "--target", "sonnet", claude.url, "--max-usd", "1", QWENHOST_API_KEY="own-secret-1"
    )
    assert done.returncode == 2
    assert claude.seen == []


def test_a_purse_holds_back_what_is_under_way() -> None:
    """A cap of 1 USD and requests of at most 0.4: two at once, a third when one has cost only 0.1."""
    purse = Purse(Budget(max_usd=1.0, prices=PRICES), worst_request_usd=0.4)
    assert [purse.admits(), purse.admits(), purse.admits()] == [True, True, False]
    record = RequestRecord(index=0, scheduled_s=0, sent_s=0, input_tokens=20_000, output_tokens=2_667)
    purse.note(record)
    assert purse.spent_usd == pytest.approx(0.1, abs=1e-4)
    assert purse.admits()
    assert purse.stopped


def test_a_run_stops_before_its_cap(claude: Claude) -> None:
    """Prompts cost three times what count_tokens said: two or so fit, and the run says why it ended."""
    allowed = 6 * (1.3 * 100 * 3 + 10 * 15) / 1e6
    budget = Budget(max_usd=allowed, prices=PRICES)
    result = probe(claude, budget=budget, model="claude-wordy", concurrency=1)
    bill = result.measurements.spending
    assert bill is not None
    assert 0 < bill.usd <= allowed
    assert 1 <= len(result.records) < 6
    assert any(said.startswith("stopped: a further request") for said in result.measurements.warnings)


def test_refused_requests_are_free_and_cut_ones_are_not() -> None:
    """Without usage the worst is assumed."""
    cut = RequestRecord(index=0, scheduled_s=0, sent_s=0, error="cut_stream")
    refused = RequestRecord(index=0, scheduled_s=0, sent_s=0, error="http_429", http_status=429)
    assert spent_on(cut, PRICES, 0.4) == 0.4
    assert spent_on(refused, PRICES, 0.4) == 0.0
    assert usd(PRICES, 1000, 0, read=500, written=100) == pytest.approx((400 * 3 + 500 * 0.3 + 375) / 1e6)


LONG = Prices(
    input=3, output=15, cache_write=3.75, cache_read=0.3, source="test", long_context_above_tokens=200_000,
    long_context=Prices(input=6, output=22.5, cache_write=7.5, cache_read=0.6, source="test"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "read", "written", "billed"),
    [
        (200_000, 0, 0, 200_000 * 3 + 1000 * 15),  # At the threshold: not above it.
        (200_001, 0, 0, 200_001 * 6 + 1000 * 22.5),  # The whole request is dearer, its answer too.
        # Cached tokens count towards the threshold and are billed at that tier's cache prices.
        (250_000, 150_000, 50_000, 50_000 * 6 + 150_000 * 0.6 + 50_000 * 7.5 + 1000 * 22.5),
        (100_000, 90_000, 0, 10_000 * 3 + 90_000 * 0.3 + 1000 * 15),
    ],
)
def test_long_prompts_are_billed_at_their_own_prices(
    prompt: int, read: int, written: int, billed: float
) -> None:
    """One request, and the sum over a run of it and a short one: 1,000 tokens at 3 USD a million."""
    record = RequestRecord(
        index=0, scheduled_s=0, sent_s=0, input_tokens=prompt, output_tokens=1000, cached_tokens=read,
        cache_written_tokens=written,
    )  # fmt: skip
    short = RequestRecord(index=1, scheduled_s=0, sent_s=0, input_tokens=1000)
    assert spent_on(record, LONG, 9.0) == pytest.approx(billed / 1e6)
    totals = Totals.of([record, short])
    assert totals.bill.usd(LONG, 9.0) == pytest.approx((billed + 3000) / 1e6)


def test_a_long_prompt_at_worst_is_reckoned_at_the_dearer_price() -> None:
    """160,000 fitted tokens may be 208,000: above the threshold, so 6 USD and not 3."""
    assert worst_usd(LONG, 160_000, 100, caching=False) == pytest.approx((208_000 * 6 + 100 * 22.5) / 1e6)
    assert worst_usd(LONG, 150_000, 100, caching=True) == pytest.approx((195_000 * 3.75 + 1500) / 1e6)


@pytest.mark.parametrize("error", ["cut_stream", "overloaded", "timeout", "interrupted", "malformed_event"])
def test_an_answer_that_broke_off_counts_at_its_worst(error: str) -> None:
    """Its usage so far knows the prompt and one token; the API bills what it went on to write."""
    record = RequestRecord(index=0, scheduled_s=0, sent_s=0, input_tokens=1000, output_tokens=1, error=error)
    assert spent_on(record, PRICES, 0.4) == 0.4
    assert Totals.of([record]).bill.usd(PRICES, 0.4) == pytest.approx(0.4)


def test_a_broken_stream_is_in_the_bill_of_the_run(claude: Claude) -> None:
    """Two of six cut by an overload: four by their usage, two at 1.3 * 100 in and 10 out."""
    result = probe(claude, model="claude-cut", concurrency=1)
    bill = result.measurements.spending
    tokens_in = sum(record.input_tokens for record in result.records if record.ok)
    worst = (1.3 * 100 * 3 + 10 * 15) / 1e6
    assert bill is not None
    assert bill.usd == pytest.approx((tokens_in * 3 + 40 * 15) / 1e6 + 2 * worst)


def test_a_price_period_with_a_long_context_tier_reaches_the_purse() -> None:
    """The baseline's sheet as it was on 2026-03-01, and as it has been since 2026-03-13: flat."""
    sheet = next(price for price in load_catalog().api_prices.values() if price.baseline)
    before, since = (prices_on(sheet, dt.date(2026, 3, day)) for day in (1, 20))
    assert (before.long_context_above_tokens, before.of_prompt(200_001).input) == (200_000, 6.0)
    assert before.of_prompt(300_000).cache_write == 7.5
    assert (since.long_context, since.of_prompt(900_000).input) == (None, 3.0)


def test_what_an_interrupted_part_had_under_way_is_not_forgotten(tmp_path: Path) -> None:
    """One answered (1,000 in), one dropped: a resumed run starts with both booked."""
    file, config = tmp_path / "run.jsonl", ProbeConfig(url="http://x", concurrency=1, requests=4)
    server = Server(name="anthropic", version=None, model="m", url="http://x")
    head = head_of(config, server=server, fit=None, seed=1, exact=False, started_at=dt.datetime.now(dt.UTC))
    with RecordWriter(file) as writer:
        writer.write(head)
        writer.write(RequestRecord(index=0, scheduled_s=0, sent_s=0, input_tokens=1000))
        writer.write(RequestRecord(index=1, scheduled_s=0, sent_s=0, error="interrupted"))
    earlier = read_resumption(file).earlier
    assert earlier.store is not None
    assert len(earlier.done) == 1
    assert earlier.store.totals.bill.usd(PRICES, 0.4) == pytest.approx(0.003 + 0.4)
