"""Tests of a running endpoint, as `helm test` runs them: a line of JSON on stdout for each, exit code 0 or 1.

    python3 selftest.py chat tool-call reasoning-on reasoning-off image long-prompt no-key

Told by the environment: URL, MODEL, TIMEOUT, LONG_PROMPT_TOKENS, KEY_FILE. The standard library alone.
"""

import base64
import json
import os
import ssl
import struct
import sys
import time
import urllib.error
import urllib.request
import zlib
from typing import Any

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class WrongAnswerError(Exception):
    """What is wrong, in a sentence."""


def chat() -> dict:
    """An answer comes."""
    message = talk("What is the capital of France? One word.", thinking=False)
    return expect("paris" in text(message).lower(), text(message), "an answer with Paris in it")


def tool_call() -> dict:
    """A tool is called with arguments that parse."""
    message = talk("What is the weather in Paris now?", thinking=False, tools=[WEATHER])
    calls = message.get("tool_calls") or []
    expect(len(calls) >= 1, json.dumps(message)[:300], "a call of the tool weather")
    function = calls[0]["function"]
    given = json.loads(function["arguments"])
    return expect(
        function["name"] == "weather" and "paris" in str(given.get("city", "")).lower(),
        json.dumps(function), 'weather({"city": "Paris"})',
    )  # fmt: skip


def reasoning_on() -> dict:
    """Thinking comes apart from the answer."""
    message = talk("How many r are in strawberry?", thinking=True, max_tokens=4000)
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    expect("<think>" not in text(message), text(message), "an answer without its thinking")
    return expect(bool(thought), json.dumps(message)[:300], "thinking in a field of its own")


def reasoning_off() -> dict:
    """Thinking can be switched off."""
    message = talk("How many r are in strawberry?", thinking=False)
    thought = message.get("reasoning") or message.get("reasoning_content") or ""
    return expect(not thought and bool(text(message)), json.dumps(message)[:300], "an answer and no thinking")


def image() -> dict:
    """A picture is seen."""
    url = "data:image/png;base64," + base64.b64encode(red_square(64)).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Which colour fills this picture? One word."},
    ]
    message = talk(content, thinking=False)
    return expect("red" in text(message).lower(), text(message), "an answer with red in it")


def long_prompt() -> dict:
    """A word hidden in a long prompt is found."""
    lines = int(os.environ.get("LONG_PROMPT_TOKENS", "20000")) // 12
    filler = [f"Line {number}: the grass grows, the sky is blue." for number in range(lines)]
    filler[lines // 3] = "The password is tangerine."
    message = talk("\n".join([*filler, "What is the password? One word."]), thinking=False)
    return expect("tangerine" in text(message).lower(), text(message), "an answer with tangerine in it")


def no_key() -> dict:
    """Without a key, or with a wrong one, nothing is served."""
    statuses = {}
    for path in ("/v1/models", "/metrics", "/tokenize", "/invocations"):
        for key in ("", "wrong-key-0000"):
            statuses[f"{path} {'wrong key' if key else 'no key'}"] = status(path, key)
    wrong = {what: got for what, got in statuses.items() if got != 401 and not open_metrics(what)}
    return expect(not wrong, json.dumps(wrong), "401 for each")


def open_metrics(what: str) -> bool:
    """Whether /metrics is meant to be open."""
    return what.startswith("/metrics") and os.environ.get("OPEN_METRICS") == "1"


def talk(content: object, *, thinking: bool, max_tokens: int = 300, **more: object) -> dict:
    """The message that answers."""
    body = {
        "model": os.environ["MODEL"],
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "chat_template_kwargs": {"enable_thinking": thinking},
        **more,
    }
    with open(os.environ.get("KEY_FILE", "/etc/qwenhost/keys/client-key"), encoding="utf-8") as file:
        key = file.read().strip()
    with send("/v1/chat/completions", key, json.dumps(body).encode()) as answer:
        return json.loads(answer.read())["choices"][0]["message"]


def status(path: str, key: str) -> int:
    """HTTP status of a request."""
    try:
        with send(path, key, None) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def send(path: str, key: str, body: "bytes | None") -> Any:
    """The open answer."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(os.environ["URL"] + path, data=body, headers=headers)
    # The certificate may be of the cluster's own authority, which this image does not know.
    context = ssl._create_unverified_context() if request.full_url.startswith("https") else None
    return urllib.request.urlopen(request, timeout=float(os.environ.get("TIMEOUT", "300")), context=context)


def text(message: dict) -> str:
    """What the answer says, thinking apart."""
    return message.get("content") or ""


def expect(holds: bool, got: str, wanted: str) -> dict:
    """Evidence of what holds.

    Raises:
        WrongAnswerError: it does not.
    """
    if not holds:
        raise WrongAnswerError(f"wanted {wanted}, got {got[:500]}")
    return {"got": got[:200]}


def red_square(side: int) -> bytes:
    """A PNG."""
    rows = b"".join(b"\0" + b"\xff\0\0" * side for _ in range(side))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


TESTS = {
    function.__name__.replace("_", "-"): function
    for function in (chat, tool_call, reasoning_on, reasoning_off, image, long_prompt, no_key)
}


def main(argv: list) -> int:
    """Run the tests named; one that fails does not keep the others from running."""
    if not argv or set(argv) - set(TESTS):
        sys.stderr.write(f"usage: selftest.py {' '.join(TESTS)}\n")
        return 2
    results = [run(name) for name in argv]
    return 0 if all(result["passed"] for result in results) else 1


def run(name: str) -> dict:
    """The result of one test, printed."""
    started = time.monotonic()
    result: dict = {"test": name}
    try:
        result |= {"passed": True, **TESTS[name]()}
    except urllib.error.HTTPError as error:
        said = error.read().decode("utf-8", "replace")[:500]
        result |= {"passed": False, "problem": f"HTTP {error.code}: {said}"}
    except (WrongAnswerError, OSError, ValueError, KeyError, IndexError) as error:
        result |= {"passed": False, "problem": f"{type(error).__name__}: {error}"}
    result["seconds"] = round(time.monotonic() - started, 3)
    print(json.dumps(result), flush=True)
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
