"""Pictures, tools, thinking, ramps, and prompts that a cache has seen."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwenhost.errors import BadInputError, UnavailableError
from qwenhost.probe.arrivals import schedule
from qwenhost.probe.bodies import Ask, Image, request_body
from qwenhost.probe.images import GeneratedImages, OwnImages, parse_size
from qwenhost.probe.tools import generated_tools, read_tools

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.probe import ProbeResult

    Measure = Callable[..., ProbeResult]


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and data of each, checksums verified."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    found, at = [], 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", png, at + 8 + length) == (zlib.crc32(kind + data),)
        found.append((kind, data))
        at += 12 + length
    return found


@given(width=st.integers(1, 70), height=st.integers(1, 40), index=st.integers(-3, 1000))
@settings(max_examples=25)
def test_a_picture_is_a_png_of_the_wanted_size(width: int, height: int, index: int) -> None:
    """Head, pixels and checksums as the format says: a filter byte and three a pixel for each row."""
    image = GeneratedImages(width, height, seed=1)(index)
    parts = chunks(base64.b64decode(image.base64))
    assert parts[0] == (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT"))
    assert len(pixels) == height * (1 + 3 * width)
    assert parts[-1] == (b"IEND", b"")


def test_no_two_pictures_are_alike() -> None:
    """No cache of pictures serves another request's, nor one of the same request."""
    made = GeneratedImages(64, 48, seed=1)
    assert len({made(index, number).base64 for index in range(20) for number in range(3)}) == 60
    assert made(3) == GeneratedImages(64, 48, seed=1)(3)


def test_own_pictures_go_round(tmp_path: Path) -> None:
    """With the type that their first bytes say."""
    files = [tmp_path / name for name in ("a.bin", "b.bin")]
    files[0].write_bytes(b"\xff\xd8\xffrest")
    files[1].write_bytes(b"RIFF0000WEBPrest")
    made = OwnImages(files)
    assert [made(i).media_type for i in range(3)] == ["image/jpeg", "image/webp", "image/jpeg"]
    assert base64.b64decode(made(0).base64) == b"\xff\xd8\xffrest"
    files[0].write_bytes(b"no picture")
    with pytest.raises(BadInputError, match="neither PNG"):
        OwnImages(files)


@pytest.mark.parametrize("text", ["", "12", "0x5", "1x-2", "99999x99999", "axb"])
def test_a_size_is_width_and_height(text: str) -> None:
    """Of at most 64 million pixels."""
    with pytest.raises(BadInputError, match="not a size"):
        parse_size(text)


PICTURE = Image(media_type="image/png", base64="QUJD")


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        ("chat", {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}),
        ("responses", {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,QUJD"}),
        (
            "messages",
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
        ),
    ],
)
def test_a_picture_comes_before_the_text(endpoint: Any, part: dict[str, Any]) -> None:
    """Of the last thing that the user says, in the dialect's own form."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                {"role": "user", "content": "c"}]  # fmt: skip
    ask = Ask(model="m", prompt="", max_tokens=5, messages=messages, images=(PICTURE,))
    body = msgspec.json.decode(request_body(endpoint, ask))
    sent = body.get("messages") or body["input"]
    assert sent[0]["content"] == "a"
    assert sent[2]["content"][0] == part
    assert sent[2]["content"][1]["text"] == "c"
    assert messages[2]["content"] == "c"  # The conversation itself stays as it was.


def test_tools_in_each_dialect() -> None:
    """Wrapped, flat, and under the name that Anthropic gives their parameters."""
    (tool,) = generated_tools(1)
    ask = Ask(model="m", prompt="p", max_tokens=5, tools=(tool,), tool_choice="required")
    chat, responses, messages = (
        msgspec.json.decode(request_body(endpoint, ask)) for endpoint in ("chat", "responses", "messages")
    )
    assert chat["tools"] == [{"type": "function", "function": tool}]
    assert responses["tools"] == [{"type": "function", **tool}]
    assert messages["tools"][0]["input_schema"] == tool["parameters"]
    assert (chat["tool_choice"], responses["tool_choice"]) == ("required", "required")
    assert messages["tool_choice"] == {"type": "any"}


def test_tools_are_generated_or_read(tmp_path: Path) -> None:
    """64 with names of their own; a file with either form."""
    assert len({tool["name"] for tool in generated_tools(64)}) == 64
    file = tmp_path / "tools.json"
    file.write_text('[{"type": "function", "function": {"name": "a"}}, {"name": "b"}]')
    assert [tool["name"] for tool in read_tools(file)] == ["a", "b"]


@pytest.mark.parametrize("text", ["{}", "[]", "[3]", '[{"function": {}}]', "no json"])
def test_a_bad_file_of_tools_is_refused(tmp_path: Path, text: str) -> None:
    """With the form expected."""
    file = tmp_path / "tools.json"
    file.write_text(text)
    with pytest.raises(BadInputError, match="--tools"):
        read_tools(file)


@pytest.mark.parametrize("endpoint", ["chat", "responses", "messages"])
def test_an_answer_of_calls_alone_is_no_error(truth: Any, measure: Measure, endpoint: str) -> None:
    """Two calls and no text: eight requests, sixteen calls, none failed."""
    result = measure(
        truth.url("calls=2"), endpoint=endpoint, tools=generated_tools(3), output=2, exact_output=False
    )
    assert result.measurements.requests.by_error == {}
    assert result.measurements.workload.tool_calls == 16
    assert result.measurements.workload.tools == 3


def test_pictures_are_counted_by_the_server(truth: Any, measure: Measure) -> None:
    """The truth server counts words: what the picture's part adds to a request."""
    truth.told()
    result = measure(truth.url("log=body"), images=2, image_size="8x8", requests=4)
    shown = result.measurements.workload.image_tokens
    assert shown is not None
    assert shown > 0
    bodies = [entry["body"] for name, entry in truth.told().items() if name.startswith("qwenhost-")]
    kinds = [[part["type"] for part in body["messages"][0]["content"]] for body in bodies]
    assert kinds == [["image_url", "image_url", "text"]] * 4


