"""What a run is asked to do, and which requests follow from it: refusals, schedules, sessions, tools."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from px_streams import VLLM_CHAT, Line, wire_of

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats
from qwenhost.measurements import RequestRecord
from qwenhost.probe import ProbeConfig
from qwenhost.probe.beside import beside, quiet_garbage_collector
from qwenhost.probe.content import TextPool, TokenFit
from qwenhost.probe.course import Earlier, Indices, Singles
from qwenhost.probe.itinerary import itinerary
from qwenhost.probe.sessions import SessionCourse, TalkPrompts
from qwenhost.probe.spread import Spread
from qwenhost.probe.talk import SyntheticTalk, session_sizes
from qwenhost.probe.tools import generated_tools, read_tools
from qwenhost.probe.wire import parse_url

if TYPE_CHECKING:
    from pathlib import Path

POOL = TextPool(2)


def config(**options: Any) -> ProbeConfig:
    return ProbeConfig(url="http://x", **options)


# --------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
@pytest.mark.parametrize(
    "name", ["rate", "burstiness", "ramp_to", "trace_scale", "timeout_s", "idle_timeout_s", "duration_s"]
)
def test_what_must_be_positive_is_named(name: str, value: float) -> None:
    """The option, what it is and what it should be; NaN is not more than 0 either."""
    options = {"rate": 1.0, "duration_s": 10.0} | {name: value}
    with pytest.raises(BadInputError, match=f"{name} is {value}, expected more than 0"):
        config(**options).check()


@pytest.mark.parametrize(
    "name", ["rate", "ramp_to", "burstiness", "trace_scale", "think_time_s", "ramp_up_s"]
)
def test_what_has_no_end_has_no_schedule(name: str) -> None:
    """An infinite rate would make an endless list of due times; how to send all at once is said."""
    options = {"rate": 1.0, "duration_s": 10.0} | {name: math.inf}
    with pytest.raises(BadInputError, match=f"{name} is inf, expected a finite number") as caught:
        config(**options).check()
    assert "--concurrency N --requests N" in str(caught.value.remedy)


@pytest.mark.parametrize("name", ["timeout_s", "idle_timeout_s"])
def test_a_timeout_may_be_without_end(name: str) -> None:
    """Who wants to wait for ever may."""
    config(concurrency=1, **{name: math.inf}).check()


@pytest.mark.parametrize("hit", [-0.1, 1.0, math.nan])
def test_a_share_is_less_than_all(hit: float) -> None:
    """A prompt that stood wholly in an earlier one has nothing of its own."""
    with pytest.raises(BadInputError, match="at least 0 and less than 1"):
        config(concurrency=1, prefix_hit=hit).check()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "exactly one of --concurrency and --rate"),
        ({"concurrency": 1, "rate": 1.0}, "exactly one of --concurrency and --rate"),
        ({"concurrency": 1, "ramp_to": 2.0, "duration_s": 5.0}, "a ramp has two rates and a length"),
        ({"rate": 1.0, "ramp_to": 2.0}, "a ramp has two rates and a length"),
        ({"trace": "t", "prompts": "p"}, "a trace brings its own sizes and sessions"),
        ({"trace": "t", "turns": 2}, "a trace brings its own sizes and sessions"),
        ({"trace": "t", "prefix_hit": 0.5}, "a trace brings its own sizes and sessions"),
        ({"concurrency": 1, "prompts": "p", "prefix_hit": 0.5}, "--prefix-hit makes synthetic prompts"),
        ({"concurrency": 1, "endpoint": "completions", "turns": 2}, "takes a plain text"),
        ({"concurrency": 1, "endpoint": "completions", "images": 1}, "takes a plain text"),
        ({"concurrency": 1, "endpoint": "completions", "tools": ({"name": "f"},)}, "takes a plain text"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"concurrency": 1, "requests": 0}, "requests is 0"),
        ({"concurrency": 1, "turns": 0}, "turns is 0"),
    ],
)
def test_what_contradicts_itself_is_refused(options: dict[str, Any], said: str) -> None:
    """Before anything is sent, with the way out."""
    with pytest.raises(BadInputError, match=said):
        config(**options).check()


@pytest.mark.parametrize(
    ("options", "requests", "duration", "warmup"),
    [
        # Ten waves, 20 at least, 1,000 at most, but never fewer than fill the slots.
        ({"concurrency": 1}, 20, None, 1),
        ({"concurrency": 8}, 80, None, 8),
        ({"concurrency": 64}, 640, None, 16),
        ({"concurrency": 500}, 1000, None, 16),
        ({"concurrency": 4000}, 4000, None, 16),
        ({"concurrency": 8, "duration_s": 5.0}, None, 5.0, 8),
        ({"concurrency": 8, "requests": 3, "warmup": 0}, 3, None, 0),
        ({"rate": 2.0}, None, 30.0, 2),
        ({"rate": 2.0, "requests": 7}, 7, None, 2),
        ({"rate": 2.0, "requests": 7, "duration_s": 4.0}, 7, 4.0, 2),
        ({"trace": "t"}, None, None, 2),
    ],
)
def test_what_is_not_said_follows(
    options: dict[str, Any], requests: int | None, duration: float | None, warmup: int
) -> None:
    """How many, for how long, and how many before the clock starts."""
    made = config(**options)
    made.check()
    assert (made.planned_requests, made.planned_duration_s, made.warmup_requests) == (
        requests, duration, warmup,
    )  # fmt: skip


# --------------------------------------------------------------------------- schedules of requests


def singles() -> Singles:
    prompts: Any = {}
    encode: Any = None
    return Singles(prompts, encode, Spread())


def test_an_open_loops_requests_are_its_schedule() -> None:
    """Four a second for two seconds: eight, and no more is to be sent."""
    plan = itinerary(config(rate=4.0, arrivals="constant", duration_s=2.0), singles(), Earlier(), seed=1)
    assert list(plan.due) == [i / 4 for i in range(8)]
    assert (list(plan.starts), plan.limit) == (list(range(8)), 8)


@pytest.mark.parametrize(("limit", "opened"), [(3, 3), (8, 8), (100, 8)])
def test_a_closed_loop_opens_no_more_slots_than_it_has_requests(limit: int, opened: int) -> None:
    """Eight slots, half a second apart."""
    plan = itinerary(config(concurrency=8, requests=limit, ramp_up_s=4.0), singles(), Earlier(), seed=1)
    assert list(plan.due) == [i / 2 for i in range(opened)]
    assert plan.limit == limit
    assert list(plan.starts) == list(range(limit))


def test_a_resumed_open_loop_sends_what_is_left_at_its_old_distances() -> None:
    """Done: 0, 1, 3 of eight, until 1.7 s. What lay open (2) is due at once, the rest as far behind it."""
    done = Indices()
    for index in (0, 1, 3):
        done.add(index)
    plan = itinerary(
        config(rate=4.0, arrivals="constant", duration_s=2.0), singles(),
        Earlier(done=done, until_s=1.7), seed=1,
    )  # fmt: skip
    assert list(plan.starts) == [2, 4, 5, 6, 7]
    assert list(plan.due) == pytest.approx([1.7, 2.2, 2.45, 2.7, 2.95])


def test_a_resumed_closed_loop_has_so_many_fewer() -> None:
    """Ten in all, four done."""
    done = Indices()
    for index in (0, 1, 2, 5):
        done.add(index)
    plan = itinerary(config(concurrency=2, requests=10), singles(), Earlier(done=done, until_s=9.0), seed=1)
    assert plan.limit == 6
    assert list(plan.starts) == [3, 4, 6, 7, 8, 9]
    assert list(plan.due) == pytest.approx([9.0, 9.0005])


@given(st.sets(st.integers(0, 300)), st.integers(-5, 400))
@settings(max_examples=40)
def test_a_set_of_indices_is_a_set(members: set[int], asked: int) -> None:
    """Ascending, counted, and asked for anything."""
    found = Indices()
    for index in members:
        found.add(index)
        found.add(index)
    assert list(found) == sorted(members)
    assert (len(found), asked in found) == (len(members), asked in members)


# --------------------------------------------------------------------------- sessions


def sessions(turns: int = 3, *, think_s: float = 0.0, urls: int = 1, sticky: bool = True) -> SessionCourse:
    sizes = session_sizes(600, 20, turns, None)
    talk = SyntheticTalk(
        sizes, turns=turns, output_tokens=20, fit=TokenFit(per_prompt=0, per_word=1), seed=1, pool=POOL
    )
    sent: Any = lambda prompt, index, *, replica: json.dumps(prompt.messages).encode()  # noqa: E731
    return SessionCourse(
        talk, most_turns=turns, encode=sent, spread=Spread(urls=urls, sticky=sticky), endpoint="chat",
        think_s=think_s, seed=4,
    )  # fmt: skip


def answered(index: int) -> Any:
    line = Line(whole=True).receive(wire_of(VLLM_CHAT).data)
    line.exchange.index = index
    return line.exchange


def test_each_turn_holds_all_before_it() -> None:
    """Session 1 of three turns: indices 3, 4, 5; the model's own answers stand between the questions."""
    made = sessions()
    history: list[Any] = []
    for index in (3, 4, 5):
        sent = json.loads(made.payload(index))
        assert sent[: len(history)] == history
        assert sent[-1]["role"] == "user"
        assert [message["role"] for message in sent] == ["user", "assistant"] * (index - 3) + ["user"]
        history = sent
        if made.follows(index):
            assert made.follow(answered(index)).request == index + 1
    assert history[1] == {"role": "assistant", "content": 'It\'s "so"\n 日本 🦜'}
    assert [made.follows(index) for index in (3, 4, 5)] == [True, True, False]


