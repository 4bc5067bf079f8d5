"""Faults, drain, death and start of the simulated server, in this process."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.faults import REQUEST_FAULTS, START_FAULTS, Faults, parse_fault
from qwenhost.simulate.generation import Generation
from qwenhost.simulate.realtime import Host
from qwenhost.simulate.server import Options, _behind, read_keys, serve
from qwenhost.simulate.startup import NOTICE, say, start_up
from qwenhost.simulate.text import PIECES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from live_engine import LiveEngine

CHAT, TEXT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"
BODY: dict[str, Any] = {
    "model": "qwen", "max_tokens": 900, "max_output_tokens": 900, "ignore_eos": True, "prompt": "x",
    "messages": [{"role": "user", "content": "x"}], "input": "x",
}  # fmt: skip
DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."


class TestFaultSpecs:
    @pytest.mark.parametrize(
        ("spec", "expected"),
        [
            ("503", ("503", 1.0)),
            ("503:0.1", ("503", 0.1)),
            ("slow:0", ("slow", 0.0)),
            ("start-oom:1", ("start-oom", 1.0)),
        ],
    )
    def test_they_are_read(self, spec: str, expected: tuple[str, float]) -> None:
        """A kind alone strikes always."""
        assert parse_fault(spec) == expected

    @pytest.mark.parametrize(
        "spec", ["", "502", "503:", "503:x", "503:1.1", "503:-0.1", "503:nan", ":0.5", "slow:0.5:1"]
    )
    def test_what_is_none(self, spec: str) -> None:
        """The option and the kinds are named. An empty probability is 1, as without a colon."""
        if spec == "503:":
            assert parse_fault(spec) == ("503", 1.0)
            return
        with pytest.raises(BadInputError, match="--fault") as caught:
            parse_fault(spec)
        assert "start-kv" in str(caught.value.remedy)
        assert repr(spec) in str(caught.value)

    @pytest.mark.parametrize("kind", sorted(REQUEST_FAULTS))
    def test_a_fault_of_requests_strikes_no_start(self, kind: str) -> None:
        """And the other way round."""
        faults = Faults([kind])
        assert (faults.draw(), faults.at_start()) == (kind, None)

    @pytest.mark.parametrize("kind", sorted(START_FAULTS))
    def test_a_fault_of_the_start_strikes_no_request(self, kind: str) -> None:
        """Each has its own moment."""
        faults = Faults([kind])
        assert (faults.draw(), faults.at_start()) == (None, kind)

    def test_the_same_seed_strikes_the_same(self) -> None:
        """So that a failing test can be run again; another seed strikes others."""
        drawn = [[Faults(["503:0.5", "slow:0.5"], seed=seed).draw() for _ in range(1)] for seed in range(40)]
        again = [[Faults(["503:0.5", "slow:0.5"], seed=seed).draw() for _ in range(1)] for seed in range(40)]
        assert drawn == again
        assert {each for (each,) in drawn} == {"503", "slow", None}

    @settings(max_examples=20, deadline=None)
    @given(st.floats(0.05, 0.95))
    def test_a_share_is_kept(self, share: float) -> None:
        """Of 2,000 draws, within six standard deviations (at most 0.0112 each) of the probability."""
        faults = Faults([f"429:{share}"])
        struck = sum(faults.draw() is not None for _ in range(2000)) / 2000
        assert abs(struck - share) < 6 * 0.0112

    def test_none_and_all(self) -> None:
        """Probability 0 never strikes, 1 always."""
        never, always = Faults(["503:0"]), Faults(["503:1"])
        assert {never.draw() for _ in range(200)} == {None}
        assert {always.draw() for _ in range(200)} == {"503"}


class TestFaultsOfRequests:
    def test_a_hanging_request_leaves_with_its_client(self, start_live: Callable[..., LiveEngine]) -> None:
        """It never reaches the queue; the server stays well."""
        engine = start_live(faults=("hang",))
        with contextlib.closing(engine.connection()) as connection:
            connection.timeout = 0.2
            connection.request("POST", TEXT, json.dumps(BODY), {"content-type": "application/json"})
            with pytest.raises(TimeoutError):
                connection.getresponse()
        assert engine.ask("/health").status == 200
        assert engine.host.in_flight == 0

    def test_a_slow_request_waits_before_it_is_queued(
        self, start_live: Callable[..., LiveEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its time to first token in the engine's own metrics is as short as ever."""
        monkeypatch.setattr("qwenhost.simulate.api.SLOW_S", 0.3)
        engine = start_live(faults=("slow",))
        engine.post(TEXT, BODY | {"max_tokens": 2})
        found = engine.metrics()
        assert found['vllm:time_to_first_token_seconds_sum{engine="0",model_name="qwen"}'] < 0.3

    def test_faults_come_after_checks(self, start_live: Callable[..., LiveEngine]) -> None:
        """A bad request is explained as such, whatever is on fire."""
        engine = start_live(faults=("503",))
        assert engine.ask(TEXT, BODY | {"model": "other"}).status == 404
        assert engine.ask(TEXT, BODY).status == 503
        assert engine.ask("/tokenize", {"prompt": "x"}).status == 200


