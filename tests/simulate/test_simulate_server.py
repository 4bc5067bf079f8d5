"""The simulated engine over HTTP: vLLM's API, as clients see it."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import EngineProcess

ENGINE_SCRIPT = Path(__file__).with_name("simulated_process.py")
JSON = {"Content-Type": "application/json"}
USER = [{"role": "user", "content": "Tell me something."}]


def call(engine: EngineProcess, path: str, body: Any = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and decoded body."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request("GET" if body is None else "POST", path, data, JSON | headers)
        with connection.getresponse() as response:
            text = response.read()
    kind = response.headers.get("content-type", "")
    return response.status, response.headers, json.loads(text) if "json" in kind else text.decode()


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request of exactly ten tokens."""
    return {"model": "qwen", "messages": USER, "max_tokens": 10, "ignore_eos": True} | fields


def events(engine: EngineProcess, path: str, body: dict[str, Any]) -> Iterator[tuple[float, str]]:
    """(instant, data) of each server-sent event."""
    connection = http.client.HTTPConnection("127.0.0.1", engine.port, timeout=30)
    connection.request("POST", path, json.dumps(body | {"stream": True}), JSON)
    response = connection.getresponse()
    assert response.status == 200
    try:
        for line in response:
            if line.startswith(b"data: "):
                yield time.monotonic(), line[6:].decode().strip()
    finally:
        connection.close()


def metrics(engine: EngineProcess) -> dict[str, float]:
    """Every sample of /metrics by its name without labels, summed over ranks."""
    found: dict[str, float] = {}
    for line in call(engine, "/metrics")[2].splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.split("{")[0]] = found.get(name.split("{")[0], 0) + float(value)
    return found


class TestLabel:
    def test_it_says_that_it_is_simulated_everywhere(self, engine: EngineProcess) -> None:
        """In headers, model card, version, metrics, and the first line of its log."""
        for path in ("/health", "/v1/models", "/metrics", "/nowhere"):
            _, headers, _ = call(engine, path)
            assert (headers["server"], headers["x-qwenhost-simulated"]) == ("qwenhost-simulated", "true")
        (card,) = call(engine, "/v1/models")[2]["data"]
        assert (card["id"], card["owned_by"], card["simulated"]) == ("qwen", "qwenhost-simulated", True)
        assert call(engine, "/version")[2] == {"version": "0.33.0", "simulated": True}
        assert metrics(engine)["qwenhost_simulated"] == 1
        assert "[simulated] This is a simulated engine" in engine.log[0]
        assert all("[simulated]" in line for line in engine.log)


