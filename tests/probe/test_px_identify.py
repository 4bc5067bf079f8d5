"""Who answers, how its tokens are counted, and what is said where it does neither: scripted servers."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
import tokenizers
from px_server import MODELS, NONE_SUCH, Reply, Stub, stream
from tokenizers import models, pre_tokenizers

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.probe import local_tokenizer
from qwenhost.probe.bodies import Ask, Image
from qwenhost.probe.client import Client, fetch
from qwenhost.probe.clock import StampingSelector, new_runner
from qwenhost.probe.content import TextPool, TokenFit
from qwenhost.probe.count_tokens import Counting, count_tokens
from qwenhost.probe.exchange import Exchange
from qwenhost.probe.identify import Identity, Sampler, calibrate, identify, tokens_of_images
from qwenhost.probe.local_tokenizer import LocalCounter
from qwenhost.probe.token_sample import ClaudeCounter, VllmCounter, count_sample, read_sample
from qwenhost.probe.wire import Target, parse_url, request_bytes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

POOL = TextPool(3)


def run(do: Callable[[StampingSelector], Awaitable[Any]]) -> Any:
    """A coroutine on a loop with its stamping selector."""
    runner, selector = new_runner()
    with runner:
        return runner.run(do(selector))  # type: ignore[arg-type]


@pytest.fixture
def stub() -> Iterator[Stub]:
    server = Stub()
    yield server
    server.stop()


def who(stub: Stub, model: str | None = None, *, anthropic: bool = False) -> Identity:
    async def ask(selector: StampingSelector) -> Identity:
        return await identify(parse_url(stub.url), selector, [], model=model, anthropic=anthropic)

    found: Identity = run(ask)
    return found


def cards(*rows: dict[str, Any], **headers: str) -> Reply:
    return Reply(body={"object": "list", "data": list(rows)}, headers=tuple(headers.items()))


# --------------------------------------------------------------------------- who answers


def test_vllm_says_who_it_is(stub: Stub) -> None:
    """By ``owned_by``, ``/version`` and the length of its context."""
    stub.route("/version", Reply(body={"version": "0.33.0"}))
    found = who(stub)
    assert (found.server.name, found.server.version, found.server.model) == ("vllm", "0.33.0", "m")
    assert (found.max_model_len, found.speaks_vllm, found.server.simulated) == (4096, True, False)
    assert found.server.url == stub.url


@pytest.mark.parametrize(
    ("models", "name", "simulated"),
    [
        (cards({"id": "a", "owned_by": "sglang"}), "sglang", False),
        (cards({"id": "a"}, server="llama.cpp"), "llama.cpp", False),
        (cards({"id": "a"}), "unknown", False),
        (cards({"id": "a", "owned_by": "vllm", "simulated": True}), "simulated", True),
        (cards({"id": "a", "owned_by": "vllm"}, **{"x-qwenhost-simulated": "1"}), "simulated", True),
    ],
)
def test_other_servers_by_what_they_say(stub: Stub, models: Reply, name: str, *, simulated: bool) -> None:
    """The owner, else the header, else nothing is known; a simulation is never taken for hardware."""
    stub.route("/v1/models", models)
    found = who(stub)
    assert (found.server.name, found.server.simulated, found.server.version) == (name, simulated, None)
    assert found.speaks_vllm is simulated
    assert found.max_model_len is None


def test_several_models_the_first_is_taken_unless_named(stub: Stub) -> None:
    """Each with its own context; what vLLM does not list is refused with what it does."""
    stub.route(
        "/v1/models",
        cards(
            {"id": "big", "owned_by": "vllm", "max_model_len": 9000},
            {"id": "lora", "owned_by": "vllm", "max_model_len": 500},
        ),
    )
    assert (who(stub).server.model, who(stub).max_model_len) == ("big", 9000)
    assert (who(stub, "lora").server.model, who(stub, "lora").max_model_len) == ("lora", 500)
    with pytest.raises(BadInputError, match=f"--model small: not served by {stub.url}") as caught:
        who(stub, "small")
    assert caught.value.remedy == "It serves: big, lora."


@pytest.mark.parametrize(
    "models", [NONE_SUCH, Reply(body="<html>"), Reply(body={"models": []}), cards(), Reply(204, "")]
)
def test_a_server_without_a_list_needs_a_name(stub: Stub, models: Reply) -> None:
    """Named, it is taken at the user's word."""
    stub.route("/v1/models", models)
    with pytest.raises(BadInputError, match="does not list its models") as caught:
        who(stub)
    assert "--model" in str(caught.value.remedy)
    found = who(stub, "mine")
    assert (found.server.model, found.server.name, found.max_model_len) == ("mine", "unknown", None)


