"""Finding a row by what people call it, and what can be derived from it."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from qwenhost.errors import BadInputError
from qwenhost.facts import MTP_GROUPS, Architecture, Checkpoint, Value, WeightFormat
from qwenhost.node import normalise_gpu_name
from qwenhost.profiles.sheet import KINDS, row_id
from qwenhost.profiles.sources import rows_of

if TYPE_CHECKING:
    from qwenhost.facts import Catalog


class FoundRow(Value, frozen=True, kw_only=True):
    """A row, what names it, and figures computed from it."""

    kind: str
    id: str
    row: Any
    derived: dict[str, Any]


def find_rows(catalog: Catalog, text: str) -> tuple[FoundRow, ...]:
    """Every row called ``KIND/ID`` or ``ID``; repository names and GPU aliases are understood too.

    Raises:
        BadInputError: nothing by that name; near names are listed.
    """
    kind, _, rest = text.partition("/")
    wanted, kinds = (rest, (kind,)) if kind in KINDS and rest else (text, KINDS)
    rows = [(kind, row) for kind in kinds for row in rows_of(catalog, kind)]
    for matches in (_exactly, _loosely):
        found = [(kind, row) for kind, row in rows if matches(kind, row, wanted)]
        if found:
            return tuple(
                FoundRow(kind=kind, id=row_id(kind, row), row=row, derived=derived(catalog, row))
                for kind, row in found
            )
    names = {row_id(kind, row) for kind, row in rows}
    near = difflib.get_close_matches(wanted, names, n=4, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    raise BadInputError(f"no profile called {text!r}", remedy=f"{hint}See: qwenhost profiles list")


def _exactly(kind: str, row: Any, wanted: str) -> bool:
    return wanted in {row_id(kind, row), getattr(row, "repo_id", None)}


def _loosely(kind: str, row: Any, wanted: str) -> bool:
    names = (row_id(kind, row), getattr(row, "name", ""), *getattr(row, "aliases", ()))
    asked = normalise_gpu_name(wanted)
    return bool(asked) and asked in {normalise_gpu_name(name) for name in names}


def derived(catalog: Catalog, row: Any) -> dict[str, Any]:
    """Figures a reader wants beside a row and that follow from it."""
    if isinstance(row, Architecture):
        return {"parameters": row.parameters, "total_parameters": row.total_parameters}
    if isinstance(row, WeightFormat):
        return {"bytes_per_parameter": row.bytes_per_parameter}
    if isinstance(row, Checkpoint):
        architecture = catalog.architectures[row.architecture]
        return {
            "disk_bytes": round(stored_bytes(catalog, architecture, row)),
            "load_bytes": round(load_bytes(catalog, architecture, row)),
        }
    return {}


def load_bytes(catalog: Catalog, architecture: Architecture, checkpoint: Checkpoint) -> float:
    """Weights in memory on one GPU, vision tower included, MTP layer not."""
    return sum(
        parameters * catalog.formats[checkpoint.format_of(group)].bytes_per_parameter
        for group, parameters in architecture.parameters.items()
        if group not in MTP_GROUPS
    )


def stored_bytes(catalog: Catalog, architecture: Architecture, checkpoint: Checkpoint) -> float:
    """Weights on disk, the MTP layer included where the checkpoint has one."""
    return sum(
        parameters * catalog.formats[checkpoint.format_of(group)].stored_bytes_per_parameter
        for group, parameters in architecture.parameters.items()
        if checkpoint.mtp or group not in MTP_GROUPS
    )
