"""One sample through both tokenizers."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from qwenhost.probe.bodies import auth_headers
from qwenhost.probe.clock import StampingSelector, new_runner
from qwenhost.probe.identify import identify
from qwenhost.probe.local_tokenizer import LocalCounter
from qwenhost.probe.token_sample import ClaudeCounter, TokenCounter, VllmCounter, count_sample, read_sample
from qwenhost.probe.wire import parse_url
from qwenhost.token_counts import TokenCounts, TokenizerCount, token_ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FEW = 30
"""Fewer requests leave the ratio rather open."""


class Counting(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be counted, and with what."""

    sample: Path
    most: int | None = None
    url: str | None = None
    """A running vLLM; else ``tokenizer``."""
    tokenizer: Path | None = None
    model: str | None = None
    """Served by ``url``; None takes the first."""
    api_key: str | None = None
    claude_url: str
    claude_model: str
    claude_key: str


def count_tokens(counting: Counting, on_counted: Callable[[int, int], None]) -> TokenCounts:
    """Count a sample with Qwen's tokenizer and with Claude's.

    Args:
        counting: what and with what.
        on_counted: called with requests counted so far and in all, both tokenizers together.

    Raises:
        BadInputError: the sample or the tokenizer cannot be read.
        UnavailableError: an endpoint does not answer.
    """
    sample, left_out = read_sample(counting.sample, most=counting.most)
    runner, selector = new_runner()

    async def count() -> tuple[TokenizerCount, TokenizerCount, list[tuple[int, int]], list[tuple[int, int]]]:
        counter, model, name = await _qwen(counting, selector)
        total = 2 * len(sample)
        ours = await count_sample(counter, sample, lambda n: on_counted(n, total))
        claude, claude_name = _claude(counting, selector)
        theirs = await count_sample(claude, sample, lambda n: on_counted(len(sample) + n, total))
        pairs = list(zip(ours[0], theirs[0], strict=True))
        answers = [
            (a, b) for a, b in zip(ours[1], theirs[1], strict=True) if a is not None and b is not None and a
        ]
        return _sums(model, name, *ours), _sums(counting.claude_model, claude_name, *theirs), pairs, answers

    with runner:
        qwen, sonnet, pairs, answers = runner.run(count())
    return TokenCounts(
        sample=str(counting.sample),
        qwen=qwen,
        sonnet=sonnet,
        input_ratio=token_ratio(pairs),
        output_ratio=token_ratio(answers) if answers else None,
        warnings=tuple(_warnings(counting, len(sample), left_out, len(answers))),
    )


async def _qwen(counting: Counting, selector: StampingSelector) -> tuple[TokenCounter, str, str]:
    """Counter, model, and who counts."""
    if counting.url is None:
        assert counting.tokenizer is not None  # noqa: S101 - one of the two is given
        local = LocalCounter(counting.tokenizer)
        return local, counting.model or local.path.parent.name, str(local.path)
    target = parse_url(counting.url)
    headers = auth_headers("chat", counting.api_key)
    identity = await identify(target, selector, headers, model=counting.model)
    counter = VllmCounter(target, selector, headers, model=identity.server.model)
    return counter, identity.server.model, f"{target.origin}/tokenize"


def _claude(counting: Counting, selector: StampingSelector) -> tuple[TokenCounter, str]:
    target = parse_url(counting.claude_url)
    headers = auth_headers("messages", counting.claude_key, anthropic=True)
    counter = ClaudeCounter(target, selector, headers, model=counting.claude_model)
    return counter, f"{target.origin}/v1/messages/count_tokens"


def _sums(model: str, name: str, prompts: Sequence[int], answers: Sequence[int | None]) -> TokenizerCount:
    known = [count for count in answers if count is not None]
    return TokenizerCount(
        model=model, name=name, requests=len(prompts), input_tokens=sum(prompts),
        output_tokens=sum(known) if known else None, basis="measured", date=dt.datetime.now(dt.UTC).date(),
    )  # fmt: skip


def _warnings(counting: Counting, requests: int, left_out: int, answers: int) -> list[str]:
    said: list[str] = []
    if counting.tokenizer is not None:
        said += LocalCounter(counting.tokenizer).warnings
    if left_out:
        said.append(f"{left_out} lines hold more than text and were left out")
    if requests < _FEW:
        said.append(f"{requests} requests only: another sample may well differ")
    if 0 < answers < requests:
        said.append(f"{answers} of {requests} requests have a recorded answer; output is of those")
    return said
