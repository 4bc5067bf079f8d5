"""The numbers nobody publishes, each with its range; a catalog's own row of the same id wins."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

from qwenhost.facts import Assumption, Source

if TYPE_CHECKING:
    from qwenhost.facts import Catalog


def assumption(catalog: Catalog, name: str) -> Assumption:
    """The catalog's row, else the one kept here."""
    return catalog.assumptions.get(name) or _FALLBACK[name]


def _row(  # noqa: PLR0917 - a table's columns, in order
    name: str, value: float, low: float, high: float, unit: str, why: str, where: str
) -> Assumption:
    source = Source(where=where, as_of=dt.date(2026, 11, 23))
    return Assumption(id=name, value=value, low=low, high=high, unit=unit, why=why, source=source)


_SURVEY = "survey of published GPU owner costs, 2026-09-19"
_FALLBACK: Final[dict[str, Assumption]] = {
    row.id: row
    for row in (
        _row(
            "mean_over_peak", 0.5, 0.28, 0.7, "share",
            "mean demand over peak demand; nodes are bought for the peak",
            "Azure 2024 traces: coding 0.28, conversation 0.52; ServeGen vision 0.71",
        ),
        _row(
            "spare_nodes", 1, 0, 2, "nodes",
            "N+1: one node may fail or be upgraded while the others carry the peak", "operating practice",
        ),
        _row(
            "staff_fte", 0.25, 0.1, 1.0, "FTE",
            "people who keep the service up, on call included", "range in published analyses, 0.25 to 1",
        ),
        _row(
            "staff_usd_per_fte_year", 260_000, 200_000, 360_000, "USD/year",
            "loaded cost of one engineer", "particula.tech 2026: 250,000 to 360,000",
        ),
        _row(
            "storage_usd_per_gb_month", 0.10, 0.05, 0.20, "USD/GB/month",
            "weights on each node's disk", "planning figure, not sourced",
        ),
        _row(
            "claude_tokens_per_qwen_token", 1.0, 1.0, 1.2, "ratio",
            "presets are priced at the counts their source published, on both sides; Claude's tokenizer "
            "may count up to this much more for the same text",
            "chars per token, claudecodecamp 2026-04 against tokenizer.json counts 2026-09",
        ),
        _row(
            "qwen_output_per_sonnet_output", 1.0, 0.7, 2.0, "ratio",
            "output tokens of Qwen3.5 for the same task, thinking included; not published, measure it",
            "Artificial Analysis cost per task v4.1, 2026-08-19: cost ratio 4.8 near the price ratio",
        ),
        _row(
            "measured_capacity_band", 0.1, 0.05, 0.2, "share",
            "run-to-run spread of one measured rate", "operating practice",
        ),
        _row(
            "depreciation_years", 4, 3, 6, "years",
            "life of owned hardware", "annual reports: Microsoft, Google 6; Amazon, Lambda 5; Nebius 4",
        ),
        _row(
            "colo_usd_per_kw_month", 180, 120, 250, "USD/kW/month",
            "space, power and cooling, billed on provisioned kW", _SURVEY,
        ),
        _row(
            "ownership_overhead_fraction", 0.275, 0.2, 0.35, "share",
            "fabric, storage, spares, software and remote hands on top of capex and colo", _SURVEY,
        ),
    )
}  # fmt: skip
