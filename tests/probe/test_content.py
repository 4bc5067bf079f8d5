"""Prompts: sizes, uniqueness, calibration, own files."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenhost.errors import BadInputError
from qwenhost.facts import TokenStats
from qwenhost.probe.content import (
    SyntheticPrompts,
    TextPool,
    TokenFit,
    draw_lognormal,
    fit_tokens,
)
from qwenhost.probe.own_prompts import FilePrompts

if TYPE_CHECKING:
    from pathlib import Path

POOL = TextPool(1)
ONE_TOKEN_A_WORD = TokenFit(per_prompt=10, per_word=1)


def prompts(**options: Any) -> SyntheticPrompts:
    defaults: dict[str, Any] = {
        "input_tokens": TokenStats(mean=110), "output_tokens": TokenStats(mean=20),
        "fit": ONE_TOKEN_A_WORD, "seed": 1, "pool": POOL,
    }  # fmt: skip
    return SyntheticPrompts(**(defaults | options))


def test_a_prompt_is_a_nonce_and_the_words_that_make_its_tokens() -> None:
    """110 tokens, 10 of them the template's: 100 words after the nonce."""
    words = prompts()[0].text.split()
    assert len(words[0]) == 16
    assert len(words) == 1 + 100


def test_two_prompts_differ_from_their_first_characters() -> None:
    """No block of a prefix cache can serve another request's prompt."""
    made = prompts()
    assert len({made[i].text[:16] for i in range(1000)}) == 1000


def test_another_seed_shares_no_nonce() -> None:
    """A second run finds nothing of the first in the cache."""
    first, second = prompts(), prompts(seed=2)
    assert not {first[i].text[:16] for i in range(100)} & {second[i].text[:16] for i in range(100)}


def test_a_seed_repeats_its_prompts() -> None:
    """The same run can be sent again."""
    assert prompts()[7] == prompts()[7]


def test_a_shared_prefix_is_the_wanted_share_of_the_prompt() -> None:
    """Half of 110 tokens is 55; less the template's 10 they are 45 words, the same in every prompt."""
    made = prompts(prefix_hit=0.5)
    first, second = made[0].text.split("\n"), made[1].text.split("\n")
    assert first[0] == second[0]
    assert len(first[0].split()) == 1 + 45
    assert first[1] != second[1]
    assert len(first[1].split()) == 1 + 55


def test_text_reads_like_sentences() -> None:
    """Capital first, full stop last, all common words."""
    sentence = POOL.cut(200, 0).split(". ")[1]
    assert sentence[0].isupper()
    assert sentence.replace(",", "").replace(" ", "").isalpha()


def test_two_observations_make_the_line_through_them() -> None:
    """50 words are 70 tokens and 400 are 455: 1.1 a word, 15 a prompt."""
    fit = fit_tokens((50, 70), (400, 455), "test")
    assert fit.per_word == pytest.approx(1.1)
    assert fit.per_prompt == pytest.approx(15)
    assert fit.basis == "measured"
    assert fit.words_for(1115) == 1000


def test_fixed_sizes_are_the_mean() -> None:
    """Whatever the other statistics say."""
    stats = TokenStats(mean=20, p50=5, p90=90)
    assert {prompts(output_tokens=stats)[i].max_tokens for i in range(50)} == {20}


def test_preset_sizes_keep_mean_and_median() -> None:
    """100,000 draws of mean 1000 and median 500: both within 3 %, and none beyond 20 times the mean."""
    stats, random_ = TokenStats(mean=1000, p50=500), Random(3)  # noqa: S311 - sizes
    drawn = sorted(draw_lognormal(stats, random_) for _ in range(100_000))
    assert drawn[50_000] == pytest.approx(500, rel=0.03)
    assert sum(drawn) / len(drawn) == pytest.approx(1000, rel=0.03)
    assert drawn[-1] <= 20_000


def test_drawn_sizes_stay_within_the_servers_context() -> None:
    """A context of 1000 holds prompt and answer of every request, although the mean prompt is 900."""
    made = prompts(
        input_tokens=TokenStats(mean=900, p50=300), output_tokens=TokenStats(mean=300, p50=100),
        distribution="preset", max_model_len=1000,
    )  # fmt: skip
    sizes = [(10 + len(made[i].text.split()) - 1, made[i].max_tokens) for i in range(500)]
    assert max(words + answer for words, answer in sizes) <= 1000
    assert len(set(sizes)) > 300


def test_preset_sizes_keep_mean_and_p90_where_no_median_is_known() -> None:
    """Mean 1000, p90 1800."""
    stats, random_ = TokenStats(mean=1000, p90=1800), Random(3)  # noqa: S311 - sizes
    drawn = sorted(draw_lognormal(stats, random_) for _ in range(100_000))
    assert drawn[90_000] == pytest.approx(1800, rel=0.03)
    assert sum(drawn) / len(drawn) == pytest.approx(1000, rel=0.03)


@given(mean=st.floats(1, 1e5), seed=st.integers(0, 1000))
def test_a_mean_alone_is_a_fixed_size(mean: float, seed: int) -> None:
    """Nothing is known of the spread, so none is made up."""
    random_ = Random(seed)  # noqa: S311 - sizes
    assert draw_lognormal(TokenStats(mean=mean), random_) == pytest.approx(mean)


def test_own_prompts_go_round(tmp_path: Path) -> None:
    """Two lines serve any number of requests; max_tokens of the line wins."""
    file = tmp_path / "own.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"messages": [{"role": "user", "content": "b"}], "max_tokens": 3}\n')
    made = FilePrompts(file, max_tokens=50)
    assert (made[0].text, made[0].max_tokens) == ("a", 50)
    assert (made[1].messages, made[1].max_tokens) == ([{"role": "user", "content": "b"}], 3)
    assert made[2] == made[0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"prompt": "a"}\n{"prompt": 3}\n', "line 2"),
        ("not json\n", "line 1"),
        ('{"other": 1}\n', "exactly one"),
        ("\n", "no prompts"),
    ],
)
def test_a_bad_prompt_file_is_refused_by_line(tmp_path: Path, content: str, said: str) -> None:
    """The message names file and line."""
    file = tmp_path / "own.jsonl"
    file.write_text(content)
    with pytest.raises(BadInputError, match=said):
        FilePrompts(file, max_tokens=5)


def test_a_missing_prompt_file_is_refused(tmp_path: Path) -> None:
    """Not a traceback."""
    with pytest.raises(BadInputError, match="No such file"):
        FilePrompts(tmp_path / "none.jsonl", max_tokens=5)
