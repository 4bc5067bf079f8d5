"""What follows a failure, how long is waited, and what the log's words become."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import HfHubHTTPError
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.launcher.deadlines import IDLE_WAIT_S, Deadlines
from qwenhost.launcher.decision import MAX_FALLBACKS, Decision, decide
from qwenhost.launcher.hub_retry import Retries, retry_after_s
from qwenhost.launcher.logged_args import logged_arguments
from qwenhost.launcher.phases import LogFigures, Phase, StartProgress, read_log, split_line
from qwenhost.launcher.restart import RestartHistory, RestartPolicy

STEADY = RestartPolicy(jitter=0.0, max_restarts=3, window_s=100.0, max_first_starts=3)


def history(policy: RestartPolicy = STEADY) -> RestartHistory:
    return RestartHistory(policy, random.Random(1))  # noqa: S311 - chance, not secrets


def fallback(trigger: str, name: str = "smaller") -> Any:
    return SimpleNamespace(trigger=trigger, change=name)


def decided(**given: Any) -> Decision:
    failure = SimpleNamespace(trigger=given.pop("trigger", None), transient=given.pop("transient", False))
    plain: dict[str, Any] = {
        "was_ready": False, "restarts": 0, "used": 0, "unused": (), "history": history(), "now": 0.0
    }  # fmt: skip
    return decide(failure, **(plain | given))  # type: ignore[arg-type]


def test_a_first_start_that_failed_for_a_known_reason_is_made_smaller() -> None:
    """The plan's first fallback for that reason, not one for another."""
    mine, other = fallback("out_of_memory"), fallback("kernel_failure")
    found = decided(trigger="out_of_memory", unused=(other, mine, fallback("out_of_memory", "smallest")))
    assert found == Decision(fallback=mine)


@pytest.mark.parametrize(
    ("given", "restarted"),
    [
        ({}, False),  # never ready, not passing: no use
        ({"transient": True}, True),
        ({"transient": True, "restarts": 1}, True),
        ({"transient": True, "restarts": 2}, False),  # three attempts in all
        ({"was_ready": True}, True),
        ({"was_ready": True, "restarts": 50}, True),
        ({"was_ready": True, "trigger": "out_of_memory", "unused": (fallback("out_of_memory"),)}, True),
        ({"trigger": "out_of_memory"}, False),  # no fallback is left for it
        ({"trigger": "out_of_memory", "transient": True}, True),
    ],
)
def test_what_once_worked_is_started_again_as_it_was(given: dict[str, Any], restarted: bool) -> None:
    """And what never did only where the failure may pass."""
    found = decided(**given)
    assert found.fallback is None
    assert (found.restart_after_s is not None) == restarted


def test_fallbacks_come_to_an_end() -> None:
    one = fallback("out_of_memory")
    assert decided(trigger="out_of_memory", unused=(one,), used=MAX_FALLBACKS - 1).fallback is one
    assert decided(trigger="out_of_memory", unused=(one,), used=MAX_FALLBACKS) == Decision()


def test_restarts_within_a_window_come_to_an_end_and_begin_anew_after_it() -> None:
    """1, 2, 4 s; none; and once the first is out of the window, one more."""
    here = history()
    assert [here.next_delay_s(at) for at in (0.0, 10.0, 20.0)] == [1.0, 2.0, 4.0]
    assert here.next_delay_s(99.9) is None
    assert here.next_delay_s(100.1) == 4.0
    assert here.next_delay_s(100.2) is None


@given(st.integers(1, 60), st.floats(0.01, 10), st.floats(1, 4), st.floats(1, 100), st.floats(0, 0.9))
def test_no_wait_is_longer_than_the_ceiling_and_its_jitter(
    nth: int, initial: float, factor: float, ceiling: float, jitter: float
) -> None:
    policy = RestartPolicy(initial_s=initial, factor=factor, ceiling_s=ceiling, jitter=jitter)
    plain = min(ceiling, initial * factor ** (nth - 1))
    for seed in range(5):
        wait = policy.delay_s(nth, random.Random(seed))  # noqa: S311 - chance, not secrets
        assert plain * (1 - jitter) - 1e-9 <= wait <= plain * (1 + jitter) + 1e-9