def test_a_session_that_is_over_is_forgotten() -> None:
    """After its last turn, or after a failure; not before."""
    made = sessions()
    made.payload(0)
    made.note(RequestRecord(index=0, scheduled_s=0, sent_s=0))
    assert list(made._history) == [0]
    made.note(RequestRecord(index=0, scheduled_s=0, sent_s=0, error="timeout"))
    assert made._history == {}
    made.payload(5)
    made.note(RequestRecord(index=5, scheduled_s=0, sent_s=0))
    assert made._history == {}
    assert made._turns == {}


def test_a_resumed_sessions_answers_are_stood_in_for() -> None:
    """Taken up at its second turn: a text of the answer's length in the place of what is not known."""
    (_, said, asked) = json.loads(sessions().payload(1))
    assert (said["role"], asked["role"]) == ("assistant", "user")
    assert len(said["content"].split()) == 20
    assert json.loads(sessions().payload(1)) == json.loads(sessions().payload(1))


def test_starts_of_sessions_and_what_they_lead_to() -> None:
    """Turns 0 and 1 of session 0 done, all of session 1: the third, nothing, and the first of session 2."""
    starts = sessions().starts({0, 1, 3, 4, 5})
    assert [next(starts) for _ in range(3)] == [2, None, 6]
    assert sessions().requests_in([2, 6]) == 4
    assert sessions().starts_share == pytest.approx(1 / 3)
    assert all(sessions().admits(index) for index in range(3))


