"""The dashboard is one that Grafana can import, and asks only for what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from metric_names import known_series, labels_of, selectors
from prometheus_kit import CHART_FILES, rules_text

ROOT = Path(__file__).parents[2]
DASHBOARD: dict[str, Any] = json.loads((CHART_FILES / "dashboards" / "qwenhost.json").read_text())
VARIABLES = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {f"{panel['title']}, {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]}
ALERTS = {rule["alert"]: rule["expr"] for g in yaml.safe_load(rules_text())["groups"] for rule in g["rules"]}
KNOWN = known_series()


def filled(query: str) -> str:
    """A query as Grafana sends it: variables in their places."""
    query = query.replace("$__rate_interval", "15s").replace("$namespace", "prod")
    query = query.replace("$release", "qwen").replace("$pool", ".*")
    for name, variable in VARIABLES.items():
        if variable["type"] == "textbox":
            query = query.replace(f"${name}", variable["current"]["value"])
    return query


def test_ids_are_unique_and_panels_do_not_overlap() -> None:
    """Grafana silently drops a panel whose id another has."""
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own


def test_every_panel_asks_the_prometheus_that_is_chosen() -> None:
    """No identifier of somebody's installation is in it."""
    assert VARIABLES["datasource"]["type"] == "datasource"
    for panel in PANELS:
        assert {one["datasource"]["uid"] for one in [panel, *panel["targets"]]} == {"${datasource}"}


def test_every_variable_of_a_query_is_one_of_the_dashboard() -> None:
    """And each of the dashboard's is used."""
    used = {name for query in QUERIES.values() for name in re.findall(r"\$(\w+)", query)}
    assert used - {"__rate_interval"} == VARIABLES.keys() - {"datasource"}


def test_sonnets_prices_are_the_profiles() -> None:
    """List prices of 2026-11: 3, 0.30 and 15 dollars per million tokens."""
    values = {name: VARIABLES[name]["current"]["value"] for name in VARIABLES if name.startswith("sonnet")}
    assert values == {"sonnet_input": "3", "sonnet_cache_read": "0.3", "sonnet_output": "15"}


@pytest.mark.parametrize("name", [*QUERIES, *ALERTS])
def test_every_metric_and_label_exists(name: str) -> None:
    """In the pinned vLLM, or in the exporters beside it."""
    query = filled(QUERIES[name]) if name in QUERIES else ALERTS[name]
    found = selectors(query)
    assert found
    for selector in found:
        assert selector.name in KNOWN, selector.name
        assert labels_of(selector) <= KNOWN[selector.name], selector.name


def test_a_dead_name_would_be_noticed() -> None:
    """Names of older releases, which other dashboards still ask for, are not in the registry."""
    for dead in (
        "vllm:gpu_cache_usage_perc",
        "vllm:num_requests_swapped",
        "vllm:gpu_prefix_cache_hits_total",
    ):
        assert dead not in KNOWN
    assert "model" not in KNOWN["vllm:num_requests_waiting"]
