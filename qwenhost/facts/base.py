"""What every fact is made of: a strict frozen value, its source and its basis."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

import msgspec


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every value: frozen, slotted, strict about unknown keys.

    msgspec does not hand ``kw_only`` down, so each value repeats it.
    """


class Source(Value, frozen=True, kw_only=True):
    """Where a fact comes from and when that was true."""

    where: str
    """A URL, a log, a config file, or the computation that gave the figure."""
    as_of: dt.date
    note: str = ""


Basis = Literal["measured", "modelled", "assumed"]

# Of what is divided by: held where a document is read, since a file may hold anything.
Positive = Annotated[float, msgspec.Meta(gt=0)]
AtLeastOne = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(gt=0, le=1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Percent = Annotated[float, msgspec.Meta(gt=0, le=100)]
