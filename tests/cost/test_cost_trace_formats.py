"""Traces and usage reports as people have them, priced and made into workloads."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

import pytest
from cost_samples import CATALOG, CHAT, DAY, SONNET

from qwenhost.cli.main import run
from qwenhost.cost import ApiTerms, api_cost, load_trace, quote_usage, requests_per_day, workload_of_trace
from qwenhost.cost.trace_workload import mean_over_peak
from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from pathlib import Path

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:17:03.9799600,4808,10\r\n2023-11-16 18:17:04.9799600,110,27\r\n"
)
BURSTGPT = (
    "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,10,0,10,API log\n118,ChatGPT,1087,230,1317,API log\n"
)
MOONCAKE = "\n".join(
    json.dumps(row)
    for row in (
        {"timestamp": 0, "input_length": 2048, "output_length": 7, "hash_ids": [1, 2, 3, 4]},
        {"timestamp": 9000, "input_length": 2560, "output_length": 7, "hash_ids": [1, 2, 3, 4, 5]},
    )
)
OURS = "\n".join(
    json.dumps({"arrival_s": at, "input_tokens": size, "output_tokens": 100, "session_id": "a"})
    for at, size in ((0, 2000), (100, 4000), (500, 5000))
)
OPENAI_REPORT = json.dumps(
    {
        "object": "page",
        "data": [
            {
                "object": "bucket", "start_time": 1730419200, "end_time": 1730505600,
                "results": [
                    {
                        "object": "organization.usage.completions.result", "input_tokens": 5000,
                        "output_tokens": 1000, "input_cached_tokens": 4000,
                        "num_model_requests": 5, "batch": True,
                    }
                ],
            }
        ],
    },
    indent=2,
)  # fmt: skip
ANTHROPIC_REPORT = json.dumps(
    {
        "data": [
            {
                "starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z",
                "results": [
                    {
                        "uncached_input_tokens": 1500, "cache_read_input_tokens": 200, "output_tokens": 500,
                        "cache_creation": {
                            "ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500,
                        },
                        "server_tool_use": {"web_search_requests": 10}, "service_tier": "standard",
                    }
                ],
            }
        ],
        "has_more": False,
    }
)  # fmt: skip
CONSOLE = (
    "usage_date_utc,model_version,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
    "usage_input_tokens_cache_write_1h,usage_input_tokens_cache_read,usage_output_tokens,web_search_count\n"
    "2026-11-01,claude-sonnet-4-6,1500,500,1000,200,500,10\n"
)


def written(tmp_path: Path, text: str, name: str = "trace.jsonl") -> Path:
    """The text in a file."""
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (AZURE, [(4808, 10), (110, 27)]),
        (BURSTGPT, [(472, 18), (1087, 230)]),
        (MOONCAKE, [(2048, 7), (2560, 7)]),
        (OURS, [(2000, 100), (4000, 100), (5000, 100)]),
    ],
)
def test_traces_are_read(tmp_path: Path, text: str, sizes: list[tuple[int, int]]) -> None:
    """Prompt and output tokens of each; failed requests of BurstGPT are left out."""
    found = load_trace(written(tmp_path, text)).usages
    assert [(usage.prompt_tokens, usage.output_tokens) for usage in found] == sizes


@pytest.mark.parametrize("text", [ANTHROPIC_REPORT, CONSOLE])
def test_anthropics_report_and_console_export_say_the_same(tmp_path: Path, text: str) -> None:
    """1,500 plain, 500 and 1,000 written, 200 read, 500 out, ten searches: 0.121935 USD."""
    trace = load_trace(written(tmp_path, text))
    assert trace.summed
    quote = quote_usage(CATALOG, trace, "report", ApiTerms(as_of=DAY))
    usd = (1500 * 3 + 500 * 3.75 + 1000 * 6 + 200 * 0.3 + 500 * 15) / 1e6 + 10 * 0.01
    assert quote.api[0].usd_total == pytest.approx(usd)
    assert any("row of the report" in remark for remark in quote.api[0].remarks)


def test_openais_report_counts_cached_tokens_within_the_input(tmp_path: Path) -> None:
    """1,000 fresh and 4,000 cached of 5,000, as batch."""
    (usage,) = load_trace(written(tmp_path, OPENAI_REPORT)).usages
    assert (usage.uncached_input_tokens, usage.cache_read_tokens, usage.batch) == (1000, 4000, True)


def test_a_trace_with_sessions_is_priced_under_a_simulated_cache(tmp_path: Path) -> None:
    """Gaps of 100 s and 400 s: five minutes read 2,000 of 11,000 tokens, an hour 6,000."""
    trace = load_trace(written(tmp_path, OURS))
    five = quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY, cache="5m")).api[0]
    assert five.cache_policy == "5m simulated"
    assert five.usage.cache_read_tokens * 3 == pytest.approx(2000)
    hour = quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY, cache="1h")).api[0]
    assert hour.usage.cache_read_tokens * 3 == pytest.approx(6000)
    assert hour.usd_total == pytest.approx((5000 * 6 + 6000 * 0.3 + 300 * 15) / 1e6)
    plain = quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY, cache="none")).api[0]
    auto = quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY)).api[0]
    assert auto.usd_total == min(five.usd_total, hour.usd_total, plain.usd_total)


def test_recorded_prefixes_are_found_again(tmp_path: Path) -> None:
    """The second Mooncake request reads the four pieces of the first: 2,048 tokens."""
    trace = load_trace(written(tmp_path, MOONCAKE))
    line = quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY, cache="5m")).api[0]
    assert line.usage.cache_read_tokens * 2 == pytest.approx(2048)


def test_an_offer_without_a_cache_price_bills_all_as_input(tmp_path: Path) -> None:
    """Hosted Qwen publishes none."""
    quote = quote_usage(CATALOG, load_trace(written(tmp_path, OURS)), "t", ApiTerms(as_of=DAY, cache="5m"))
    hosted = next(line for line in quote.api if line.id == "qwen-openrouter")
    assert hosted.cache_policy == "none"
    assert hosted.usage.uncached_input_tokens * 3 == pytest.approx(11_000)


def test_a_trace_becomes_a_workload(tmp_path: Path) -> None:
    """Its own sizes, hit shares, gaps and session length; the service level stays."""
    made = workload_of_trace(load_trace(written(tmp_path, OURS)), CHAT, name="ours", as_of=DAY)
    assert made.input_tokens.mean == pytest.approx(11_000 / 3)
    assert made.output_tokens.mean == 100
    assert made.prefix_hit_5m == pytest.approx(2000 / 11_000)
    assert made.prefix_hit_1h == pytest.approx(6000 / 11_000)
    assert made.requests_per_session == 3
    assert made.slo == CHAT.slo


def test_rhythm_and_volume_come_from_the_times(tmp_path: Path) -> None:
    """An hour of 2 requests a minute, 4 in its first twenty minutes: 160 in 60 minutes, the peak 4."""
    busy = [30.0 * i for i in range(121)] + [30.0 * i + 1 for i in range(40)]
    assert mean_over_peak(busy) == pytest.approx(160 / 60 / 4)
    rows = "\n".join(json.dumps({"arrival_s": at, "input_tokens": 9, "output_tokens": 9}) for at in busy)
    assert requests_per_day(load_trace(written(tmp_path, rows))) == pytest.approx(161 / 3600 * 86_400)
    assert requests_per_day(load_trace(written(tmp_path, OURS))) is None


@pytest.mark.parametrize(("window", "usd_per_mtok"), [("0-200k", 3.0), ("200k-1M", 6.0), (None, 3.0)])
def test_a_reports_rows_are_long_where_they_say_so(
    tmp_path: Path, window: str | None, usd_per_mtok: float
) -> None:
    """A sum of 5 million tokens is no long prompt; until 2026-03-12 long ones cost twice as much."""
    row = {"uncached_input_tokens": 5_000_000, "output_tokens": 0, "context_window": window}
    bucket = {"starting_at": "2026-03-01T00:00:00Z", "results": [row]}
    trace = load_trace(written(tmp_path, json.dumps({"data": [bucket]})))
    then = ApiTerms(as_of=dt.date(2026, 3, 1))
    quote = quote_usage(CATALOG, trace, "report", then)
    assert quote.api[0].usd_total == pytest.approx(5 * usd_per_mtok)
    (usage,) = trace.usages
    assert api_cost(SONNET, usage, as_of=then.as_of).total == pytest.approx(5 * usd_per_mtok)


def test_a_report_is_no_workload(tmp_path: Path) -> None:
    """Its rows are sums."""
    with pytest.raises(BadInputError, match="sizes of requests"):
        workload_of_trace(load_trace(written(tmp_path, CONSOLE)), CHAT, name="report", as_of=DAY)


def test_compare_takes_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Volume, sizes and rhythm of the file are what both sides are priced at."""
    rows = [
        {"arrival_s": 20 * i, "input_tokens": 2000, "output_tokens": 200, "session_id": i % 7}
        for i in range(400)
    ]
    path = written(tmp_path, "\n".join(map(json.dumps, rows)), "mine.jsonl")
    assert run(["compare", "--gpus", "2xH200", "--usage", str(path), "--as-of", "2026-11-23", "--json"]) == 0
    found: Any = json.loads(capsys.readouterr().out)
    assert found["workload"]["id"] == "mine"
    assert found["requests_per_day"] == pytest.approx(400 / (399 * 20) * 86_400)
    assert found["api"][0]["usage"]["output_tokens"] == 200
    assert run(["compare", "--gpus", "2xH200", "--usage", str(tmp_path / "none"), "--json"]) == 2


