"""A server's own counters: the text of Prometheus as it is really written, restarts, replicas, agreement."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from px_server import NONE_SUCH, Reply, Stub, stream

from qwenhost.measurements import RequestRecord
from qwenhost.probe.counters import (
    COUNTED,
    counter_deltas,
    disagreement,
    others_used_the_server,
    parse_counters,
    summed,
    with_rates,
)
from qwenhost.probe.totals import Totals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vllm:prompt_tokens_total 7", 7),
        ("vllm:prompt_tokens 7", 7),
        ("vllm:prompt_tokens_total{} 7.0", 7),
        ('vllm:prompt_tokens_total{engine="0",model_name="Qwen/Qwen3.6"} 1.234567e+06', 1_234_567),
        ('vllm:prompt_tokens_total{engine="0"} 7.0 1763899200000', 7),
        ('vllm:prompt_tokens_total{model_name="a}b"} 7', 7),
        ('vllm:prompt_tokens_total{model_name="a \\"quoted\\" {name}"} 7', 7),
        ('vllm:prompt_tokens_total{model_name="C:\\\\models\\\\"} 7', 7),
        ('vllm:prompt_tokens_total{engine="0",} 7', 7),
        ("vllm:prompt_tokens_total\t7", 7),
        ('vllm:prompt_tokens_total{engine="0"} 7\r', 7),
    ],
)
def test_a_line_of_the_exposition_format(line: str, expected: float) -> None:
    """With and without labels, braces and quotes within them, a time stamp, exponents, CR LF."""
    assert parse_counters(f"# TYPE x counter\n{line}\nvllm:other_total 3\n") == {"prompt_tokens": expected}


@pytest.mark.parametrize(
    "line",
    [
        "vllm:prompt_tokens_total NaN",
        "vllm:prompt_tokens_total +Inf",
        "vllm:prompt_tokens_total -5",
        "vllm:prompt_tokens_total seven",
        "vllm:prompt_tokens_total 1e",
        "vllm:prompt_tokens_total",
        "vllm:prompt_tokens_total{",
        'vllm:prompt_tokens_total{a="b} 7',
        "vllm:prompt_tokens_created 7",
        "vllm:prompt_tokens_total_more 7",
        " vllm:prompt_tokens_total 7",
        "# vllm:prompt_tokens_total 7",
        "sglang:prompt_tokens_total 7",
        "vllm:PROMPT_TOKENS_total 7",
        "<html>vllm:prompt_tokens_total 7</html>",
    ],
)
def test_what_is_no_count_is_passed_over(line: str) -> None:
    """A run must not fail at its end over a line of a text that somebody else wrote."""
    assert parse_counters(line) == {}


@settings(max_examples=60)
@given(st.text(max_size=200))
def test_no_text_at_all_is_an_exception(text: str) -> None:
    """Whatever /metrics returns: counts that are listed, and nothing that is not a number."""
    found = parse_counters("vllm:prompt_tokens_total" + text + "\n" + text)
    assert set(found) <= COUNTED
    assert all(math.isfinite(value) for value in found.values())


def test_four_engines_of_two_models_are_one_server() -> None:
    """Data-parallel ranks and label values are added: (1 + 2 + 3 + 4) * (10 stop + 1 length)."""
    lines = [
        f'vllm:request_success_total{{engine="{rank}",finished_reason="{reason}"}} {rank + 1}{zero}'
        for rank in range(4)
        for reason, zero in (("stop", "0"), ("length", ""))
    ]
    assert parse_counters("\n".join(lines)) == {"request_success": 110}


def test_a_histograms_parts_are_no_counters() -> None:
    """``_bucket``, ``_sum`` and ``_count`` end otherwise."""
    text = "\n".join(f"vllm:prompt_tokens_{part} 5" for part in ("bucket", "sum", "count"))
    assert parse_counters(text) == {}


# --------------------------------------------------------------------------- differences


BEFORE = {"prompt_tokens": 900.0, "generation_tokens": 300.0, "request_success": 9.0}


@pytest.mark.parametrize("fallen", sorted(BEFORE))
def test_a_restart_leaves_no_counts(fallen: str) -> None:
    """A counter that fell began anew: what it counted before that is lost, and no figure is negative."""
    assert counter_deltas(BEFORE, BEFORE | {fallen: 1.0}) == {}


def test_a_counter_that_vanished_is_a_restart() -> None:
    """Servers list all their counters from the start on."""
    assert counter_deltas(BEFORE, {"prompt_tokens": 950.0}) == {}
    assert counter_deltas(BEFORE, {}) == {}


def test_an_idle_server_counted_nothing() -> None:
    """Zeros, and no rate of nothing."""
    deltas = counter_deltas(BEFORE | {"prefix_cache_queries": 5.0}, BEFORE | {"prefix_cache_queries": 5.0})
    assert set(deltas.values()) == {0.0}
    assert "prefix_cache_hit_rate" not in deltas


@given(counts=st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), min_size=1, max_size=10))
def test_differences_are_never_negative_and_add_up(counts: list[tuple[int, int]]) -> None:
    """Before plus the difference is after, or nothing is said at all."""
    names = sorted(COUNTED)
    before = {name: float(a) for name, (a, _) in zip(names, counts, strict=False)}
    after = {name: float(b) for name, (_, b) in zip(names, counts, strict=False)}
    deltas = counter_deltas(before, after)
    if all(b >= a for a, b in counts):
        assert {name: before[name] + deltas[name] for name in before} == after
    else:
        assert deltas == {}


@pytest.mark.parametrize(
    ("deltas", "rates"),
    [
        ({"prefix_cache_queries": 200.0, "prefix_cache_hits": 50.0}, {"prefix_cache_hit_rate": 0.25}),
        ({"prefix_cache_queries": 200.0}, {"prefix_cache_hit_rate": 0.0}),
        ({"prefix_cache_hits": 3.0}, {}),
        # 30 drafts of 3 tokens, 45 accepted: half of them, and 1 + 1.5 tokens a step.
        (
            {
                "spec_decode_num_drafts": 30.0,
                "spec_decode_num_draft_tokens": 90.0,
                "spec_decode_num_accepted_tokens": 45.0,
            },
            {"spec_decode_acceptance_rate": 0.5, "spec_decode_acceptance_length": 2.5},
        ),
        # A server that counts draft tokens and no drafts: a rate, and no length to be had.
        (
            {"spec_decode_num_draft_tokens": 90.0, "spec_decode_num_accepted_tokens": 45.0},
            {"spec_decode_acceptance_rate": 0.5},
        ),
        ({}, {}),
    ],
)
def test_rates_follow_from_counts(deltas: dict[str, float], rates: dict[str, float]) -> None:
    """Each where what it needs is there."""
    assert with_rates(dict(deltas)) == deltas | rates


def test_rates_of_several_servers_are_of_their_sums() -> None:
    """10 of 100 and 90 of 100 hits with 900 queries more: 100 of 1,000, not the mean of two rates."""
    one = counter_deltas(
        {"prefix_cache_queries": 0.0, "prefix_cache_hits": 0.0},
        {"prefix_cache_queries": 100.0, "prefix_cache_hits": 90.0},
    )
    other = counter_deltas(
        {"prefix_cache_queries": 5.0, "prefix_cache_hits": 5.0},
        {"prefix_cache_queries": 905.0, "prefix_cache_hits": 15.0},
    )
    both = with_rates(summed([one, other]))
    assert both == {"prefix_cache_queries": 1000, "prefix_cache_hits": 100, "prefix_cache_hit_rate": 0.1}


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([{"a": 1.0}, {"a": 2.0}, {"a": 3.5}], {"a": 6.5}),
        ([{"a": 1.0}, {"b": 2.0}], {"a": 1.0, "b": 2.0}),
        ([{"a": 1.0}, {}], {}),
        ([{}, {}], {}),
        ([], {}),
    ],
)
def test_a_sum_is_of_all_or_of_none(readings: list[dict[str, float]], expected: dict[str, float]) -> None:
    """One replica without /metrics, and the others' sum would pass for the whole."""
    assert summed(readings) == expected


