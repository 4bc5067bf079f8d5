"""Traces in every recorded form, and prompts that share exactly what was shared."""

from __future__ import annotations

import json
import math
import random
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats
from qwenhost.probe.content import (
    SyntheticPrompts,
    TextPool,
    TokenFit,
    draw_lognormal,
    fit_tokens,
    nonce,
    sample_words,
)
from qwenhost.probe.replay import ReplayCourse, TracePrompts, read_replay
from qwenhost.probe.spread import Spread
from qwenhost.probe.talk import SyntheticTalk, session_sizes
from qwenhost.traces import TracedRequest, read_requests, seconds

if TYPE_CHECKING:
    from pathlib import Path

POOL = TextPool(5)
A_WORD = TokenFit(per_prompt=0.0, per_word=1.0)


def words(text: str) -> list[str]:
    return text.split()


def common(first: str, second: str) -> int:
    """Words that two texts begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(words(first), words(second), strict=False)) if a != b),
        min(len(words(first)), len(words(second))),
    )


# --------------------------------------------------------------------------- the forms of a trace

AZURE_2023 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:47.2221000,879,0
"""
AZURE_2024 = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
"""
BURSTGPT = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
5,,,ChatGPT,472,18,490,Conversation log
45,77,3.5,GPT-4,1087,230,1317,API log
118,77,2.5,GPT-4,417,276,693,API log
120,78,1.0,GPT-4,417,0,417,API log
"""
MOONCAKE = """\
{"timestamp": 0, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 3052, "input_length": 6472, "output_length": 26, "hash_ids": [46, 2353]}
"""
AGENT = """\
{"arrival_s": 1.5, "input_tokens": 900, "output_tokens": 120, "session": "a"}
{"arrival_s": 9, "input_tokens": 1400, "output_tokens": 60, "session": "a", "cached_tokens": 1000}
{"timestamp": "2026-11-23T10:00:00Z", "input_tokens": 5, "output_tokens": 6, "session_id": 7}
"""


def read(folder: Path, text: str, name: str = "trace", **options: Any) -> list[TracedRequest]:
    file = folder / name
    file.write_text(text)
    return read_requests(file, **options)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        # (seconds after the first, in, out, cached, session); failed requests are left out, order is by time.
        (AZURE_2023, [(0, 374, 44, 0, None), (4.314579, 396, 109, 0, None)]),
        (AZURE_2024, [(0, 2162, 5, 0, None), (0.007405, 2399, 6, 0, None)]),
        (BURSTGPT, [(0, 472, 18, 0, None), (40, 1087, 230, 0, "77"), (113, 417, 276, 0, "77")]),
        (MOONCAKE, [(0, 6955, 52, 0, None), (3.052, 6472, 26, 0, None)]),
        (AGENT[: AGENT.index('{"timestamp')], [(0, 900, 120, 0, "a"), (7.5, 1400, 60, 1000, "a")]),
    ],
    ids=["Azure 2023", "Azure 2024", "BurstGPT", "Mooncake", "agent"],
)
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_published_traces(tmp_path: Path, text: str, rows: list[Any], line_end: str, bom: str) -> None:
    """Rows as their authors publish them; with the marks that Windows leaves as well."""
    file = tmp_path / "trace"
    file.write_bytes((bom + text.replace("\n", line_end)).encode())
    found = read_requests(file)
    start = found[0].at_s
    assert [
        (round(one.at_s - start, 6), one.input_tokens, one.output_tokens, one.cached_tokens, one.session)
        for one in found
    ] == rows


def test_block_ids_of_mooncake(tmp_path: Path) -> None:
    """Kept in order; a row without any is a row all the same."""
    found = read(tmp_path, MOONCAKE + '{"timestamp": 9000, "input_length": 5, "output_length": 5}\n')
    assert [one.hash_ids for one in found] == [(46, 47, 48), (46, 2353), ()]