@pytest.mark.parametrize(("sticky", "replicas"), [(True, [0, 0, 0, 1, 1, 1]), (False, [0, 1, 0, 1, 0, 1])])
def test_sessions_over_two_urls(replicas: list[int], *, sticky: bool) -> None:
    """All of a session to one, or each request to the next."""
    made = sessions(urls=2, sticky=sticky)
    assert [tuple(made.label(i)) for i in range(6)] == [(i // 3, i % 3, replicas[i]) for i in range(6)]


def test_thinking_times_are_exponential_and_of_the_seed() -> None:
    """Mean 2 s over 2,000 turns, within four standard errors of 2 / sqrt(2,000); without a mean none."""
    made = sessions(think_s=2.0)
    times = [made._thinks_for(i) for i in range(2000)]
    assert statistics.fmean(times) == pytest.approx(2.0, abs=4 * 2 / math.sqrt(2000))
    assert statistics.pstdev(times) == pytest.approx(2.0, rel=0.12)
    assert times == [sessions(think_s=2.0)._thinks_for(i) for i in range(2000)]
    assert sessions()._thinks_for(1) == 0.0


def test_warm_up_opens_sessions_of_its_own() -> None:
    """Alone, with the answer's length."""
    warm = TalkPrompts(sessions()._talk)
    assert warm[-2].max_tokens == 20
    assert len({warm[-i].text for i in range(2, 12)} | {warm[i].text for i in range(10)}) == 20


# --------------------------------------------------------------------------- tools, addresses, surroundings


def test_generated_tools_are_all_different() -> None:
    """64 at most; each as JSON schema with a required field."""
    tools = generated_tools(64)
    assert len({tool["name"] for tool in tools}) == 64
    assert generated_tools(3) == tools[:3]
    for tool in tools:
        assert set(tool["parameters"]["required"]) <= set(tool["parameters"]["properties"])
        assert tool["parameters"]["type"] == "object"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no tools"),
        ("{}", "Expected `array`, got `object`"),
        ("[1]", "Expected `object`, got `int`"),
        ('[{"name": "a"}, {"description": "b"}]', "tool 2 has no name"),
        ('[{"type": "function", "function": {"name": 5}}]', "tool 1 has no name"),
        ('[{"type": "function", "function": "f"}]', "tool 1 has no name"),
        ("[{", "truncated"),
        ("[" * 4000, "--tools"),
    ],
)
def test_a_file_that_holds_no_tools(tmp_path: Path, content: str, said: str) -> None:
    """With the tool's place and the form that is expected."""
    file = tmp_path / "tools.json"
    file.write_text(content)
    with pytest.raises(BadInputError) as caught:
        read_tools(file)
    assert said in str(caught.value)
    assert f"--tools {file}" in str(caught.value)