# --------------------------------------------------------------------------- agreement


def totals(*tokens: tuple[int, int], error: str | None = None) -> Totals:
    return Totals.of(
        RequestRecord(
            index=i, scheduled_s=0, sent_s=0, first_token_s=1, last_s=2, input_tokens=a, output_tokens=b,
            error=error,
        )
        for i, (a, b) in enumerate(tokens)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("deltas", "said"),
    [
        ({"request_success": 2.0, "prompt_tokens": 30.0, "generation_tokens": 7.0}, None),
        (
            {"request_success": 2.0, "prompt_tokens": 31.0, "generation_tokens": 7.0},
            "prompt_tokens: /metrics 31, usage 30",
        ),
        (
            {"request_success": 2.0, "prompt_tokens": 31.0, "generation_tokens": 6.0},
            "prompt_tokens: /metrics 31, usage 30; generation_tokens: /metrics 6, usage 7",
        ),
        # Others' requests are among them: nothing can be compared.
        ({"request_success": 3.0, "prompt_tokens": 99.0}, None),
        ({"request_success": 2.0}, None),
        ({"prompt_tokens": 99.0}, None),
        ({}, None),
    ],
)
def test_usage_and_counters_must_agree(deltas: dict[str, float], said: str | None) -> None:
    """10 + 20 prompt tokens and 3 + 4 of output, in two requests."""
    assert disagreement(totals((10, 3), (20, 4)), deltas) == said