def test_a_hosted_api_may_serve_what_it_does_not_list(stub: Stub) -> None:
    """Only vLLM's list is complete."""
    stub.route("/v1/models", cards({"id": "gpt-5.1", "owned_by": "openai"}))
    assert who(stub, "gpt-5.1-2025-11-13").server.model == "gpt-5.1-2025-11-13"


@pytest.mark.parametrize(
    ("status", "anthropic", "said", "remedy"),
    [
        (401, False, r"refused the key \(HTTP 401\)", "QWENHOST_API_KEY"),
        (403, True, r"refused the key \(HTTP 403\)", "ANTHROPIC_API_KEY"),
        (500, False, "answers HTTP 500", "log"),
        (503, False, "answers HTTP 503", "log"),
    ],
)
def test_a_refusal_names_the_next_step(
    stub: Stub, status: int, said: str, remedy: str, *, anthropic: bool
) -> None:
    """The variable that holds the key, or the server's log."""
    stub.route("/v1/models", Reply(status, {"error": "no"}))
    with pytest.raises(UnavailableError, match=said) as caught:
        who(stub, anthropic=anthropic)
    assert remedy in str(caught.value.remedy)


@pytest.mark.parametrize(
    "version", [NONE_SUCH, Reply(body="0.33"), Reply(body={"other": 1}), Reply(body="[]"), Reply(500, "")]
)
def test_a_version_that_is_not_said_is_not_known(stub: Stub, version: Reply) -> None:
    """And keeps nobody from measuring."""
    stub.route("/version", version)
    assert who(stub).server.version is None


def test_claudes_api_is_not_asked_for_a_version(stub: Stub) -> None:
    """It has no such path."""
    stub.route("/v1/models", cards({"id": "claude-sonnet-4-6"}))
    found = who(stub, anthropic=True)
    assert (found.server.name, found.server.version) == ("anthropic", None)
    assert [path for _, path, _, _ in stub.seen] == ["/v1/models"]


# --------------------------------------------------------------------------- errors as data