def test_tools_wrapped_or_not_are_the_same(tmp_path: Path) -> None:
    """OpenAI's two forms."""
    file = tmp_path / "tools.json"
    tool = {"name": "f", "parameters": {"type": "object"}}
    file.write_text(json.dumps([tool, {"type": "function", "function": tool}]))
    assert read_tools(file) == (tool, tool)


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("gpu1:8000", "http://gpu1:8000"),
        ("HTTPS://Host/v1/", "https://host:443"),
        ("http://host/api/v1", "http://host:80/api"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
        ("http://host:8000/v1/v1", "http://host:8000/v1"),
    ],
)
def test_an_address_with_and_without_its_parts(url: str, origin: str) -> None:
    """Scheme, port and /v1 may be left out; its origin is an address again."""
    target = parse_url(url)
    assert target.origin == origin
    assert parse_url(target.origin + "/v1") == target


def test_work_beside_ends_with_the_block_and_its_errors_are_raised() -> None:
    """A coroutine without end is cancelled; one that fails is not lost."""
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    async def failing() -> None:
        raise RuntimeError("the disk is full")

    async def both() -> None:
        async with beside(endless(), failing()):
            await asyncio.sleep(0)
            ended.append("block")

    with pytest.raises(RuntimeError, match="the disk is full"):
        asyncio.run(both())
    assert ended == ["block", "cancelled"]


def test_the_garbage_collector_is_as_it_was() -> None:
    """Also where the run fails."""
    before = gc.get_threshold()
    within = []

    def fail() -> None:
        with quiet_garbage_collector():
            within.append(gc.get_threshold()[0])
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert within == [before[0] * 20]
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_defaults_can_be_run() -> None:
    """The smallest of configurations."""
    made = config(concurrency=1)
    made.check()
    assert (made.input_tokens, made.urls, made.image_count) == (TokenStats(mean=512), ("http://x",), 0)