class TestOpenAi:
    def client(self, engine: EngineProcess) -> openai.OpenAI:
        """The SDK as anyone would set it up."""
        return openai.OpenAI(base_url=f"{engine.url}/v1", api_key="none", max_retries=0)

    def test_chat(self, engine: EngineProcess) -> None:
        """Exactly the tokens asked for, half of them thinking, as many as /tokenize counts."""
        with self.client(engine) as client:
            answer = client.chat.completions.create(
                model="qwen", messages=USER, max_tokens=20, extra_body={"ignore_eos": True}
            )
        message = answer.choices[0].message
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 20
        count = [
            call(engine, "/tokenize", {"prompt": text})[2]["count"]
            for text in (message.content, message.reasoning)  # type: ignore[attr-defined]
        ]
        assert count == [10, 10]
        assert call(engine, "/tokenize", {"messages": USER})[2]["count"] == answer.usage.prompt_tokens

    def test_chat_streams_as_vllm_does(self, engine: EngineProcess) -> None:
        """Role first, thinking in ``reasoning``, then content, why it ended, usage, the end mark."""
        body = chat(stream_options={"include_usage": True})
        found = [data for _, data in events(engine, "/v1/chat/completions", body)]
        assert found[-1] == "[DONE]"
        chunks = [json.loads(data) for data in found[:-1]]
        deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
        assert deltas[0] == {"role": "assistant", "content": ""}
        assert [list(delta) for delta in deltas[1:]] == [["reasoning"]] * 5 + [["content"]] * 5
        reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
        assert reasons == [None] * 10 + ["length"]
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"]["completion_tokens"] == 10
        assert chunks[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}

    def test_thinking_can_be_switched_off(self, engine: EngineProcess) -> None:
        """By the chat template's own switch."""
        body = chat(chat_template_kwargs={"enable_thinking": False})
        message = call(engine, "/v1/chat/completions", body)[2]["choices"][0]["message"]
        assert message["reasoning"] is None
        assert message["content"]

    def test_a_natural_answer_stops_by_itself(self, engine: EngineProcess) -> None:
        """Without ignore_eos the workload's length is drawn: here always 40."""
        answer = call(engine, "/v1/chat/completions", chat(max_tokens=500, ignore_eos=False))[2]
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert answer["usage"]["completion_tokens"] == 40

    def test_min_tokens_lengthen_it(self, engine: EngineProcess) -> None:
        """50 at least, where 40 would have come."""
        body = chat(max_tokens=500, ignore_eos=False, min_tokens=50)
        assert call(engine, "/v1/chat/completions", body)[2]["usage"]["completion_tokens"] == 50

    def test_a_stop_string_ends_it_unseen(self, engine: EngineProcess) -> None:
        """The text ends before the string, streamed or not; the filler has a full stop every few words."""
        body = chat(max_tokens=200, stop=["."])
        choice = call(engine, "/v1/chat/completions", body)[2]["choices"][0]
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ".")
        assert "." not in choice["message"]["content"]
        streamed = [
            json.loads(data) for _, data in events(engine, "/v1/chat/completions", body) if "{" in data
        ]
        deltas = [chunk["choices"][0]["delta"] for chunk in streamed]
        assert "".join(d.get("content", "") for d in deltas) == choice["message"]["content"]

    def test_completions(self, engine: EngineProcess) -> None:
        """Text in pieces that join to what the whole answer says."""
        with self.client(engine) as client:
            whole = client.completions.create(model="qwen", prompt="Once upon", max_tokens=7)
            stream = client.completions.create(model="qwen", prompt="Once upon", max_tokens=7, stream=True)
            assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
        assert whole.usage is not None
        assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (2, 7)

    def test_responses(self, engine: EngineProcess) -> None:
        """Both ways of asking give the same text, in numbered events without a gap."""
        with self.client(engine) as client:
            whole = client.responses.create(model="qwen", input="Hello", max_output_tokens=30)
            stream = list(
                client.responses.create(model="qwen", input="Hello", max_output_tokens=30, stream=True)
            )
        assert whole.output_text
        assert whole.usage is not None
        assert whole.usage.output_tokens == 30
        assert [event.sequence_number for event in stream] == list(range(len(stream)))
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == whole.output_text
        assert stream[-1].type == "response.incomplete"

    def test_several_tokens_a_step_with_drafts(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Two drafts a step: fewer chunks than tokens, and the counters tell of the drafts."""
        engine = start_engine(drafts=2, step_ms=2.0)
        found = [data for _, data in events(engine, "/v1/chat/completions", chat(max_tokens=100))]
        text = "".join(
            json.loads(data)["choices"][0]["delta"].get("content", "") for data in found if "{" in data
        )
        assert len(found) < 80
        assert call(engine, "/tokenize", {"prompt": text})[2]["count"] == 100
        counted = metrics(engine)
        drafts, accepted = (
            counted[f"vllm:spec_decode_num_{what}_total"] for what in ("drafts", "accepted_tokens")
        )
        assert 1 + drafts + accepted == 100


class TestAnthropic:
    def test_messages(self, engine: EngineProcess) -> None:
        """Thinking and text in blocks of their own; streamed and whole agree."""
        client = anthropic.Anthropic(base_url=engine.url, auth_token="none", max_retries=0)
        with client:
            whole = client.messages.create(model="qwen", messages=USER, max_tokens=30)
            with client.messages.stream(model="qwen", messages=USER, max_tokens=30) as stream:
                streamed = stream.get_final_message()
        assert [block.type for block in whole.content] == ["thinking", "text"]
        assert [block.model_dump() for block in streamed.content] == [b.model_dump() for b in whole.content]
        assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 30)
        assert streamed.usage.output_tokens == 30
        assert whole.usage.input_tokens == call(engine, "/tokenize", {"messages": USER})[2]["count"]

    def test_errors_have_anthropics_shape(self, engine: EngineProcess) -> None:
        """An unknown model is a not_found_error."""
        client = anthropic.Anthropic(base_url=engine.url, auth_token="none", max_retries=0)
        with client, pytest.raises(anthropic.NotFoundError, match="does not exist"):
            client.messages.create(model="other", messages=USER, max_tokens=12)


class TestEngine:
    def test_it_keeps_the_planned_pace(self, start_engine: Callable[..., EngineProcess]) -> None:
        """One prefill and 49 decode steps of 10 ms: never early, and no drift however late a wake-up is."""
        engine = start_engine(step_ms=10.0)
        assert call(engine, "/health")[0] == 200
        begun = time.monotonic()
        instants = [at - begun for at, data in events(engine, "/v1/chat/completions", chat(max_tokens=50))]
        assert instants[-1] >= 0.5
        assert instants[-1] < 0.8

    def test_a_repeated_prompt_is_found_in_whole_blocks(self, engine: EngineProcess) -> None:
        """Blocks of 16 tokens: of 407 prompt tokens 400 are cached the second time."""
        prompt = " ".join(["word"] * 407)
        body = {"model": "qwen", "prompt": prompt, "max_tokens": 2}
        first, second = (call(engine, "/v1/completions", body)[2]["usage"] for _ in range(2))
        assert first["prompt_tokens"] == 407
        assert first["prompt_tokens_details"]["cached_tokens"] == 0
        assert second["prompt_tokens_details"]["cached_tokens"] == 400

    def test_counters_agree_with_what_was_sent(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Two ranks, six requests of 10 tokens: 60 tokens, 6 successes, 6 first tokens, 54 gaps."""
        engine = start_engine(ranks=2, step_ms=1.0)
        usage = [call(engine, "/v1/chat/completions", chat())[2]["usage"] for _ in range(6)]
        found = metrics(engine)
        assert found["vllm:generation_tokens_total"] == 60
        assert found["vllm:prompt_tokens_total"] == sum(each["prompt_tokens"] for each in usage)
        assert found["vllm:request_success_total"] == 6
        assert found["vllm:time_to_first_token_seconds_count"] == 6
        assert found["vllm:inter_token_latency_seconds_count"] == 54
        assert found["vllm:num_requests_running"] == found["vllm:kv_cache_usage_perc"] == 0
        text = call(engine, "/metrics")[2]
        assert text.count("# TYPE vllm:num_requests_running gauge") == 1

    def test_a_client_that_leaves_frees_its_place(self, start_engine: Callable[..., EngineProcess]) -> None:
        """The request is aborted and its blocks are given back."""
        engine = start_engine(step_ms=20.0)
        stream = events(engine, "/v1/chat/completions", chat(max_tokens=1000))
        next(stream)
        assert metrics(engine)["vllm:num_requests_running"] == 1
        stream.close()  # type: ignore[attr-defined]
        end = time.monotonic() + 5
        while metrics(engine)["vllm:num_requests_running"] and time.monotonic() < end:
            time.sleep(0.02)
        assert metrics(engine)["vllm:num_requests_running"] == 0
        assert metrics(engine)["vllm:kv_cache_usage_perc"] == 0


class TestErrors:
    @pytest.mark.parametrize(
        ("body", "status", "message"),
        [
            (chat(model="other"), 404, "The model `other` does not exist."),
            (b"{", 400, "truncated"),
            (chat(messages=3), 400, "Expected `array`, got `int` - at `$.messages`"),
            (chat(max_tokens=3000), 400, "maximum context length is 2000 tokens"),
            (chat(max_tokens=0), 400, "max_tokens must be at least 1"),
            (chat(n=2), 400, "n above 1"),
        ],
    )
    def test_a_bad_request_is_explained(
        self, engine: EngineProcess, body: Any, status: int, message: str
    ) -> None:
        """In OpenAI's shape."""
        found, _, answer = call(engine, "/v1/chat/completions", body)
        assert found == status
        assert message in answer["error"]["message"]

    def test_keys(self, start_engine: Callable[..., EngineProcess], tmp_path: Path) -> None:
        """Everything but health needs a key, as Bearer or x-api-key."""
        keys = tmp_path / "keys"
        keys.write_text("alpha\n\nbeta\n")
        engine = start_engine(key_file=str(keys))
        assert call(engine, "/health")[0] == call(engine, "/ping")[0] == 200
        for path in ("/v1/models", "/metrics", "/version"):
            assert call(engine, path)[0] == 401
            assert call(engine, path, Authorization="Bearer wrong")[0] == 401
            assert call(engine, path, Authorization="Basic alpha")[0] == 401
            assert call(engine, path, Authorization="Bearer beta")[0] == 200
            assert call(engine, path, **{"x-api-key": "alpha"})[0] == 200
        assert call(engine, "/v1/chat/completions", chat())[0] == 401
        assert call(engine, "/tokenize", {"prompt": "x"})[0] == 401


class TestEnd:
    def test_a_signal_lets_requests_finish_and_takes_no_more(
        self, start_engine: Callable[..., EngineProcess]
    ) -> None:
        """SIGTERM in the middle: the stream ends whole, a new request gets 503, the exit code is 0."""
        engine = start_engine(step_ms=20.0)
        stream = events(engine, "/v1/chat/completions", chat(max_tokens=50))
        next(stream)
        engine.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        status, _, answer = call(engine, "/v1/chat/completions", chat())
        assert (status, answer["error"]["message"]) == (503, "The server is shutting down.")
        assert [data for _, data in stream][-1] == "[DONE]"
        assert engine.wait() == 0

    def test_the_drain_has_a_deadline(self, start_engine: Callable[..., EngineProcess]) -> None:
        """After 0.3 s a long stream is ended with an error."""
        engine = start_engine(step_ms=50.0, shutdown_timeout_s=0.3)
        stream = events(engine, "/v1/chat/completions", chat(max_tokens=1000))
        next(stream)
        engine.process.send_signal(signal.SIGTERM)
        rest = [data for _, data in stream]
        assert "EngineCore encountered an issue" in rest[-2]
        assert engine.wait() == 0
        assert any("cancelling 1 requests" in line for line in engine.log)

    def test_it_ends_though_nobody_reads_its_log(self) -> None:
        """A closed pipe on the other end of stderr does not hold up the drain."""
        with subprocess.Popen(
            [sys.executable, str(ENGINE_SCRIPT), "{}"], stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            assert any("startup complete" in line for line in process.stderr)
            process.stderr.close()
            process.terminate()
            try:
                assert process.wait(10) == 0
            finally:
                process.kill()

    def test_a_port_in_use(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Fails before anything else, in vLLM's words."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            engine = start_engine(port=taken.getsockname()[1])
            assert engine.wait() != 0
        assert any("[Errno 98] Address already in use" in line for line in engine.log)


class TestFaults:
    @pytest.mark.parametrize("status", [429, 503])
    def test_refusals(self, start_engine: Callable[..., EngineProcess], status: int) -> None:
        """Injected status codes."""
        engine = start_engine(faults=[str(status)])
        assert call(engine, "/v1/chat/completions", chat())[0] == status

    def test_a_cut_stream(self, start_engine: Callable[..., EngineProcess]) -> None:
        """The connection breaks off without an end mark."""
        engine = start_engine(faults=["cut"])
        with pytest.raises(http.client.IncompleteRead):
            call(engine, "/v1/chat/completions", chat(stream=True))

    def test_a_request_that_hangs(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Nothing comes, while health stays well."""
        engine = start_engine(faults=["hang"])
        client = openai.OpenAI(base_url=f"{engine.url}/v1", api_key="x", max_retries=0, timeout=0.5)
        with client, pytest.raises(openai.APITimeoutError):
            client.chat.completions.create(model="qwen", messages=USER)
        assert call(engine, "/health")[0] == 200

    def test_a_slow_request(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Two seconds more than it should take."""
        engine = start_engine(faults=["slow"], step_ms=1.0)
        begun = time.monotonic()
        assert call(engine, "/v1/chat/completions", chat())[0] == 200
        assert time.monotonic() - begun > 2

    def test_a_crash_ends_as_vllms_does(self, start_engine: Callable[..., EngineProcess]) -> None:
        """The request in flight gets 500, then the process ends with 0."""
        engine = start_engine(faults=["crash"])
        status, _, answer = call(engine, "/v1/chat/completions", chat())
        assert (status, answer["error"]["type"]) == (500, "InternalServerError")
        assert engine.wait() == 0
        assert any("EngineCore encountered a fatal error" in line for line in engine.log)

    def test_a_kill(self, start_engine: Callable[..., EngineProcess]) -> None:
        """Gone without a word."""
        engine = start_engine(faults=["kill"])
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            call(engine, "/v1/chat/completions", chat())
        assert engine.wait() == -signal.SIGKILL

    @pytest.mark.parametrize(
        ("fault", "text"),
        [
            ("start-oom", "torch.OutOfMemoryError: CUDA out of memory"),
            ("start-kv", "To serve at least one request"),
        ],
    )
    def test_a_start_that_fails(
        self, start_engine: Callable[..., EngineProcess], fault: str, text: str
    ) -> None:
        """Exit 1 after vLLM's own words."""
        engine = start_engine(faults=[fault])
        assert engine.wait() == 1
        assert any(text in line for line in engine.log)

    def test_half_of_the_requests(self, start_engine: Callable[..., EngineProcess]) -> None:
        """A probability of one half strikes some and spares some."""
        engine = start_engine(faults=["503:0.5"], step_ms=1.0)
        found = {call(engine, "/v1/chat/completions", chat())[0] for _ in range(20)}
        assert found == {200, 503}


def test_connections_are_refused_until_it_is_ready(start_engine: Callable[..., EngineProcess]) -> None:
    """The address is taken at once, but nobody answers during the start."""
    with socket.create_server(("127.0.0.1", 0)) as spare:
        port = spare.getsockname()[1]
    engine = start_engine(port=port, startup_seconds=0.6)
    end = time.monotonic() + 5
    while not engine.log and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)
    assert call(engine, "/health")[0] == 200


def test_many_streams_at_once(engine: EngineProcess) -> None:
    """Thirty streams in parallel each get exactly their tokens."""
    counts: list[int] = []

    def one(tokens: int) -> None:
        found = [data for _, data in events(engine, "/v1/completions", chat(prompt="x", max_tokens=tokens))]
        counts.append(len(found) - 1)

    threads = [threading.Thread(target=one, args=(tokens,)) for tokens in range(10, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(10, 40))