@pytest.mark.parametrize(
    "text",
    [
        '{"data": 5, "results": 1}',
        '{"data": [3, {"results": 4}]}',
        '{"data": [{"results": [{"input_tokens": "x"}]}]}',
        "input_tokens,output_tokens\nnan,5\n",
        '{"input_tokens": 1e999, "output_tokens": 1}',
        "Timestamp,Request tokens,Response tokens\nnan,5,5\n",
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [[1]]}',
        '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": 7}',
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-45,1,1\n",
        '{"arrival_s": 1, "input_tokens": 1e400, "output_tokens": 1}',
        '{"arrival_s": 1, "input_tokens": 1, "output_tokens": 0}',
        "\x00\x01\x02",
    ],
)
def test_nonsense_is_refused_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """One sentence on stderr, exit code 2, from cost and from compare."""
    path = str(written(tmp_path, text))
    for argv in (["cost", "--usage", path], ["compare", "--gpus", "2xH200", "--usage", path]):
        assert run(argv) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        assert "trace.jsonl" in said


def test_sessions_may_be_named_by_anything(tmp_path: Path) -> None:
    """A list as the session's name is taken as text."""
    row = {"arrival_s": 0, "input_tokens": 2000, "output_tokens": 9, "session_id": ["a", 1]}
    trace = load_trace(written(tmp_path, json.dumps(row)))
    assert quote_usage(CATALOG, trace, "t", ApiTerms(as_of=DAY, cache="5m")).requests == 1