def fetched(url: str, *, timeout_s: float = 5.0) -> Exchange:
    async def ask(selector: StampingSelector) -> Exchange:
        target = parse_url(url)
        return await fetch(target, selector, request_bytes(target, "GET", "/x"), timeout_s=timeout_s)

    found: Exchange = run(ask)
    return found


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A listener that accepts connections in the kernel and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_nobody_there_is_refused() -> None:
    """With the system's own words."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    found = fetched(f"http://127.0.0.1:{port}")
    assert (found.error, found.status) == ("refused", 0)
    assert "Connect call failed" in found.detail


def test_a_name_that_does_not_exist_is_unreachable() -> None:
    """Found out before any connection; the exchange itself carries it."""
    found = fetched("http://no-such-host.invalid:80")
    assert found.error == "unreachable"
    assert found.detail


def test_a_server_that_never_answers_is_a_timeout(silent: socket.socket) -> None:
    """No complete answer within the time, counted from when it was due."""
    began = time.monotonic()
    found = fetched(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.2)
    assert (found.error, found.detail) == ("timeout", "no complete answer within 0.2 s")
    assert time.monotonic() - began >= 0.2


def test_a_certificate_is_asked_of_a_plain_server(stub: Stub) -> None:
    """TLS where http is spoken: a kind of its own."""
    found = fetched(stub.url.replace("http://", "https://"))
    assert found.error == "tls"
    assert "SSL" in found.detail.upper()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (24, "client_limit", "this machine: Too many open files"),
        (23, "client_limit", "this machine: Too many open files in system"),
        (99, "client_limit", "this machine: Cannot assign requested address"),
        (101, "unreachable", "Network is unreachable"),
        (113, "unreachable", "No route to host"),
        (110, "timeout", "Connection timed out"),
        (104, "reset", "Connection reset by peer"),
        (111, "refused", "Connection refused"),
    ],
)
def test_a_failure_to_connect_by_the_systems_number(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, number: int, kind: str, said: str
) -> None:
    """What lies with this machine is told from what lies with the network or the server."""

    async def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", fail)
    found = fetched(stub.url)
    assert found.error == kind
    assert said in found.detail


def test_an_exchange_given_up_while_it_connects_leaves_the_connection(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Abandoned before it was sent: reported once, nothing reaches the server, the connection is kept."""
    ended: list[Exchange] = []

    async def give_up(selector: StampingSelector) -> None:
        target = parse_url(stub.url)
        answered, kept = asyncio.Event(), asyncio.Event()

        def end(exchange: Exchange) -> None:
            ended.append(exchange)
            if exchange.index == 2:
                answered.set()

        client = Client(target, selector, on_end=end, timeout_s=5, idle_timeout_s=5)
        release = client.release

        def note(connection: Any) -> None:
            release(connection)
            kept.set()

        monkeypatch.setattr(client, "release", note)
        await client.open()
        try:
            exchange = Exchange(request_bytes(target, "GET", "/late"), index=1)
            client.start(exchange)
            client.abandon([exchange], "interrupted", "given up")
            client.abandon([exchange], "interrupted", "again")
            await kept.wait()
            client.start(Exchange(request_bytes(target, "GET", "/v1/models"), index=2))
            await answered.wait()
        finally:
            await client.close()

    run(give_up)
    assert [(exchange.index, exchange.error) for exchange in ended] == [(1, "interrupted"), (2, None)]
    assert ended[0].detail == "given up"
    assert [path for _, path, _, _ in stub.seen] == ["/v1/models"]


