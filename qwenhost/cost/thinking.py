"""The same workload with thinking on and off: two rows, as the answer's length is the larger lever."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from qwenhost.cost.api_lines import price_request
from qwenhost.cost.assumptions import assumption
from qwenhost.cost.comparison import ThinkingRow
from qwenhost.facts import TokenStats
from qwenhost.units import DAYS_PER_MONTH

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.cost.frame import Frame
    from qwenhost.facts import ApiPrice, Catalog


def thinking_rows(catalog: Catalog, frame: Frame, prices: Iterable[ApiPrice]) -> tuple[ThinkingRow, ...]:
    """Self-hosting and each price, on and off.

    A workload whose output is part thinking is priced as it is, and without that part; one without is priced
    with thinking added: output / (1 - assumed share). A node's decode time follows its output tokens.
    """
    load = frame.workload
    row = assumption(catalog, "thinking_share_of_output")
    share, source = (
        (load.thinking_share, load.source.where) if load.thinking_share else (row.value, row.source.where)
    )
    plain = load.output_tokens.mean * ((1 - share) if load.thinking_share else 1.0)
    offers = list(prices)
    found = []
    for thinking, tokens in ((True, plain / (1 - share)), (False, plain)):
        sized = msgspec.structs.replace(load, output_tokens=TokenStats(mean=tokens))
        found.append(
            ThinkingRow(
                name="Self-hosted", thinking=thinking, output_tokens=tokens, source=source,
                usd_per_request=_own_usd(frame, tokens / load.output_tokens.mean),
            )
        )  # fmt: skip
        found += [
            ThinkingRow(
                name=price.name, thinking=thinking, output_tokens=tokens, source=source,
                usd_per_request=price_request(price, sized, frame.terms).breakdown.total,
            )
            for price in offers
        ]  # fmt: skip
    return tuple(found)


def _own_usd(frame: Frame, longer: float) -> float:
    """USD a request when answers are this many times as long; only the decode share of the time grows."""
    slower = frame.prefill_share + (1 - frame.prefill_share) * longer
    scenario = msgspec.structs.replace(
        frame.scenario, requests_per_s_per_node=frame.scenario.requests_per_s_per_node / slower
    )
    volume = frame.requests_per_day
    return scenario.self_host_usd_per_month(volume) / (volume * DAYS_PER_MONTH)
