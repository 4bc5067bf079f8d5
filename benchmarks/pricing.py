"""Pricing at the sizes people bring: a trace of 100,000 requests for every offer, and 10,000 draws.

Bars: each under 2 s. Paired with reading and decoding the same file alone, in the same run.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from common import write_result

from qwenhost.cli.main import run
from qwenhost.cost import ApiTerms, load_trace, load_usage, quote_usage
from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS, ROUNDS = 100_000, 5


def seconds(work: Callable[[], object]) -> float:
    """The best of a few runs."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return round(min(times), 3)


def main() -> None:
    """Write a trace, price it for all offers, then draw the break-even's band."""
    catalog = load_catalog()
    day = dt.datetime.now(tz=dt.UTC).date()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "usage.jsonl"
        rows = ({"input_tokens": 500 + i % 4000, "output_tokens": 50 + i % 700} for i in range(ROWS))
        trace.write_text("\n".join(map(json.dumps, rows)))
        decode_s = seconds(lambda: [json.loads(line) for line in trace.read_text().splitlines()])
        loaded = load_trace(trace)
        result = {
            "rows": ROWS,
            "offers": len(catalog.api_prices),
            "json_decode_alone_s": decode_s,
            "read_s": seconds(lambda: load_usage(trace)),
            "price_all_offers_s": seconds(lambda: quote_usage(catalog, loaded, "trace", ApiTerms(as_of=day))),
            "read_and_price_all_offers_s": seconds(
                lambda: quote_usage(catalog, load_trace(trace), "trace", ApiTerms(as_of=day))
            ),
            "compare_10000_draws_s": seconds(
                lambda: run(["compare", "--gpus", "2xH200", "--save", f"{folder}/c.json", "--json"])
            ),
        }
    print(json.dumps(result, indent=2))
    print(write_result("pricing", result))


if __name__ == "__main__":
    main()