class TestDeath:
    def streams(self, engine: LiveEngine, path: str) -> list[Any]:
        """Events of a stream during which the engine dies."""
        stream = engine.stream(path, BODY)
        found = [next(stream)]
        engine.server._loop.call_soon_threadsafe(engine.host.die)  # type: ignore[union-attr]
        found += stream
        return found

    @pytest.mark.parametrize("path", [CHAT, TEXT])
    def test_openais_streams_end_with_an_error(
        self, start_live: Callable[..., LiveEngine], path: str
    ) -> None:
        """An error as data, then the end mark: vLLM's text."""
        found = self.streams(start_live(step_ms=10), path)
        assert found[-1].text == "[DONE]"
        error = found[-2].data["error"]
        assert (error["message"], error["type"], error["code"]) == (DEAD, "InternalServerError", 500)

    @pytest.mark.parametrize("share", [0.0, 1.0])
    def test_anthropics_streams_end_with_an_error(
        self, start_live: Callable[..., LiveEngine], share: float
    ) -> None:
        """The open block is closed, thinking signed; then an event of its own, and no stop."""
        found = self.streams(start_live(step_ms=10, thinking_share=share), MESSAGES)
        names = [event.name for event in found]
        assert names[-2:] == ["content_block_stop", "error"]
        assert found[-1].data == {"type": "error", "error": {"type": "api_error", "message": DEAD}}
        assert "message_stop" not in names
        assert (found[-3].data["delta"]["type"] == "signature_delta") == bool(share)

    def test_everything_after_it(self, start_live: Callable[..., LiveEngine]) -> None:
        """503 of health, 500 of what would generate, in each dialect; what needs no engine still answers."""
        engine = start_live()
        engine.host.die()
        assert engine.ask("/health").status == engine.ask("/ping").status == 503
        for path in (CHAT, TEXT, RESPONSES):
            error = engine.ask(path, BODY).json["error"]
            assert (error["message"], error["type"], error["code"]) == (DEAD, "InternalServerError", 500)
        error = engine.ask(MESSAGES, BODY).json
        assert error == {"type": "error", "error": {"type": "api_error", "message": DEAD}}
        assert engine.ask("/v1/models").status == engine.ask("/metrics").status == 200

    def test_an_answer_in_the_making(self, start_live: Callable[..., LiveEngine]) -> None:
        """Not streamed: 500 and the text, with everything forgotten."""
        engine = start_live(faults=("crash",))
        reply = engine.ask(CHAT, BODY)
        assert (reply.status, reply.json["error"]["message"]) == (500, DEAD)
        assert engine.host.in_flight == 0