class Clock:
    """Time that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_deadlines_come_due_once_and_together() -> None:
    clock = Clock()
    here = Deadlines(clock)
    assert here.wait_s() == IDLE_WAIT_S
    here.set("a", 5)
    here.set("b", 3)
    here.set("c", 5)
    assert here.wait_s() == 3
    clock.now = 4
    assert here.wait_s() == 0
    assert here.take_due() == ["b"]
    clock.now = 5
    assert here.take_due() == ["a", "c"]
    assert here.take_due() == []


def test_a_deadline_set_again_or_forgotten_is_not_due() -> None:
    clock = Clock()
    here = Deadlines(clock)
    here.set("a", 1)
    here.set("a", 10)
    here.set("b", 1)
    here.clear("b", "never set")
    clock.now = 2
    assert here.take_due() == []
    assert here.wait_s() == 8


class Hub:
    """Answers with statuses in turn; 200 ends it."""

    def __init__(self, *answers: int | tuple[int, str]) -> None:
        self.answers = list(answers)
        self.waits: list[float] = []
        self.said: list[str] = []

    def __call__(self) -> str:
        answer = self.answers.pop(0)
        status, after = answer if isinstance(answer, tuple) else (answer, "")
        if status == 200:
            return "file"
        error = HfHubHTTPError.__new__(HfHubHTTPError)
        Exception.__init__(error, str(status))
        response: Any = SimpleNamespace(status_code=status, headers={"retry-after": after} if after else {})
        error.response = response
        raise error

    def fetched(self, **policy: Any) -> str:
        return Retries(sleep=self.waits.append, **policy).call(self, self.said.append)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_hub_is_asked_again_more_and_more_slowly(status: int) -> None:
    hub = Hub(status, status, status, 200)
    assert hub.fetched() == "file"
    assert hub.waits == [1, 2, 4]
    assert str(status) in hub.said[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 416])
def test_what_will_not_change_is_not_asked_again(status: int) -> None:
    hub = Hub(status, 200)
    with pytest.raises(HfHubHTTPError):
        hub.fetched()
    assert hub.waits == []


def test_the_last_error_is_raised() -> None:
    hub = Hub(500, 502, 503, 504, 200)
    with pytest.raises(HfHubHTTPError, match="504"):
        hub.fetched()
    assert len(hub.waits) == 3


def test_the_hubs_own_time_is_kept_unless_it_is_too_long() -> None:
    hub = Hub((429, "7"), (503, "0"), 200)
    assert hub.fetched() == "file"
    assert hub.waits == [7, 0]
    slow = Hub((429, "61"), 200)
    with pytest.raises(HfHubHTTPError):
        slow.fetched()
    assert slow.waits == []


def test_other_errors_pass_at_once() -> None:
    def broken() -> str:
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        Retries(sleep=lambda _: pytest.fail("no wait")).call(broken, str)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 5 ", 5.0),
        ("", None),
        ("soon", None),
        ("-3", None),
        ("1.5", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),  # past: at once
        ("Thu, 99 Jan 1970 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, now=10.0) == seconds


def test_a_date_counts_from_now() -> None:
    """The default clock is the real one."""
    assert retry_after_s("Fri, 01 Jan 2100 00:00:00 GMT", now=time.time()) > 2e9  # type: ignore[operator]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("non-default args: {'model': 'm', 'port': 8000}", {"model": "m", "port": 8000}),
        (
            "(APIServer pid=5) INFO 11-23 10:00:00 [utils.py:1] non-default args: {'enforce_eager': True}",
            {"enforce_eager": True},
        ),
        (
            "non-default args: {'x': Config(a=1), 'kv': 'fp8', 'u': 0.9, 'n': None, 'l': ['a', 'b']}",
            {"kv": "fp8", "u": 0.9, "n": None, "l": ["a", "b"]},
        ),
        ("non-default args: {'sizes': {'image': 2}, 'y': Obj()}", {"sizes": {"image": 2}}),
        ("non-default args: {1, 2}", {}),
        ("non-default args: {}", {}),
        ("non-default args: {'cut", {}),
        ("args: {'model': 'm'}", {}),
        ("", {}),
    ],
)
def test_arguments_as_vllm_logs_them(line: str, found: dict[str, Any]) -> None:
    assert logged_arguments(f"first\n{line}\nlast") == found


def test_the_first_such_line_counts() -> None:
    """A restarted engine logs again; the start that is looked at comes first."""
    text = "non-default args: {'a': 1}\nnon-default args: {'a': 2}"
    assert logged_arguments(text) == {"a": 1}


@given(st.text(max_size=200))
def test_garbled_arguments_are_a_mapping_all_the_same(text: str) -> None:
    assert isinstance(logged_arguments("non-default args: {" + text + "}"), dict)


@given(st.text(max_size=120))
def test_no_line_breaks_the_reader(text: str) -> None:
    line = split_line(text)
    after = StartProgress().after(line)
    assert after.phase in Phase
    assert "\x1b[0m" not in split_line(f"\x1b[0m{text}").text or "\x1b[0m" in text


@given(
    st.sampled_from(["INFO", "WARNING", "ERROR", "DEBUG", "CRITICAL"]),
    st.sampled_from(["APIServer", "EngineCore", "Worker_TP1_EP1", "EngineCore_DP3"]),
    st.integers(1, 99999),
    st.text(st.characters(categories=("L", "N")), min_size=1, max_size=30),
)
def test_a_prefix_comes_off_whole(level: str, process: str, pid: int, text: str) -> None:
    raw = f"({process} pid={pid}) {level} 11-23 10:20:30 [core.py:71] {text}"
    line = split_line(raw)
    assert (line.process, line.level, line.text) == (process, level, text)
    coloured = f"\x1b[0;36m({process} pid={pid})\x1b[0;0m {level} 11-23 10:20:30 [core.py:71] {text}"
    assert split_line(coloured) == line


LINES: list[tuple[str, dict[str, Any]]] = [
    ("INFO Using max model len 262144", {"max_model_len": 262144}),
    ("Checkpoint size: 118.3 GiB. Available RAM: 1,900.00 GiB", {"checkpoint_gib": 118.3}),
    ("Loading weights took 41.27 seconds", {"load_weights_s": 41.27}),
    ("Model loading took 59.62 GiB memory and 45.3 seconds", {"model_loading_gib": 59.62}),
    ("Setting attention block size to 2112 tokens to ensure", {"block_size": 2112}),
    ("Available KV cache memory: 65.51 GiB", {"available_kv_gib": 65.51}),
    ("GPU KV cache size: 3,235,717 tokens", {"kv_cache_tokens": 3235717}),
    (
        "Maximum concurrency for 262,144 tokens per request: 12.34x",
        {"concurrency_at_max_model_len": 12.34},
    ),
    ("Graph capturing finished in 21 secs, took 1.15 GiB", {"cudagraph_gib": 1.15}),
    ("init engine (profile, create kv cache, warmup model) took 88.20 s", {"init_engine_s": 88.2}),
]


@pytest.mark.parametrize(("line", "figures"), LINES)
def test_each_figure_of_the_log(line: str, figures: dict[str, Any]) -> None:
    found = read_log(line).figures
    assert {name: getattr(found, name) for name in figures} == figures
    others = set(LogFigures.__struct_fields__) - set(figures)
    assert all(getattr(found, name) is None for name in others)


@given(st.permutations([line for line, _ in LINES]))
def test_figures_do_not_depend_on_the_order_of_lines(lines: list[str]) -> None:
    """Several processes write at once."""
    assert read_log("\n".join(lines)).figures == read_log("\n".join(line for line, _ in LINES)).figures


@pytest.mark.parametrize(
    ("one", "two", "field", "kept"),
    [
        (
            "Available KV cache memory: 65.5 GiB",
            "Available KV cache memory: 64.9 GiB",
            "available_kv_gib",
            64.9,
        ),
        ("Model loading took 59.6 GiB", "Model loading took 60.1 GiB", "model_loading_gib", 60.1),
        ("GPU KV cache size: 9,000 tokens", "GPU KV cache size: 8,000 tokens", "kv_cache_tokens", 8000),
        ("Using max model len 100", "Using max model len 50", "max_model_len", 100),
        ("Loading weights took 5.0 seconds", "Loading weights took 4.0 seconds", "load_weights_s", 5.0),
    ],
)
def test_of_two_ranks_the_one_that_limits_counts(one: str, two: str, field: str, kept: float) -> None:
    """The least cache, the most weights, whichever comes first; but the target's length, not the draft's."""
    assert getattr(read_log(f"{one}\n{two}").figures, field) == kept
    if field != "max_model_len":
        assert getattr(read_log(f"{two}\n{one}").figures, field) == kept


def test_progress_bars_are_counted_within_their_phase() -> None:
    """Tqdm redraws one line with carriage returns."""
    text = (
        "Loading safetensors checkpoint shards:   0% Completed | 0/39 [00:00<?]\r"
        "Loading safetensors checkpoint shards:  51% Completed | 20/39 [00:10<00:10]\r"
    )
    found = read_log(text)
    assert (found.phase, found.done, found.total) == (Phase.WEIGHTS, 20, 39)
    assert found.label == "loading weights 20/39"
    assert found.after(split_line("Available KV cache memory: 1.0 GiB")).total is None


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_place_and_words(phase: Phase) -> None:
    assert list(Phase)[phase.order] is phase
    assert phase.label
    assert phase.label[0].islower()