def test_opening_ahead_stops_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand connections to a dead port are one batch of attempts; requests will show the failure."""
    tried = 0

    async def fail(*_: object) -> None:
        nonlocal tried
        tried += 1
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", fail)

    async def ahead(selector: StampingSelector) -> None:
        target = Target(host="127.0.0.1", port=9, tls=False, prefix="")
        client = Client(target, selector, on_end=lambda _: None, timeout_s=1, idle_timeout_s=1)
        await client.open()
        await client.preconnect(1000)
        assert client.in_flight == {}
        await client.close()

    run(ahead)
    assert tried == 64


# --------------------------------------------------------------------------- tokens per word


def fit(stub: Stub, *, input_tokens: float = 512, **options: Any) -> TokenFit:
    async def ask(selector: StampingSelector) -> TokenFit:
        defaults: dict[str, Any] = {"endpoint": "chat", "timeout_s": 5.0}
        sampler = Sampler(target=parse_url(stub.url), selector=selector, headers=[], **(defaults | options))
        return await calibrate(sampler, POOL, model="m", input_tokens=input_tokens, seed=1, thinking=False)

    found: TokenFit = run(ask)
    return found


def test_two_counts_make_a_line(stub: Stub) -> None:
    """80 tokens of 50 words and 392 of 256: 312 / 206 = 1.5146 a word, and 80 - 75.73 = 4.27 beside."""
    stub.route("/tokenize", Reply(body={"count": 80}), Reply(body={"count": 392}))
    found = fit(stub)
    assert found.per_word == pytest.approx(312 / 206)
    assert found.per_prompt == pytest.approx(80 - 50 * 312 / 206)
    assert (found.basis, found.source) == ("measured", "the server's /tokenize")
    few, many = stub.asked("/tokenize")
    # A nonce of its own opens each; it is no word of the count.
    assert [len(asked["messages"][0]["content"].split()) for asked in (few, many)] == [51, 257]
    assert few["chat_template_kwargs"] == {"enable_thinking": False}


@pytest.mark.parametrize(
    ("input_tokens", "words"), [(10, 100), (200, 100), (1000, 500), (4000, 2000), (1e6, 2000)]
)
def test_the_longer_sample_has_half_of_the_prompts_length(
    stub: Stub, input_tokens: float, words: int
) -> None:
    """Between 100 and 2,000 words."""
    stub.route("/tokenize", Reply(body={"count": 80}), Reply(body={"count": 3000}))
    fit(stub, input_tokens=input_tokens)
    assert len(stub.asked("/tokenize")[1]["messages"][0]["content"].split()) == words + 1


@pytest.mark.parametrize(
    "tokenize",
    [NONE_SUCH, Reply(body="no json"), Reply(body={"count": "80"}), Reply(body={}), Reply(body={"count": 0})],
)
def test_without_tokenize_the_usage_of_answers_is_taken(stub: Stub, tokenize: Reply) -> None:
    """70 and 276: one a word, and 20 beside."""
    stub.route("/tokenize", tokenize)
    stub.route("/v1/chat/completions", stream("a", prompt=70), stream("a", prompt=276))
    found = fit(stub)
    assert (found.per_word, found.per_prompt) == (1.0, 20.0)
    assert found.source == "usage of two short requests"
    assert [asked["max_completion_tokens"] for asked in stub.asked("/v1/chat/completions")] == [1, 1]


@pytest.mark.parametrize(
    "answers",
    [
        [NONE_SUCH],
        [stream("a", prompt=70), Reply(503, "busy")],
        [Reply(body="data: [DONE]\n\n")],
        [stream("a", prompt=90), stream("a", prompt=80)],
    ],
    ids=["none", "the second fails", "no usage", "fewer tokens for more words"],
)
def test_where_nothing_counts_the_text_is_assumed(stub: Stub, answers: list[Reply]) -> None:
    """And it says so."""
    stub.route("/v1/chat/completions", *answers)
    found = fit(stub)
    assert found == TokenFit()
    assert found.basis == "assumed"


def test_completions_are_counted_without_a_template(stub: Stub) -> None:
    """``prompt`` in place of ``messages``."""
    stub.route("/tokenize", Reply(body={"count": 60}), Reply(body={"count": 300}))
    fit(stub, endpoint="completions")
    assert all("prompt" in asked and "messages" not in asked for asked in stub.asked("/tokenize"))


def test_claude_counts_for_nothing(stub: Stub) -> None:
    """By ``count_tokens``, with the fields of a request but for those of its answer."""
    stub.route(
        "/v1/messages/count_tokens", Reply(body={"input_tokens": 60}), Reply(body={"input_tokens": 266})
    )
    assert fit(stub, endpoint="messages", anthropic=True).per_word == 1.0
    asked = stub.asked("/v1/messages/count_tokens")[0]
    assert set(asked) == {"model", "messages"}


PICTURE = Image(media_type="image/png", base64="QUJD")


def pictures(stub: Stub, *, anthropic: bool = False) -> float | None:
    async def ask(selector: StampingSelector) -> float | None:
        sampler = Sampler(
            target=parse_url(stub.url), selector=selector, headers=[], timeout_s=5.0,
            endpoint="messages" if anthropic else "chat", anthropic=anthropic,
        )  # fmt: skip
        return await tokens_of_images(
            sampler, Ask(model="m", prompt="hello", max_tokens=1, images=(PICTURE,))
        )

    found: float | None = run(ask)
    return found


def test_pictures_are_counted_with_and_without(stub: Stub) -> None:
    """1,040 less 20."""
    stub.route("/v1/chat/completions", stream("a", prompt=1040), stream("a", prompt=20))
    assert pictures(stub) == 1020.0
    shown, hidden = stub.asked("/v1/chat/completions")
    assert "image_url" in json.dumps(shown)
    assert "image_url" not in json.dumps(hidden)


def test_pictures_whose_share_cannot_be_told(stub: Stub) -> None:
    """The request without them fails: unknown. The one with them fails: the model takes none."""
    stub.route("/v1/chat/completions", stream("a", prompt=1040), Reply(503, "busy"))
    assert pictures(stub) is None
    stub.route("/v1/chat/completions", Reply(400, "no pictures"))
    with pytest.raises(UnavailableError, match="a request with pictures was not answered"):
        pictures(stub)


# --------------------------------------------------------------------------- a sample through two tokenizers


def word_tokenizer(folder: Path, *, template: str | None = None, settings: Any = None) -> Path:
    """A token for each word."""
    made = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    folder.mkdir(exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if settings is not None:
        text = settings if isinstance(settings, str) else json.dumps(settings)
        (folder / "tokenizer_config.json").write_text(text)
    return folder


TALK = [{"role": "user", "content": "one two three"}]


@pytest.mark.parametrize(
    ("template", "settings", "tokens", "warned"),
    [
        ("{% for m in messages %} {{ m.role }} {{ m.content }}{% endfor %}", None, 4, False),
        (None, {"chat_template": "{{ messages[0].content }} a b"}, 5, False),
        # A file of its own goes before the key.
        ("{{ messages[0].content }}", {"chat_template": "{{ messages[0].content }} a b"}, 3, False),
        # ChatML: <|im_start|>user / one / two / three<|im_end|> / <|im_start|>assistant.
        (None, None, 5, True),
        (None, {"chat_template": [{"name": "default", "template": "x"}]}, 5, True),
        (None, "not json", 5, True),
        # What templates are written with: generation prompt, loop controls, tojson, trimmed blocks.
        ("{% if add_generation_prompt %}a b{% endif %}", None, 2, False),
        ("{% for m in messages %}{% break %}{% endfor %}a", None, 1, False),
        ("{{ messages | tojson }}", None, 6, False),
        ("{% set x = strftime_now('%Y %m') %}{{ x }}", None, 2, False),
    ],
)  # fmt: skip
def test_a_tokenizer_from_its_files(
    tmp_path: Path, template: str | None, settings: Any, tokens: int, *, warned: bool
) -> None:
    """With the template that lies beside it, as transformers looks for it."""
    counter = LocalCounter(word_tokenizer(tmp_path / "t", template=template, settings=settings))
    assert asyncio.run(counter.prompt(TALK)) == tokens
    assert bool(counter.warnings) is warned
    assert asyncio.run(counter.answer("five six seven eight")) == 4


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "chat template: roles must alternate"),
        ("{{ messages[9].content.x }}", "chat template: "),
        ("{{ 'a' + 1 }}", "chat template: "),
        ("{{ ''.__class__.__mro__ }}", "chat template: "),
    ],
)
def test_a_template_that_refuses_is_an_error_of_input(tmp_path: Path, template: str, said: str) -> None:
    """With its own words; and it is rendered where it can do no harm."""
    counter = LocalCounter(word_tokenizer(tmp_path / "t", template=template))
    with pytest.raises(BadInputError) as caught:
        asyncio.run(counter.prompt(TALK))
    assert said in str(caught.value)
    assert str(tmp_path / "t") in str(caught.value)


def test_files_that_are_no_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, something else, a broken template, no library: each names the option or the file."""
    with pytest.raises(BadInputError, match=r"--tokenizer .*tokenizer\.json: no such file"):
        LocalCounter(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInputError, match=r"--tokenizer .*tokenizer\.json: "):
        LocalCounter(tmp_path)
    word_tokenizer(tmp_path, template="{% for %}")
    with pytest.raises(BadInputError, match="chat template"):
        LocalCounter(tmp_path)
    monkeypatch.setattr(local_tokenizer, "tokenizers", None)
    with pytest.raises(BadInputError, match="needs the tokenizers library") as caught:
        LocalCounter(tmp_path)
    assert "pip install" in str(caught.value.remedy)