def test_a_json_list_and_a_blank_line(tmp_path: Path) -> None:
    """A list is read by its entries, blank lines by nothing."""
    row = '{"arrival_s": 0, "input_tokens": 1, "output_tokens": 2}'
    assert len(read(tmp_path, f"[{row}, {row}]")) == 2
    assert len(read(tmp_path, f"{row}\n\n{row}\n")) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no request"),
        ("\n", "holds no request"),
        ("[]", "holds no request"),
        ("a,b\n1,2\n", "line 2: "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,5,\n", "line 2: "),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,5,5\n", "line 2: "),
        ("TIMESTAMP,ContextTokens\n2023-11-16,5\n", "line 2: 'GeneratedTokens' is missing"),
        ("Timestamp,Request tokens,Response tokens\ninf,5,5\n", "line 2: inf is no time"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16,0,9\n", "holds no request"),
        ('{"timestamp": 1, "input_length": 5}\n', "line 1: 'output_length' is missing"),
        ('{"timestamp": null, "input_length": 5, "output_length": 5}\n', "line 1: "),
        ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": ["x"]}\n', "line 1: "),
        ('{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": 5}\n', "line 1: "),
        ('{"arrival_s": 1, "input_tokens": "many", "output_tokens": 5}\n', "line 1: "),
        ('{"arrival_s": 1, "input_tokens": 1e400, "output_tokens": 5}\n', "line 1: "),
        ('{"input_tokens": 1, "output_tokens": 5}\n', "line 1: 'timestamp' is missing"),
        ('{"arrival_s": 0, "input_tokens": 1, "output_tokens": 1}\nnot json\n', "line 2: not JSON"),
        ("[1, 2]", "line 1: "),
        ("null", "holds no request"),
        ("[" * 4000, "not JSON"),
    ],
)
def test_what_is_no_trace_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    """File, line, and the column or cell; with what a line should look like."""
    with pytest.raises(BadInputError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "trace") in str(caught.value)
    assert "arrival_s" in str(caught.value.remedy)