def test_a_model_without_eyes_is_told(truth: Any, measure: Measure) -> None:
    """Before the load, in a sentence."""
    with pytest.raises(UnavailableError, match="pictures was not answered"):
        measure(truth.url("pictures=no"), images=1, image_size="8x8")


def test_the_first_visible_token_comes_after_thinking(truth: Any, measure: Measure) -> None:
    """Three thinking tokens: the fourth token's arrival."""
    result = measure(truth.url("think=3,itl=0.02"), thinking=True, requests=4)
    for record in result.records:
        assert record.first_token_s == record.token_times_s[0]
        assert record.first_visible_s == record.token_times_s[3]


def test_a_second_run_shares_its_prompts_only_when_asked(truth: Any, measure: Measure) -> None:
    """Without unique prefixes and without a seed, both runs send the same."""

    def sent(**options: Any) -> set[str]:
        truth.told()
        measure(truth.url("log=body"), requests=4, **options)
        told = [entry for name, entry in truth.told().items() if name.startswith("qwenhost-")]
        return {json.dumps(entry["body"]["messages"]) for entry in told}

    assert not sent() & sent()
    assert sent(unique_prefix=False) == sent(unique_prefix=False)


def test_without_tokenize_the_usage_of_two_requests_tells(truth: Any, measure: Measure) -> None:
    """The server's tokens are words; 64 wanted are 64 counted, and the result says how."""
    result = measure(truth.url("tokenize=no"))
    assert {record.input_tokens for record in result.records} == {64}
    assert "usage of two short requests" in (result.measurements.workload.prompts or "")


def test_a_ramp_brings_its_requests_when_they_are_due() -> None:
    """From 2 to 6 a second in 10 s: 40 requests; half the time has brought 15 (2 * 5 + 0.2 * 25)."""
    due = schedule("constant", 2.0, duration_s=10.0, ramp_to=6.0)
    assert len(due) == 40
    assert sum(at < 5.0 for at in due) == 15
    assert due[0] == 0.0
    assert due[15] == pytest.approx(5.0)


def test_a_ramp_may_go_down_and_stays_random() -> None:
    """From 200 to 100 in 20 s: 3000 on average, within four standard deviations."""
    due = schedule("poisson", 200.0, duration_s=20.0, ramp_to=100.0, seed=4)
    assert len(due) == pytest.approx(3000, abs=4 * 3000**0.5)
    assert sum(at < 10 for at in due) == pytest.approx(1750, abs=4 * 1750**0.5)
    assert due == sorted(due)


def test_a_ramp_needs_its_length() -> None:
    """And rates above zero."""
    with pytest.raises(ValueError, match="needs a duration"):
        schedule("poisson", 1.0, n=5, ramp_to=2.0)