def counted(stub: Stub, kind: type[Any], do: Callable[[Any], Awaitable[int]]) -> int:
    async def count(selector: StampingSelector) -> int:
        return await do(kind(parse_url(stub.url), selector, [("x", "y")], model="m"))

    found: int = run(count)
    return found


def test_vllm_counts_prompts_and_answers(stub: Stub) -> None:
    """A prompt with its template and what opens the answer, an answer as plain text."""
    stub.route("/tokenize", Reply(body={"count": 12, "tokens": [1] * 12}))
    assert counted(stub, VllmCounter, lambda counter: counter.prompt(TALK)) == 12
    assert counted(stub, VllmCounter, lambda counter: counter.answer("a b")) == 12
    assert stub.asked("/tokenize") == [
        {"model": "m", "messages": TALK, "add_generation_prompt": True},
        {"model": "m", "prompt": "a b", "add_special_tokens": False},
    ]


def test_claude_counts_an_answer_less_its_wrapping(stub: Stub) -> None:
    """A message of one letter has 8: 7 wrap it. 20 for the answer are 13; the wrapping is asked for once."""
    path = "/v1/messages/count_tokens"
    stub.route(path, *(Reply(body={"input_tokens": n}) for n in (8, 20, 9, 3)))

    async def three(counter: Any) -> int:
        found = [await counter.answer(text) for text in ("long", "short", "odd")]
        assert found == [13, 2, 1]  # One token at least.
        return sum(found)

    assert counted(stub, ClaudeCounter, three) == 16
    assert len(stub.asked(path)) == 4


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(404, {"detail": "Not Found"}), 'HTTP 404 {"detail": "Not Found"}'),
        (Reply(401, ""), "HTTP 401"),
        (Reply(body="<html>"), "no 'count' in '<html>'"),
        (Reply(body={"count": "12"}), "no 'count' in"),
        (Reply(body=[1]), "no 'count' in '[1]'"),
    ],
)
def test_an_endpoint_that_does_not_count_is_named(stub: Stub, reply: Reply, said: str) -> None:
    """With its address and what it said."""
    stub.route("/tokenize", reply)
    with pytest.raises(UnavailableError) as caught:
        counted(stub, VllmCounter, lambda counter: counter.prompt(TALK))
    assert f"{stub.url}/tokenize: " in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_a_busy_endpoint_is_asked_again(stub: Stub, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """After what it asks for, else after 1, 2, 4... seconds; six times in all, then it is an error."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr("qwenhost.probe.token_sample.asyncio.sleep", note)
    busy = Reply(status, "busy")
    stub.route(
        "/tokenize", busy, busy._replace(headers=(("retry-after", "7"),)), busy, Reply(body={"count": 5})
    )
    assert counted(stub, VllmCounter, lambda counter: counter.prompt(TALK)) == 5
    assert slept == [1, 7, 4]
    slept.clear()
    stub.route("/tokenize", busy._replace(headers=(("retry-after", "3600"),)))
    with pytest.raises(UnavailableError, match=f"HTTP {status} busy"):
        counted(stub, VllmCounter, lambda counter: counter.prompt(TALK))
    assert slept == [60] * 5
    assert len(stub.asked("/tokenize")) == 4 + 6


def test_a_sample_from_its_lines(tmp_path: Path) -> None:
    """The model's last message is the answer, so is ``answer``; what holds more than text is left out."""
    rows: list[Any] = [
        {"messages": [*TALK, {"role": "assistant", "content": "four"}]},
        {"messages": [*TALK, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"prompt": "p", "answer": "given"},
        {"prompt": "q"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}]}]},
        {"messages": [{"role": "assistant", "content": "nobody asked"}]},
        {"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "h"},
                           {"from": "gpt", "value": "g"}]},
    ]  # fmt: skip
    file = tmp_path / "s.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found, left_out = read_sample(file, most=None)
    assert left_out == 1
    assert [(one.messages[-1]["content"], one.answer) for one in found] == [
        ("one two three", "four"), ("one two three", "b"), ("p", "given"), ("q", None), ("h", "g"),
    ]  # fmt: skip
    assert [message["role"] for message in found[-1].messages] == ["system", "user"]
    assert len(read_sample(file, most=2)[0]) == 2
    file.write_text(json.dumps(rows[4]))
    with pytest.raises(BadInputError, match="holds no request of plain text"):
        read_sample(file, most=None)


