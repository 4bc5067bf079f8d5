"""Facts beyond their stated age are flagged where they are used."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import msgspec
from cost_samples import CATALOG, CHAT, DAY, NOON, assumption, plan

from qwenhost.cost import ApiTerms, CompareOptions, Comparison, compare, quote_workload

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

AGES = {
    "gpu_price_max_age_days": assumption("gpu_price_max_age_days", 60, 30, 90),
    "api_price_max_age_days": assumption("api_price_max_age_days", 120, 60, 180),
}


def aged() -> Catalog:
    """The catalog with ages stated."""
    return msgspec.structs.replace(CATALOG, assumptions={**CATALOG.assumptions, **AGES})


def result(known: Catalog, *, days: int) -> Comparison:
    """Made so many days after every price was seen."""
    options = CompareOptions(as_of=DAY + dt.timedelta(days=days), requests_per_day=10_000)
    return compare(known, CHAT, plan(), None, options=options, generated_at=NOON)


def cautions(comparison: Comparison) -> str:
    return " ".join(comparison.verdict.cautions)


def test_up_to_its_age_a_price_is_fresh() -> None:
    """60 days for a rent, 120 for an API."""
    assert result(aged(), days=60).stale == ()
    assert "stated age" not in cautions(result(aged(), days=60))


def test_the_rent_ages_first() -> None:
    """On day 61; the caution says what, since when and what its age may be."""
    found = result(aged(), days=61)
    assert [(fact.what, fact.age_days, fact.max_age_days) for fact in found.stale] == [("GPU price", 61, 60)]
    assert "GPU price: seen 61 days ago (2026-11-23), stated age 60" in cautions(found)


def test_then_the_apis_do() -> None:
    """The baseline by its name, hosted offers by their oldest."""
    names = {fact.what for fact in result(aged(), days=121).stale}
    assert names == {"GPU price", "Claude Sonnet 4.6", "hosted Qwen"}


def test_without_a_stated_age_nothing_ages() -> None:
    """Profiles of the user's own may leave it out."""
    assert result(CATALOG, days=3650).stale == ()


def test_a_quote_says_it_too() -> None:
    """Beside each offer."""
    later = ApiTerms(as_of=DAY + dt.timedelta(days=121))
    remarks = quote_workload(aged(), CHAT, later).api[0].remarks
    assert "price seen 121 days ago (2026-11-23), older than its stated age of 120" in remarks
    assert quote_workload(aged(), CHAT, ApiTerms(as_of=DAY)).api[0].remarks != remarks
