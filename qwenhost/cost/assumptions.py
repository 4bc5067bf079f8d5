"""The numbers nobody publishes: rows of the catalog, by id."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from qwenhost.facts import Assumption, Catalog


def assumption(catalog: Catalog, name: str) -> Assumption:
    """The row.

    Raises:
        BadInputError: the catalog lacks it.
    """
    if name not in catalog.assumptions:
        raise BadInputError(
            f"the profiles hold no assumption {name!r}", remedy="See: qwenhost profiles list assumptions"
        )
    return catalog.assumptions[name]