def test_nothing_is_compared_after_a_failure() -> None:
    """A request that failed has tokens on the server and none in its record."""
    deltas = {"request_success": 2.0, "prompt_tokens": 99.0}
    assert disagreement(totals((10, 3), (20, 4), error="timeout"), deltas) is None
    assert disagreement(Totals(), {"request_success": 0.0}) is None


@pytest.mark.parametrize(("on_server", "others"), [(1.0, False), (2.0, False), (3.0, True)])
def test_others_are_told_by_requests_that_are_not_ours(on_server: float, *, others: bool) -> None:
    """Two of ours; fewer means that some failed on the way."""
    assert others_used_the_server(totals((1, 1), (1, 1)), {"request_success": on_server}) is others


# --------------------------------------------------------------------------- over a run


def metrics(prompts: int, tokens: int, requests: int) -> Reply:
    return Reply(
        body=f'vllm:prompt_tokens_total{{engine="0"}} {prompts}\nvllm:generation_tokens_total {tokens}\n'
        f'vllm:request_success_total{{finished_reason="stop"}} {requests}\n'
    )


@pytest.fixture
def stubs() -> Iterator[Callable[..., Stub]]:
    """Makes servers and stops them."""
    made: list[Stub] = []

    def make(**routes: Any) -> Stub:
        made.append(Stub(**routes))
        return made[-1]

    yield make
    for stub in made:
        stub.stop()


def test_a_run_takes_the_difference(measure: Measure, stubs: Any) -> None:
    """Read until two readings agree: (100, 20, 5) before, (140, 28, 9) after four requests of 10 and 2."""
    before, after = metrics(100, 20, 5), metrics(140, 28, 9)
    # Before: two that agree. After: the last request is booked late, so the first two readings differ.
    stub = stubs(metrics=[before, before, metrics(130, 26, 8), after, after])
    found = measure(stub.url, requests=4, concurrency=1).measurements
    assert dict(found.engine_counters) == {"prompt_tokens": 40, "generation_tokens": 8, "request_success": 4}
    assert not any("token counts" in said for said in found.warnings)


def test_a_server_restarted_during_a_run_has_no_counters(measure: Measure, stubs: Any) -> None:
    """Fewer tokens after than before: no figure is drawn from that."""
    stub = stubs(metrics=[metrics(100, 20, 5), metrics(100, 20, 5), metrics(40, 8, 4)])
    assert measure(stub.url, requests=4, concurrency=1).measurements.engine_counters == {}


def test_a_restarted_replica_does_not_hide_behind_another(measure: Measure, stubs: Any) -> None:
    """The first grew by 1,000 tokens, the second began anew: together they would look like a plain sum."""
    calm, busy = metrics(500, 100, 50), metrics(1500, 300, 90)
    first = stubs(metrics=[calm, calm, busy])
    second = stubs(metrics=[calm, calm, metrics(20, 4, 2)])
    found = measure(first.url, more_urls=(second.url,), requests=4, concurrency=2).measurements
    assert found.engine_counters == {}


def test_replicas_counters_are_added(measure: Measure, stubs: Any) -> None:
    """Two of two requests each."""
    grown = [metrics(0, 0, 0), metrics(0, 0, 0), metrics(20, 4, 2)]
    first, second = stubs(metrics=list(grown)), stubs(metrics=list(grown))
    found = measure(first.url, more_urls=(second.url,), requests=4, concurrency=2).measurements
    assert dict(found.engine_counters) == {"prompt_tokens": 40, "generation_tokens": 8, "request_success": 4}


@pytest.mark.parametrize(
    "reply", [NONE_SUCH, Reply(500, "oops"), Reply(body=""), Reply(body=b"\xff\xfe\x00"), Reply(401, "")]
)
def test_a_server_without_metrics_is_measured_all_the_same(
    measure: Measure, stubs: Any, reply: Reply
) -> None:
    """No route, an error, nothing, no text, a key of its own."""
    found = measure(stubs(metrics=reply).url, requests=2, concurrency=1).measurements
    assert found.requests.completed == 2
    assert found.engine_counters == {}


def test_an_answer_that_ends_with_its_connection_counts(measure: Measure, stubs: Any) -> None:
    """A server without Content-Length and chunks: each answer ends by the close, and all of them well."""
    stub = stubs()
    stub.route("/v1/chat/completions", stream("a", " b", " c")._replace(framed=False))
    found = measure(stub.url, requests=4, concurrency=2, output=3).measurements
    assert (found.requests.completed, dict(found.requests.by_error)) == (4, {})
    assert found.workload.mean_output_tokens == 3
