"""Facts of a comparison that are older than their stated age."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final, Protocol

from qwenhost.errors import BadInputError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qwenhost.cost.figures import Figure
    from qwenhost.cost.quality import QualityRow
    from qwenhost.facts import Catalog

MAX_AGE: Final = {
    "gpu_prices": "gpu_price_max_age_days",
    "api_prices": "api_price_max_age_days",
    "benchmarks": "score_max_age_days",
    "costs_per_task": "score_max_age_days",
}
"""The assumption that states the age, by kind of profile; other kinds do not age."""


class StaleFact(Value, frozen=True, kw_only=True):
    """One fact, or several of one kind by the oldest."""

    what: str
    as_of: str
    age_days: int
    max_age_days: int

    @property
    def sentence(self) -> str:
        """For people."""
        return f"{self.what}: seen {self.age_days} days ago ({self.as_of}), stated age {self.max_age_days}"


class Offer(Protocol):
    """What of an API's line is needed to tell its age."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def kind(self) -> str:
        """``claude``, ``hosted_qwen`` or ``other``."""

    @property
    def as_of(self) -> str:
        """Day on which its price was seen."""


def max_age_days(catalog: Catalog, kind: str) -> int | None:
    """The stated age of a kind; None = it does not age, or the profiles state none."""
    row = catalog.assumptions.get(MAX_AGE.get(kind, ""))
    return None if row is None else round(row.value)


def stale_facts(
    catalog: Catalog,
    *,
    as_of: dt.date,
    rent: Figure,
    lines: Sequence[Offer],
    quality: Sequence[QualityRow],
) -> tuple[StaleFact, ...]:
    """What a comparison uses beyond its age on the day it is made for, oldest first.

    Args:
        catalog: states the ages.
        as_of: the comparison's day.
        rent: of the GPUs; ages where it is listed, not where it was given.
        lines: the API offers; those of one kind are told by their oldest.
        quality: the scores.
    """
    dated = [
        ("gpu_prices", "GPU price", [rent.as_of]),
        ("api_prices", lines[0].name, [lines[0].as_of]),
        ("api_prices", "other Claude models", [x.as_of for x in lines[1:] if x.kind == "claude"]),
        ("api_prices", "hosted Qwen", [x.as_of for x in lines if x.kind == "hosted_qwen"]),
        ("benchmarks", "scores", [row.as_of for row in quality]),
    ]
    found = [_stale(what, days, as_of, max_age_days(catalog, kind)) for kind, what, days in dated]
    return tuple(sorted((fact for fact in found if fact is not None), key=lambda fact: fact.as_of))


def _stale(what: str, days: Iterable[str], as_of: dt.date, limit: int | None) -> StaleFact | None:
    oldest = min((day for day in days if day), default="")
    if not oldest or limit is None:
        return None
    try:
        age = (as_of - dt.date.fromisoformat(oldest)).days
    except ValueError as error:
        raise BadInputError(
            f"{what}: {oldest[:40]!r} is no date",
            remedy="Make the plan again, or correct the date in its file.",
        ) from error
    return StaleFact(what=what, as_of=oldest, age_days=age, max_age_days=limit) if age > limit else None
