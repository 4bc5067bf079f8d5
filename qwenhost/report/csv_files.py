"""Every table of a comparison as CSV, with raw numbers."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from qwenhost.cost import Comparison


def csv_tables(comparison: Comparison) -> dict[str, str]:
    """File name to content; nested values have dotted columns, lists are joined by ``; ``."""
    plan = comparison.plan
    tables: dict[str, Sequence[Any]] = {
        "offers": comparison.api,
        "self_host": (comparison.self_host,),
        "curve": comparison.curve,
        "break_even": (comparison.break_even,),
        "sensitivity": comparison.sensitivity,
        "hardware_options": comparison.hardware_options,
        "quality": comparison.quality,
        "costs_per_task": comparison.costs_per_task,
        "assumptions": comparison.assumptions,
        "cache_checks": comparison.cache_checks,
        "thinking": comparison.thinking,
        "price_history": comparison.price_history,
        "load_curve": comparison.load_curve,
        "memory_per_gpu": (plan.memory_per_gpu,),
        "speed": (plan.estimate,),
    }
    return {f"{name}.csv": _csv(rows) for name, rows in tables.items() if rows}


def _csv(values: Iterable[Any]) -> str:
    rows = [dict(_flat(msgspec.to_builtins(value))) for value in values]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(value: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{prefix}{name}.")
        elif isinstance(inner, list):
            yield f"{prefix}{name}", "; ".join(map(str, inner))
        else:
            yield f"{prefix}{name}", _guarded(inner)


def _guarded(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula is quoted."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value
