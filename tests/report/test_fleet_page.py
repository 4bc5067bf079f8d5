"""The page of a fleet: everything drawn, everything escaped, nothing loaded."""

from __future__ import annotations

import datetime as dt
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import msgspec
import pytest

from qwenhost.facts import Slo, Source, TokenStats, Workload
from qwenhost.report.fleet_page import fleet_html
from qwenhost.simulate.config import EngineConfig
from qwenhost.simulate.engine import Request
from qwenhost.simulate.fleet import Fleet
from qwenhost.simulate.fleet_config import Autoscale, FleetConfig, Pool, Range, StartUp, Trigger
from qwenhost.simulate.fleet_figures import FleetLabels, fleet_run
from qwenhost.simulate.fleet_rate import Bench, RateSearch, find_rate
from qwenhost.simulate.fleet_result import ApiBill, FleetRun
from qwenhost.simulate.fleet_search import FleetSearch, Tried
from qwenhost.simulate.load import Arrival

SLO = Slo(ttft_ms=9000, tpot_ms=2000, percentile=90)
LIMITS = EngineConfig(
    max_model_len=4096, max_num_seqs=2, max_num_batched_tokens=4096, num_blocks=4001, block_size=16,
    enable_prefix_caching=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def run() -> FleetRun:
    """An hour of a fleet that grows under a burst; names that want escaping."""
    pool = Pool(
        name="2x <H200>", config=LIMITS, replicas=Range(low=1, high=4), usd_per_hour=8.0, gpus_per_replica=2,
        start=StartUp(cold={"weights": 60.0}, warm={"weights": 20.0}),
        autoscale=Autoscale(triggers=(Trigger(metric="in-flight", target=2.0),)),
    )  # fmt: skip
    config = FleetConfig(pools=(pool,))
    calls = [Arrival(1000 + 2.0 * i, Request(10, 5)) for i in range(300)]
    log = Fleet(config, [lambda _: 1.0], seed=0, slo=SLO).run(calls, horizon_s=3600)
    labels = FleetLabels(
        workload="chat", engines={pool.name: "fp8"}, gpus={pool.name: "H200"}, seed=0, assumptions=("a & b",)
    )
    bill = ApiBill(
        id="x",
        name="Claude <X>",
        usd=9.0,
        usd_per_day=216.0,
        cache_policy="none",
        as_of="2026-11-23",
        source="s",
    )
    made = fleet_run(config, log, labels, 0.0)
    windows = tuple(msgspec.structs.replace(w, api_usd=float(w.requests)) for w in made.windows)
    return msgspec.structs.replace(made, api=(bill,), windows=windows)


@pytest.fixture(scope="module")
def curve() -> RateSearch:
    """One replica's curve."""
    workload = Workload(
        id="one", description="", input_tokens=TokenStats(mean=10), output_tokens=TokenStats(mean=5),
        slo=SLO, source=Source(where="test", as_of=dt.date(2026, 11, 23)),
    )  # fmt: skip
    return find_rate(Bench(config=LIMITS, workload=workload, requests=100), lambda _: 1.0, SLO, start=0.2)


class Balance(HTMLParser):
    """Counts what opens and closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Void elements close themselves."""
        assert not any(value and value.startswith("http") for name, value in attrs if name in ("src", "href"))
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Nothing stays open."""

    def handle_endtag(self, tag: str) -> None:
        """The last opened."""
        assert self.open.pop() == tag


def test_the_page_is_whole(run: FleetRun, curve: RateSearch) -> None:
    """Tags balance, nothing is loaded, names are escaped, every plot is valid and described."""
    tried = Tried(label="1 x a", usd_per_day=None, kept_slo=None, verdict="misses the SLO", pools=())
    search = FleetSearch(chosen=run, label="1 x a", why=("because <it> is",), tried=(tried,))
    page = fleet_html(run, search, {"2x <H200>": curve})
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert "<H200>" not in page
    assert "because &lt;it&gt; is" in page
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 12  # six plots, for a desk and a phone
    for drawing in drawings:
        root = ET.fromstring(drawing)  # noqa: S314 - our own
        assert root.find("title") is not None
        numbers = re.findall(r"[\d.]+", " ".join(path.get("d", "") for path in root.iter("path")))
        assert all(0 <= float(number) <= 800 for number in numbers)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_what_is_unknown_is_left_out(run: FleetRun) -> None:
    """Without prices there is no money, without a level no limit; the rest stands."""
    windows = tuple(msgspec.structs.replace(w, usd=None, api_usd=None) for w in run.windows)
    bare = msgspec.structs.replace(
        run, usd=None, usd_per_day=None, usd_per_request=None, slo=None, api=(), windows=windows
    )
    page = fleet_html(bare, None, {})
    assert "What it costs" not in page
    assert page.count("<svg") == 6


def test_the_figures_are_the_runs(run: FleetRun) -> None:
    """The headline's money and the number of requests."""
    page = fleet_html(run, None, {})
    assert f"{run.requests.sent:,} requests of chat" in page
    assert "$216" in page