class TestDrain:
    def test_the_last_stream_ends_whole(self, start_live: Callable[..., LiveEngine]) -> None:
        """Meanwhile new requests are refused in their dialect, health stays well, and then it is gone."""
        engine = start_live(step_ms=10)
        stream = engine.stream(CHAT, BODY | {"max_tokens": 60})
        next(stream)
        engine.signal()
        engine.wait_for(lambda: engine.api.draining)
        refusal = engine.ask(CHAT, BODY)
        assert (refusal.status, refusal.json["error"]["type"]) == (503, "ServiceUnavailableError")
        assert refusal.json["error"]["message"] == "The server is shutting down."
        other = engine.ask(MESSAGES, BODY)
        assert (other.status, other.json["error"]["type"]) == (503, "overloaded_error")
        assert engine.ask("/health").status == engine.ask("/metrics").status == 200
        rest = list(stream)
        assert rest[-1].text == "[DONE]"
        assert rest[-2].data["choices"][0]["finish_reason"] == "length"
        engine.wait_for(lambda: engine.ended)

    def test_with_nothing_in_flight(self, start_live: Callable[..., LiveEngine]) -> None:
        """It ends at once."""
        engine = start_live()
        engine.signal()
        engine.wait_for(lambda: engine.ended)

    def test_past_the_deadline(
        self, start_live: Callable[..., LiveEngine], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """What is left gets an error, and the log says how many."""
        engine = start_live(step_ms=20, shutdown_timeout_s=0.1)
        stream = engine.stream(TEXT, BODY)
        next(stream)
        engine.signal()
        rest = list(stream)
        assert rest[-2].data["error"]["message"] == DEAD
        engine.wait_for(lambda: engine.ended)
        log = capfd.readouterr().err
        assert "draining 1 requests, at most 0.1 s" in log
        assert "cancelling 1 requests" in log

    def test_a_second_signal_does_not_wait(self, start_live: Callable[..., LiveEngine]) -> None:
        """The stream breaks off."""
        engine = start_live(step_ms=20)
        stream = engine.stream(TEXT, BODY)
        next(stream)
        engine.signal()
        engine.wait_for(lambda: engine.api.draining)
        engine.signal()
        engine.wait_for(lambda: engine.ended)
        seen: list[str] = []
        with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
            seen.extend(event.text for event in stream)
        assert len(seen) < 899
        assert "[DONE]" not in seen


class TestStart:
    def test_its_lines_come_in_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Evenly over the time: three lines over six seconds, two each."""
        slept: list[float] = []
        start_up(["one", "two", "three"], 6.0, None, sleep=slept.append)
        lines = capsys.readouterr().err.splitlines()
        assert slept == [2.0, 2.0, 2.0]
        assert [line.rpartition(" ")[2] for line in lines] == ["one", "two", "three"]
        assert all("[simulated]" in line and " INFO " in line for line in lines)

    def test_a_failure_comes_two_thirds_through(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Four of six lines, its text, vLLM's last words, exit 1."""
        with pytest.raises(SystemExit) as caught:
            start_up(list("abcdef"), 0.0, "ValueError: no", sleep=lambda _: None)
        assert caught.value.code == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 4 + 2
        assert "ERROR" in lines[4]
        assert lines[4].endswith("ValueError: no")
        assert "Engine core initialization failed" in lines[5]

    def test_one_that_hangs(self) -> None:
        """It sleeps on; only an interruption ends it."""
        naps: list[float] = []

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            start_up(["a", "b", "c"], 0.3, "", sleep=sleep)
        assert naps[2:] == [3600, 3600, 3600]

    def test_a_line_is_framed_as_vllms(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Process, level, date, and the label where vLLM names its file."""
        say("hello", "WARNING")
        line = capsys.readouterr().err
        assert line.startswith("(APIServer pid=")
        assert line.endswith(" [simulated] hello\n")
        assert " WARNING " in line

    def serve(self, engine: Host, port: int = 0, failure: str | None = None) -> None:
        """Everything else as it comes."""
        api: Any = None
        serve(engine, api, Faults(), Options("127.0.0.1", port), lines=["Loading"], failure=failure)

    @pytest.fixture
    def host(self) -> Host:
        """Of a small engine."""
        config = EngineConfig(
            max_model_len=100, max_num_seqs=1, max_num_batched_tokens=100, num_blocks=20, block_size=16
        )
        return Host(config, lambda _: 0.001, model="qwen")

    def test_the_notice_comes_first(self, host: Host, capsys: pytest.CaptureFixture[str]) -> None:
        """Before a start that fails, too."""
        with pytest.raises(SystemExit):
            self.serve(host, failure="ValueError: no")
        assert NOTICE in capsys.readouterr().err.splitlines()[0]

    def test_a_port_in_use(self, host: Host) -> None:
        """In vLLM's words, with the option to change."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(
                UnavailableError, match=rf"Address already in use \(127.0.0.1:{port}\)"
            ) as caught:
                self.serve(host, port)
        assert "--port" in str(caught.value.remedy)

    @pytest.mark.parametrize("name", ["nowhere.Guard", "json.Guard", "json", "", ".", "json."])
    def test_a_middleware_that_is_none(self, name: str) -> None:
        """Named, with what to give."""
        app: Any = None
        with pytest.raises(BadInputError, match="--middleware") as caught:
            _behind(name, app)
        assert "ASGI class" in str(caught.value.remedy)


class TestKeyFiles:
    def test_a_line_is_a_key(self, tmp_path: Path) -> None:
        """Blank lines and spaces around are nothing."""
        (tmp_path / "keys").write_text("  alpha \n\n\tbeta\n")
        assert read_keys(tmp_path / "keys") == ("alpha", "beta")

    def test_without_a_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Vllm's variable, where it holds anything."""
        monkeypatch.setenv("VLLM_API_KEY", " gamma ")
        assert read_keys(None) == ("gamma",)
        monkeypatch.setenv("VLLM_API_KEY", "  ")
        assert read_keys(None) == ()
        monkeypatch.delenv("VLLM_API_KEY")
        assert read_keys(None) == ()

    @pytest.mark.parametrize(
        ("content", "text"), [(b"", "no key in it"), (b" \n\n", "no key in it"), (b"\xff", "utf-8")]
    )
    def test_what_holds_none(self, tmp_path: Path, content: bytes, text: str) -> None:
        """An empty file must not open the door."""
        path = tmp_path / "keys"
        path.write_bytes(content)
        with pytest.raises(BadInputError, match=text) as caught:
            read_keys(path)
        assert f"--api-key-file {path}" in str(caught.value)

    def test_a_missing_file_or_a_folder(self, tmp_path: Path) -> None:
        """Neither is read past."""
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(BadInputError, match="--api-key-file"):
                read_keys(path)


class TestGeneration:
    def make(self, **fields: Any) -> Generation:
        """Twelve tokens, four of them thinking."""
        given_fields: dict[str, Any] = {
            "model": "qwen", "prompt_tokens": 3, "output_tokens": 12, "reasoning_tokens": 4,
            "finish_reason": "length", "seed_text": "seed",
        }  # fmt: skip
        return Generation(**(given_fields | fields))

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=5), st.integers(1, 60), st.integers(0, 60), st.data())
    def test_pieces_are_the_whole(self, seed: str, output: int, reasoning: int, data: st.DataObject) -> None:
        """However a step cuts it, texts and their JSON join to thinking and content."""
        generation = self.make(seed_text=seed, output_tokens=output, reasoning_tokens=reasoning)
        turn = generation.reasoning_tokens
        cuts = sorted({0, turn, output, *data.draw(st.lists(st.integers(0, output), max_size=8))})
        pieces = list(pairwise(cuts))
        text = "".join(generation.text(a, b) for a, b in pieces)
        assert text == generation.reasoning + generation.content
        said = "".join(json.loads(b'"' + generation.json_text(a, b) + b'"') for a, b in pieces)
        assert said == text

    @settings(max_examples=80, deadline=None)
    @given(st.text(max_size=5), st.sampled_from([*PIECES, "e", "the ", " ru", ".", "n w", "r", "zz"]))
    def test_a_stop_string_is_never_shown(self, seed: str, stop: str) -> None:
        """What is shown is the unbroken text up to it, and every shown letter has its token."""
        unbroken = self.make(seed_text=seed, output_tokens=60).content
        cut = self.make(seed_text=seed, output_tokens=60, stop=("never there", stop))
        if stop not in unbroken:
            assert (cut.content, cut.stop_sequence, cut.finish_reason) == (unbroken, None, "length")
            return
        assert (cut.stop_sequence, cut.finish_reason) == (stop, "stop")
        assert cut.content == unbroken[: unbroken.index(stop)]
        assert 4 < cut.output_tokens <= 60
        text = "".join(cut.text(index, index + 1) for index in range(4, cut.output_tokens))
        assert text == cut.content

    def test_the_same_prompt_has_the_same_words(self) -> None:
        """And its own id."""
        one, two = self.make(), self.make()
        assert one.content == two.content
        assert one.id != two.id
        assert self.make(seed_text="other").content != one.content
