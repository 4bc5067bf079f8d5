"""Where each fact comes from and how old it is."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.facts import Catalog, Source, Value
from qwenhost.profiles.sheet import KINDS, row_id

if TYPE_CHECKING:
    from collections.abc import Iterator


class DatedFact(Value, frozen=True, kw_only=True):
    """A row's source; rows with parts of their own date give several."""

    kind: str
    id: str
    as_of: dt.date
    where: str


def dated_facts(catalog: Catalog) -> tuple[DatedFact, ...]:
    """Every source of the catalog, oldest first."""
    found = {
        DatedFact(kind=kind, id=row_id(kind, row), as_of=source.as_of, where=source.where)
        for kind in KINDS
        for row in rows_of(catalog, kind)
        for source in sources_in(row)
    }
    return tuple(sorted(found, key=lambda fact: (fact.as_of, fact.kind, fact.id, fact.where)))


def rows_of(catalog: Catalog, kind: str) -> tuple[Any, ...]:
    """Rows of one kind, in the catalog's order."""
    rows = getattr(catalog, kind)
    return tuple(rows.values()) if isinstance(rows, Mapping) else tuple(rows)


def sources_in(value: Any) -> Iterator[Source]:
    """Every Source inside a row."""
    if isinstance(value, Source):
        yield value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from sources_in(getattr(value, name))
    elif isinstance(value, tuple):
        for item in value:
            yield from sources_in(item)