@settings(max_examples=150)
@given(st.text(max_size=120) | st.binary(max_size=60).map(lambda data: data.decode("latin-1")))
def test_no_file_is_an_exception_of_another_kind(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Anything at all behind the head of a trace."""
    file = tmp_path_factory.mktemp("any") / "trace"
    found: list[TracedRequest] = []
    for head in ("", "TIMESTAMP,ContextTokens,GeneratedTokens\n", '{"arrival_s": ', "["):
        file.write_text(head + text, encoding="utf-8", newline="")
        said = ""
        try:
            found = read_requests(file)
        except BadInputError as error:
            said = str(error)
        assert found or said.startswith(str(file))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (5, 5.0), ("5.25", 5.25), ("1970-01-01", 0.0), ("1970-01-01 00:01:00", 60.0),
        ("1970-01-01T00:00:00Z", 0.0), ("1970-01-01T01:00:00+01:00", 0.0),
        ("1970-01-01 00:00:01.123456789", 1.123456), ("1970-01-01T00:00:01.5Z", 1.5),
        ("1970-01-01T00:00:00.1234567-02:00", 7200.123456),
    ],
)  # fmt: skip
def test_times_as_they_are_written(value: Any, expected: float) -> None:
    """Numbers, and ISO times with up to nine decimals; without a zone they are UTC."""
    assert seconds(value) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", math.nan, "noon", "", "2026-13-01"])
def test_what_is_no_time(value: Any) -> None:
    """A ValueError for the reader to name the line with."""
    with pytest.raises(ValueError, match=r"."):
        seconds(value)


# --------------------------------------------------------------------------- made ready


def replayed(folder: Path, *rows: tuple[float, int, int], **options: Any) -> Any:
    text = "".join(
        json.dumps({"arrival_s": at, "input_tokens": a, "output_tokens": b}) + "\n" for at, a, b in rows
    )
    (folder / "trace").write_text(text)
    defaults: dict[str, Any] = {"scale": 1.0, "most": None, "until_s": None, "context": None}
    return read_replay(folder / "trace", **(defaults | options))


ROWS = [(100.0, 10, 1), (102.0, 20, 2), (106.0, 30, 3), (110.0, 40, 4)]


@pytest.mark.parametrize(
    ("options", "at", "left_out"),
    [
        ({}, [0, 2, 6, 10], 0),
        ({"scale": 2.0}, [0, 1, 3, 5], 0),
        ({"scale": 0.5}, [0, 4, 12, 20], 0),
        ({"until_s": 6.0}, [0, 2], 0),
        ({"until_s": 6.0, "scale": 2.0}, [0, 1, 3, 5], 0),
        ({"most": 3}, [0, 2, 6], 0),
        ({"context": 33}, [0, 2, 6], 1),
        ({"context": 32, "most": 3}, [0, 2], 1),
    ],
)
def test_a_trace_made_ready(tmp_path: Path, options: Any, at: list[float], left_out: int) -> None:
    """From zero, stretched, cut by number and time; what the context cannot hold is counted."""
    found = replayed(tmp_path, *ROWS, **options)
    assert [one.at_s for one in found.requests] == pytest.approx(at)
    assert found.left_out == left_out
    mean = sum(one.input_tokens for one in found.requests) / len(at)
    assert (found.mean_input_tokens, found.mean_output_tokens) == (mean, pytest.approx(mean / 10))


def course(*requests: TracedRequest, timed: bool = True, urls: int = 1, think_s: float = 0.0) -> ReplayCourse:
    prompts = TracePrompts(requests, fit=A_WORD, seed=1, pool=POOL)
    sent: Any = lambda prompt, index, *, replica: f"{index}/{replica}".encode()  # noqa: E731
    return ReplayCourse(
        requests, prompts, encode=sent, spread=Spread(urls=urls, sticky=True), timed=timed, think_s=think_s
    )


def traced(at: float, session: str | None = None, tokens: int = 20, **more: Any) -> TracedRequest:
    return TracedRequest(at, tokens, 5, session=session, **more)


MIXED = (
    traced(0, "a"), traced(1), traced(2, "b"), traced(3, "a", 30), traced(4, "a", 40), traced(5, "b", 30),
)  # fmt: skip


def test_sessions_wait_and_single_requests_do_not() -> None:
    """Chains 0-3-4, 1 and 2-5: three starts at their instants, the rest follow."""
    made = course(*MIXED)
    assert list(made.starts()) == [0, 1, 2]
    assert list(made.due_s or ()) == [0, 1, 2]
    assert (made.total, made.starts_share) == (6, 0.5)
    assert [made.follows(i) for i in range(6)] == [True, False, True, True, False, False]
    assert [made.requests_in([i]) for i in range(6)] == [3, 1, 2, 2, 1, 1]
    assert [tuple(made.label(i))[:2] for i in range(6)] == [
        (0, 0), (None, None), (1, 0), (0, 1), (0, 2), (1, 1),
    ]  # fmt: skip
    assert all(made.admits(i) for i in range(6))


def test_what_was_done_is_not_sent_again() -> None:
    """A resumed run: session a stands at its last turn, the single is done, b has not begun."""
    made = course(*MIXED)
    assert list(made.starts({0, 3, 1})) == [4, None, 2]
    assert list(made.starts(set(range(6)))) == [None, None, None]


def test_a_sessions_next_is_not_before_its_instant() -> None:
    """Where instants rule; else after a pause."""
    ended: Any = type("Ended", (), {"index": 0})()
    assert tuple(course(*MIXED).follow(ended)) == (3, 0.0, 3)
    assert tuple(course(*MIXED, timed=False, think_s=2.5).follow(ended)) == (3, 2.5, 0.0)
    assert course(*MIXED, timed=False).due_s is None


def test_a_session_stays_with_its_url() -> None:
    """Two URLs: sessions 0 and 1 on one each, single requests by their index."""
    made = course(*MIXED, urls=2)
    assert [made.label(i).replica for i in range(6)] == [0, 1, 1, 0, 0, 1]
    assert made.payload(3) == b"3/0"


# --------------------------------------------------------------------------- what prompts share


def texts(*requests: TracedRequest, **options: Any) -> list[str]:
    made = TracePrompts(requests, fit=A_WORD, seed=1, pool=POOL, **options)
    return [made[i].text for i in range(len(requests))]


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(20, 3000), st.booleans()), min_size=2, max_size=6))
def test_single_requests_have_their_length_and_share_nothing(rows: list[tuple[int, bool]]) -> None:
    """As many words as tokens, but for the nonces; the run's own nonce is all they begin with alike."""
    found = texts(*(traced(i, tokens=tokens) for i, (tokens, _) in enumerate(rows)))
    for text, (tokens, _) in zip(found, rows, strict=True):
        assert tokens <= len(words(text)) <= tokens + 2
    assert all(common(a, b) == 1 for a, b in pairwise(found))


@pytest.mark.parametrize("growth", [0, 1, 50, 500])
def test_a_sessions_prompt_contains_the_one_before(growth: int) -> None:
    """Turn by turn longer: all of the shorter one is the beginning of the longer."""
    found = texts(*(traced(i, "s", 200 + growth * i) for i in range(4)))
    for i, (shorter, longer) in enumerate(pairwise(found)):
        assert common(shorter, longer) >= 200 + growth * i
        assert len(words(longer)) - len(words(shorter)) == growth


def test_two_sessions_share_nothing_but_the_runs_mark() -> None:
    """Of the same lengths."""
    first, second = texts(traced(0, "a", 300), traced(1, "b", 300))
    assert common(first, second) == 1


@pytest.mark.parametrize("cached", [1, 100, 250, 299, 300])
def test_cached_tokens_are_common_to_the_whole_trace(cached: int) -> None:
    """Without sessions: requests that had so many tokens served share so many words, and no more."""
    first, second = texts(
        traced(0, tokens=300, cached_tokens=cached), traced(1, tokens=300, cached_tokens=cached)
    )
    shared = common(first, second)
    assert abs(shared - cached) <= 1 if cached < 300 else shared >= 300


def test_a_compacted_session_begins_anew() -> None:
    """A prompt shorter than the one before shares only the session's beginning, as long as it is."""
    long, short = texts(traced(0, "s", 500), traced(1, "s", 120))
    assert len(words(short)) < len(words(long))


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_equal_blocks_are_equal_text_up_to_the_first_that_differs(blocks: int) -> None:
    """Mooncake's ids name 512 tokens each: so many common blocks are so many hundred words, to the nonces."""
    same = tuple(range(10, 10 + blocks))
    first, second = texts(
        traced(0, tokens=512 * 4, hash_ids=(*same, 90, 91, 92, 93)[:4]),
        traced(1, tokens=512 * 4, hash_ids=(*same, 80, 81, 82, 83)[:4]),
    )
    # Each block is an id and 512 - 6 words: what ids and marks take is left out of the words.
    assert common(first, second) == pytest.approx(512 * blocks, abs=8 * blocks)
    assert len(words(first)) == pytest.approx(512 * 4, abs=8 * 4)


@pytest.mark.parametrize("tokens", [513, 700, 1023])
def test_the_last_block_is_cut_to_the_prompts_length(tokens: int) -> None:
    """Two ids, and fewer tokens than two blocks hold; what there is of the second is shared as well."""
    short, long = texts(traced(0, tokens=tokens, hash_ids=(1, 2)), traced(1, tokens=1024, hash_ids=(1, 2)))
    assert len(words(short)) == pytest.approx(tokens, abs=16)
    assert common(short, long) == len(words(short))


def test_a_recorded_cache_read_goes_before_the_sessions_last_prompt() -> None:
    """Of 1,000 tokens said before the server had 600 cached: so many words are common, the rest is new."""
    first, second = texts(traced(0, "s", 1000), traced(1, "s", 1400, cached_tokens=600))
    assert common(first, second) == pytest.approx(600, abs=3)
    assert len(words(second)) == pytest.approx(1400, abs=3)


def test_tokens_beyond_the_ids_are_the_requests_own() -> None:
    """1,000 tokens with one id: half is a block, half is nobody else's."""
    first, second = texts(traced(0, tokens=1000, hash_ids=(1,)), traced(1, tokens=1000, hash_ids=(1,)))
    assert common(first, second) == pytest.approx(512, abs=8)
    assert len(words(first)) == pytest.approx(1000, abs=16)


def test_another_run_shares_nothing_unless_it_is_asked_to() -> None:
    """Seeds differ, or the mark of the run is left out."""
    one = TracePrompts(MIXED, fit=A_WORD, seed=1, pool=POOL)
    other = TracePrompts(MIXED, fit=A_WORD, seed=2, pool=POOL)
    assert all(common(one[i].text, other[i].text) == 0 for i in range(6))
    bare = [TracePrompts(MIXED, fit=A_WORD, seed=1, pool=POOL, unique=False)[i].text for i in range(6)]
    assert bare == [
        TracePrompts(MIXED, fit=A_WORD, seed=1, pool=POOL, unique=False)[i].text for i in range(6)
    ]
    assert [one[i].text.split(" ", 1)[1] for i in range(6)] == bare


def test_warm_up_shares_nothing_with_the_run() -> None:
    """Negative indices have the trace's sizes and words of their own; -1 is the run's own mark."""
    made = TracePrompts(MIXED, fit=A_WORD, seed=1, pool=POOL)
    warm = [made[-i].text for i in range(2, 8)]
    assert all(common(text, made[i].text) == 0 for text in warm for i in range(6))
    assert all(common(a, b) == 0 for a, b in pairwise(warm))


# --------------------------------------------------------------------------- synthetic prompts


def prompts(**options: Any) -> SyntheticPrompts:
    defaults: dict[str, Any] = {
        "input_tokens": TokenStats(mean=200), "output_tokens": TokenStats(mean=30), "seed": 1, "pool": POOL,
        "fit": TokenFit(per_prompt=20, per_word=1.25),
    }  # fmt: skip
    return SyntheticPrompts(**(defaults | options))


@pytest.mark.parametrize("tokens", [21, 22, 100, 513, 8191, 200_000])
def test_a_prompt_has_the_tokens_that_were_asked_for(tokens: int) -> None:
    """20 + 1.25 * words = tokens, to half a word; the nonce is in the 20; long ones wrap around."""
    found = prompts(input_tokens=TokenStats(mean=tokens))[3]
    count = len(words(found.text)) - 1
    assert 20 + 1.25 * count == pytest.approx(tokens, abs=1.25)
    assert found.max_tokens == 30


@given(index=st.integers(-5, 10**6), other=st.integers(-5, 10**6), seed=st.integers(0, 2**32))
@settings(max_examples=30)
def test_no_two_prompts_begin_alike(index: int, other: int, seed: int) -> None:
    """Not within a run, nor between runs; the same prompt of the same run is the same."""
    made = prompts(seed=seed)
    assert made[index] == prompts(seed=seed)[index]
    if index != other:
        assert common(made[index].text, made[other].text) == 0
    assert common(made[index].text, prompts(seed=seed + 1)[index].text) == 0


@pytest.mark.parametrize("hit", [0.1, 0.5, 0.9])
def test_a_shared_prefix_is_the_wanted_share(hit: float) -> None:
    """2,000 tokens of a word each: so many words common to all, and nothing behind them."""
    made = prompts(input_tokens=TokenStats(mean=2000), prefix_hit=hit, fit=A_WORD)
    found = [made[i].text for i in range(5)]
    for a, b in pairwise(found):
        assert common(a, b) == pytest.approx(hit * 2000, abs=2)
    assert all(len(words(text)) == pytest.approx(2000, abs=3) for text in found)
    bare = prompts(input_tokens=TokenStats(mean=2000), prefix_hit=hit, fit=A_WORD, unique=False)
    assert bare[0].text == found[0].replace(f"{nonce(1, -1)} ", "").replace(f"{nonce(1, 0)} ", "")


@pytest.mark.parametrize(
    ("stats", "p50", "p90"),
    [
        # Mean and median: sigma = sqrt(2 ln(mean / median)); p90 = median exp(1.2816 sigma).
        (TokenStats(mean=1000, p50=600), 600, 600 * math.exp(1.28155 * math.sqrt(2 * math.log(1000 / 600)))),
        # Mean and p90: the median follows, mean / exp(sigma^2 / 2) with sigma = 0.6197 for p90 = 1.8 mean.
        (TokenStats(mean=1000, p90=1800), None, 1800),
        (TokenStats(mean=1000), 1000, 1000),
        # A median above the mean is no lognormal's: all are the mean.
        (TokenStats(mean=1000, p50=1200), 1000, 1000),
    ],
)
def test_drawn_lengths_have_the_stated_figures(stats: TokenStats, p50: float | None, p90: float) -> None:
    """20,000 draws: mean, median and 90th percentile within four standard errors and a little."""
    draw = random.Random(8)  # noqa: S311 - a model of chance
    found = sorted(draw_lognormal(stats, draw) for _ in range(20_000))
    assert statistics.fmean(found) == pytest.approx(1000, rel=0.05)
    if p50 is not None:
        assert found[10_000] == pytest.approx(p50, rel=0.05)
    assert found[18_000] == pytest.approx(p90, rel=0.05)
    assert found[0] >= 1
    assert found[-1] <= 20 * 1000


def test_drawn_prompts_fit_the_context() -> None:
    """A context of 1,000 tokens, means of 800 and 600: answer within half, both together within all."""
    made = prompts(
        input_tokens=TokenStats(mean=800, p50=400), output_tokens=TokenStats(mean=600, p50=300),
        distribution="preset", max_model_len=1000,
    )  # fmt: skip
    sizes = [made.sizes(i) for i in range(500)]
    assert all(out <= 500 and wanted + out <= 1000 for wanted, out in sizes)
    assert any(out == 500 for _, out in sizes)
    assert len({made[i].max_tokens for i in range(50)}) > 20


@pytest.mark.parametrize(
    ("few", "many", "expected"),
    [
        ((50, 80), (250, 330), (17.5, 1.25, "measured")),
        # A line below zero at no words cannot be: nothing beside the words.
        ((50, 40), (250, 290), (0.0, 1.25, "measured")),
        # More words and fewer tokens is no line.
        ((50, 80), (250, 80), (20.0, 1.15, "assumed")),
    ],
)
def test_a_fit_is_the_line_through_two_points(few: Any, many: Any, expected: Any) -> None:
    """Tokens beside the words, tokens a word, and what that rests on."""
    found = fit_tokens(few, many, "a source")
    assert (found.per_prompt, found.per_word, found.basis) == expected


def test_samples_to_fit_are_of_the_stated_length() -> None:
    """A nonce and so many words, each sample elsewhere in the text."""
    found = sample_words(POOL, 3, (50, 400))
    assert [(count, len(words(text)) - 1) for count, text in found] == [(50, 50), (400, 400)]
    assert common(found[0][1], found[1][1]) == 0


def test_the_text_is_english_enough_to_be_tokens_of_words() -> None:
    """Sentences that begin with a capital and end with a full stop, of 6 to 19 words."""
    sentences = POOL.cut(5000, 0).split(". ")[1:-1]
    assert all(sentence[0].isupper() for sentence in sentences)
    assert {len(words(sentence)) for sentence in sentences} <= set(range(6, 20))
    assert TextPool(5).cut(100, 7) == POOL.cut(100, 7) != TextPool(6).cut(100, 7)
    assert POOL.cut(3, 10**9) == POOL.cut(3, 10**9 % len(POOL._words))


# --------------------------------------------------------------------------- sessions


@given(
    mean=st.integers(500, 20_000), out=st.integers(1, 60), turns=st.integers(2, 12), hit=st.floats(0, 0.99)
)
@settings(max_examples=80)
def test_session_sizes_are_as_they_say_or_refused(mean: int, out: int, turns: int, hit: float) -> None:
    """Prompts average to the mean, the share seen before is as stated; else what is possible is named."""
    refused, found = "", None
    try:
        found = session_sizes(mean, out, turns, hit)
    except BadInputError as error:
        refused = str(error.remedy)
    if found is None:
        assert "They allow 0." in refused or "--input-tokens" in refused
        return
    sizes = [found.first + k * found.growth for k in range(turns)]
    assert sum(sizes) / turns == pytest.approx(mean)
    seen = sum(sizes[:-1]) + found.shared
    assert found.hit == pytest.approx(seen / sum(sizes))
    assert found.hit == pytest.approx(hit, abs=0.006)
    assert found.growth >= out + 12 + 8
    assert 0 <= found.shared <= 0.9 * found.first


@pytest.mark.parametrize(("turns", "hit"), [(2, None), (4, 0.6), (6, 0.8)])
def test_what_is_said_in_a_session_has_the_planned_length(turns: int, hit: float | None) -> None:
    """First and further turns in words; sessions share the prefix and nothing else."""
    sizes = session_sizes(3000, 100, turns, hit)
    made = SyntheticTalk(sizes, turns=turns, output_tokens=100, fit=A_WORD, seed=1, pool=POOL)
    first, second = made.turns(0), made.turns(1)
    assert [len(first), len(second)] == [turns, turns]
    assert len(words(first[0].text)) == pytest.approx(sizes.first, abs=3)
    assert all(len(words(t.text)) == pytest.approx(sizes.growth - 112, abs=1) for t in first[1:])
    assert common(first[0].text, second[0].text) == pytest.approx(sizes.shared, abs=1)
    assert all(turn.max_tokens == 100 for turn in first)
    assert made.turns(0) == first
    assert len(words(made.stand_in(0, 1, 40))) == 40
