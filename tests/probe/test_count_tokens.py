"""One sample through both tokenizers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import tokenizers
from claude_stand_in import KEY, WRAPPING, Claude
from tokenizers import models, pre_tokenizers

from qwenhost.probe.token_sample import read_sample
from qwenhost.token_counts import load_token_counts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAMPLE = """\
{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "one two three"}, \
{"role": "assistant", "content": "four five"}]}
{"prompt": "six seven", "answer": "eight"}
{"conversations": [{"from": "human", "value": "nine"}, {"from": "gpt", "value": "ten ten ten"}]}
{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]}
"""


@pytest.fixture(scope="module")
def claude() -> Iterator[Claude]:
    server = Claude()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    file = tmp_path / "sample.jsonl"
    file.write_text(SAMPLE)
    return file


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A token for each word and each mark; the template puts ``<user>`` and the like before a message."""
    made = tokenizers.Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    file = tmp_path / "qwen" / "tokenizer.json"
    file.parent.mkdir()
    made.save(str(file))
    template = "{% for m in messages %}\n<{{ m.role }}> {{ m.content }}\n{% endfor %}\n<assistant>"
    (file.parent / "chat_template.jinja").write_text(template)
    return file


def count(*arguments: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qwenhost.cli.main", "count-tokens", *map(str, arguments)]
    environ = {k: v for k, v in os.environ.items() if k not in ("ANTHROPIC_API_KEY", "QWENHOST_API_KEY")}
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=environ | environment, timeout=60
    )


def test_both_count_the_same_requests(claude: Claude, sample: Path, tokenizer: Path, tmp_path: Path) -> None:
    """Words: 5, 2, 1 in and 2, 1, 3 out. Ours adds a mark a message and one; Claude's twelve a request."""
    saved = tmp_path / "counts.json"
    done = count(
        sample, "--tokenizer", tokenizer, "--claude-url", claude.url, "--save", saved, "--json",
        ANTHROPIC_API_KEY=KEY,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = load_token_counts(saved)
    assert json.loads(done.stdout) == json.loads(saved.read_text())
    assert (found.qwen.input_tokens, found.qwen.output_tokens) == (5 + 2 + 1 + (2 + 1 + 1) + 3, 6)
    assert (found.sonnet.input_tokens, found.sonnet.output_tokens) == (8 + 3 * WRAPPING, 6)
    assert found.input_ratio.value == pytest.approx((8 + 36) / 15)
    assert found.output_ratio is not None
    assert found.output_ratio.value == 1.0
    assert found.sonnet.model == "claude-sonnet-4-6"
    assert found.sonnet.basis == "measured"
    assert any("1 lines hold more than text" in said for said in found.warnings)
    assert any("3 requests only" in said for said in found.warnings)


def test_a_folder_and_no_template(claude: Claude, sample: Path, tokenizer: Path) -> None:
    """ChatML is taken, and that is said."""
    (tokenizer.parent / "chat_template.jinja").unlink()
    done = count(sample, "--tokenizer", tokenizer.parent, "--claude-url", claude.url, ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert "Claude tokens per Qwen token" in done.stdout
    assert "ChatML was taken" in done.stdout


def test_a_rate_limit_is_waited_for(claude: Claude, sample: Path, tokenizer: Path) -> None:
    """Counting is no measurement of time: every request is counted in the end."""
    arguments = ["--claude-url", claude.url, "--claude-model", "claude-limited", "--json"]
    done = count(sample, "--tokenizer", tokenizer, *arguments, ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sonnet"]["input_tokens"] == 8 + 3 * WRAPPING


def test_a_running_engine_counts(claude: Claude, truth: Any, sample: Path) -> None:
    """By its /tokenize, named in the result."""
    done = count(sample, "--url", truth.url(), "--claude-url", claude.url, "--json", ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    qwen = json.loads(done.stdout)["qwen"]
    assert qwen["model"] == "truth"
    assert qwen["name"].endswith("/tokenize")
    assert qwen["output_tokens"] == 6


RIGHT, WRONG, NONE = {"ANTHROPIC_API_KEY": KEY}, {"ANTHROPIC_API_KEY": "wrong-key"}, dict[str, str]()


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ([], RIGHT, (2, "exactly one of --url and --tokenizer")),
        (["--tokenizer", "{good}"], NONE, (2, "no key for Claude's tokenizer")),
        (["--tokenizer", "/nowhere.json"], RIGHT, (2, "no such file")),
        (["--tokenizer", "{sample}"], RIGHT, (2, "Name a tokenizer.json")),
        (["--tokenizer", "{good}"], WRONG, (4, "invalid x-api-key")),
        (["--tokenizer", "{good}", "--save", "/no/x"], RIGHT, (2, "no such folder")),
    ],
)
def test_what_cannot_be_counted_is_told(
    claude: Claude, tokenizer: Path, arguments: list[str], environment: dict[str, str], told: tuple[int, str]
) -> None:
    """One sentence, no traceback."""
    sample = tokenizer.parent / "sample.jsonl"
    sample.write_text(SAMPLE)
    filled = [one.format(good=tokenizer, sample=sample) for one in arguments]
    done = count(sample, *filled, "--claude-url", claude.url, **environment)
    assert done.returncode == told[0], done.stderr
    assert told[1] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_sample_says_what_is_prompt_and_what_is_answer(sample: Path) -> None:
    """The model's last message is the answer, in each of the three forms."""
    requests, left_out = read_sample(sample, most=None)
    assert [request.answer for request in requests] == ["four five", "eight", "ten ten ten"]
    assert [len(request.messages) for request in requests] == [2, 1, 1]
    assert left_out == 1
    assert len(read_sample(sample, most=2)[0]) == 2
