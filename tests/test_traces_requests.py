"""Recorded requests: every format gives the same kind of request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qwenhost.errors import BadInputError
from qwenhost.traces import TracedRequest, read_requests

if TYPE_CHECKING:
    from pathlib import Path

CLAUDE_CODE = """\
{"type":"user","sessionId":"s1","timestamp":"2026-11-20T10:00:00.000Z","message":{"role":"user","content":"hi"}}
{"type":"assistant","sessionId":"s1","timestamp":"2026-11-20T10:00:05.000Z","message":{"id":"m1","usage":\
{"input_tokens":3,"cache_creation_input_tokens":100,"cache_read_input_tokens":900,"output_tokens":20}}}
{"type":"assistant","sessionId":"s1","timestamp":"2026-11-20T10:00:05.500Z","message":{"id":"m1","usage":\
{"input_tokens":3,"cache_creation_input_tokens":100,"cache_read_input_tokens":900,"output_tokens":20}}}
{"type":"assistant","sessionId":"s1","timestamp":"2026-11-20T10:00:15.000Z","message":{"id":"m2","usage":\
{"input_tokens":5,"cache_read_input_tokens":1003,"output_tokens":40}}}
"""


def test_claude_codes_session_files(tmp_path: Path) -> None:
    """Two answers, the first logged twice; prompts are fresh, written and read tokens together."""
    file = tmp_path / "session.jsonl"
    file.write_text(CLAUDE_CODE)
    first, second = read_requests(file)
    assert (first.input_tokens, first.cached_tokens, first.output_tokens, first.session) == (
        1003,
        900,
        20,
        "s1",
    )
    assert (second.input_tokens, second.cached_tokens, second.output_tokens) == (1008, 1003, 40)
    assert second.at_s - first.at_s == 10


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        (
            "azure.csv",
            "TIMESTAMP,ContextTokens,GeneratedTokens\n2026-11-01 00:00:02.5000000,100,20\n",
            TracedRequest(1793491202.5, 100, 20),
        ),
        (
            "burst.csv",
            "Timestamp,Session ID,Model,Request tokens,Response tokens\n5,7,ChatGPT,300,30\n",
            TracedRequest(5.0, 300, 30, session="7"),
        ),
        (
            "mooncake.jsonl",
            '{"timestamp": 3000, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n',
            TracedRequest(3.0, 600, 5, hash_ids=(1, 2)),
        ),
        (
            "own.jsonl",
            """{"arrival_s": 9, "input_tokens": 8, "output_tokens": 0}
{"arrival_s": 1.5, "input_tokens": 8, "output_tokens": 2, "session": "a"}
""",
            TracedRequest(1.5, 8, 2, session="a"),
        ),
    ],
)
def test_each_format(tmp_path: Path, name: str, text: str, wanted: TracedRequest) -> None:
    """A request without an answer had failed and is left out."""
    file = tmp_path / name
    file.write_text(text)
    assert read_requests(file) == [wanted]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"arrival_s": 1, "input_tokens": 5}\n', "line 1: 'output_tokens' is missing"),
        ("", "holds no request"),
        ('{"sessionId": "s", "message": {"id": "m", "usage": {"input_tokens": "x"}}}\n', "line 1"),
        ("[1]", "line 1"),
    ],
)
def test_nonsense_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    """And nothing of the file is used."""
    file = tmp_path / "t.jsonl"
    file.write_text(text)
    with pytest.raises(BadInputError, match=said):
        read_requests(file)


def test_a_limit_takes_the_first_of_the_file_and_looks_no_further(tmp_path: Path) -> None:
    """A failed request does not count towards it; line 4, which is broken, is not reached."""
    file = tmp_path / "t.jsonl"
    file.write_text(
        '{"arrival_s": 9, "input_tokens": 1, "output_tokens": 1}\n'
        '{"arrival_s": 8, "input_tokens": 2, "output_tokens": 0}\n'
        '{"arrival_s": 7, "input_tokens": 3, "output_tokens": 3}\n'
        '{"arrival_s": 6}\n'
    )
    assert read_requests(file, limit=2) == [TracedRequest(7.0, 3, 3), TracedRequest(9.0, 1, 1)]