def test_counting_a_sample_says_how_far_it_is(tmp_path: Path) -> None:
    """After each request; an answer that is not there has no count."""
    counter = LocalCounter(word_tokenizer(tmp_path / "t", template="{{ messages[0].content }}"))
    file = tmp_path / "s.jsonl"
    file.write_text('{"prompt": "a b c", "answer": "d e"}\n{"prompt": "f"}\n')
    sample, _ = read_sample(file, most=None)
    told: list[int] = []
    assert asyncio.run(count_sample(counter, sample, told.append)) == ([3, 1], [2, None])
    assert told == [1, 2]


@pytest.mark.parametrize("with_url", [True, False])
def test_one_sample_through_both(stub: Stub, tmp_path: Path, *, with_url: bool) -> None:
    """Twelve requests, 10 tokens by the one and 15 by the other: 1.5 in; of answers 10 against 15 - 14."""
    file = tmp_path / "s.jsonl"
    row = {"prompt": "a b c d e f g h i j", "answer": "k l m n o p q r s t"}
    file.write_text((json.dumps(row) + "\n") * 12 + '{"messages": [{"role": "user", "content": []}]}\n')
    stub.route("/v1/models", MODELS)
    stub.route("/tokenize", Reply(body={"count": 10}))
    stub.route("/v1/messages/count_tokens", Reply(body={"input_tokens": 15}))
    folder = word_tokenizer(tmp_path / "qwen", template="{{ messages[0].content }}")
    told: list[tuple[int, int]] = []
    counting = Counting(
        sample=file, url=stub.url if with_url else None, tokenizer=None if with_url else folder,
        claude_url=stub.url, claude_model="claude-sonnet-4-6", claude_key="k",
    )  # fmt: skip
    found = count_tokens(counting, lambda *at: told.append(at))
    assert (found.input_ratio.value, found.input_ratio.low, found.input_ratio.high) == (1.5, 1.5, 1.5)
    assert (found.qwen.input_tokens, found.sonnet.input_tokens, found.qwen.requests) == (120, 180, 12)
    # A message of one letter is 15 as well, so 14 of them wrap it and 1 is the answer.
    assert found.output_ratio is not None
    assert found.output_ratio.value == pytest.approx(0.1)
    assert found.qwen.model == ("m" if with_url else "qwen")
    assert found.qwen.name == (f"{stub.url}/tokenize" if with_url else str(folder / "tokenizer.json"))
    assert told[-1] == (24, 24)
    assert [n for n, _ in told] == list(range(1, 25))
    assert list(found.warnings) == [
        "1 lines hold more than text and were left out", "12 requests only: another sample may well differ",
    ]  # fmt: skip
