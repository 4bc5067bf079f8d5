"""Grafana's dashboard of the chart.

Sonnet's prices come from ``profiles/prices``; on the dashboard they are boxes that anybody can change. What a
replica costs is recorded by the chart's rules from the plan (``qwenhost:pool_usd_per_hour``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenhost.profiles import load_catalog

if TYPE_CHECKING:
    from qwenhost.facts import ApiPrice

FILE = Path(__file__).parent.parent.parent / "k8s" / "chart" / "files" / "dashboards" / "qwenhost.json"
SONNET = "claude-sonnet-4.6"
WIDTH, HEIGHT = 24, 8
ALL = 'namespace="$namespace",release="$release",pool=~"$pool"'
GPUS = 'namespace="$namespace",pod=~"$release.*"'
RATE = "[$__rate_interval]"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def quantiles(metric: str, *shares: float) -> list[tuple[str, str]]:
    """Queries of a histogram's quantiles."""
    rate = f"sum by (le) (rate({metric}_bucket{{{ALL}}}{RATE}))"
    return [(f"histogram_quantile({share}, {rate})", f"p{share * 100:g}") for share in shares]


def total(metric: str, *, by: str = "", more: str = "") -> str:
    """The rate of a counter, summed."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{ALL}{more}}}{RATE}))"


PODS = f"count by (namespace, release, pool) (up{{{ALL}}} == 1)"
# Sonnet counts the same text in more tokens ($tokens_ratio) and reads what it has cached for less.
SONNET_USD_PER_S = (
    f"(({total('vllm:prompt_tokens_total')} - {total('vllm:prompt_tokens_cached_total')}) * $sonnet_input"
    f" + {total('vllm:prompt_tokens_cached_total')} * $sonnet_cache_read"
    f" + {total('vllm:generation_tokens_total')} * $sonnet_output) * $tokens_ratio / 1e6"
)
LIKE_FOR_LIKE = "The same tokens at list prices. What they are worth differs: qwenhost compare weighs it."

# Row -> panels (title, unit, queries with their legends, description).
Panel = tuple[str, str, list[tuple[str, str]], str]


def planned(figure: str) -> str:
    """What the plan says of one replica, times the pods that answer."""
    return f"sum({PODS} * on (namespace, release, pool) qwenhost:pool_{figure}{{{ALL}}})"


def mean(metric: str) -> str:
    """The mean of a histogram."""
    return f"{total(metric + '_sum')} / {total(metric + '_count')}"


def ratio(part: str, whole: str) -> str:
    """One counter's rate over another's."""
    return f"{total(part)} / {total(whole)}"


def gpu(title: str, unit: str, metric: str, about: str = "") -> Panel:
    """A figure of NVIDIA's exporter, GPU by GPU."""
    return (title, unit, [(f"{metric}{{{GPUS}}}", "{{Hostname}} {{gpu}}")], about)


def latency() -> list[Panel]:
    """How long things take."""
    timed = {
        "First token": ("time_to_first_token_seconds", 0.5, 0.95, 0.99),
        "Per output token": ("request_time_per_output_token_seconds", 0.5, 0.95, 0.99),
        "Between tokens": ("inter_token_latency_seconds", 0.5, 0.95, 0.99),
        "Whole answer": ("e2e_request_latency_seconds", 0.5, 0.95),
        "In the queue": ("request_queue_time_seconds", 0.5, 0.95),
        "In prefill": ("request_prefill_time_seconds", 0.5, 0.95),
    }
    return [
        (title, "s", quantiles(f"vllm:{metric}", *shares), "") for title, (metric, *shares) in timed.items()
    ]


def load() -> list[Panel]:
    """What is asked and what is running."""
    ended = total("vllm:request_success_total", by="finished_reason")
    in_flight = [
        (f"sum(vllm:num_requests_running{{{ALL}}})", "running"),
        (f"sum(vllm:num_requests_waiting{{{ALL}}})", "waiting"),
        (planned("concurrency"), "planned"),
    ]
    tokens = [
        (total("vllm:prompt_tokens_total"), "prompt/s"),
        (total("vllm:generation_tokens_total"), "output/s"),
    ]
    sizes = [
        (mean("vllm:request_prompt_tokens"), "prompt"),
        (mean("vllm:request_generation_tokens"), "output"),
    ]
    steps = total("vllm:iteration_tokens_total_count", by="pod")
    saturation = "Planned is where the plan sees saturation, all pods."
    return [
        ("Requests by how they end", "reqps", [(ended, "{{finished_reason}}")], ""),
        ("Requests in flight", "short", in_flight, saturation),
        ("Tokens", "short", tokens, ""),
        ("Tokens of a request, mean", "short", sizes, "Far from the plan's workload: plan again with these."),
        ("Engine steps", "ops", [(steps, "{{pod}}")], "At zero while requests run: a rank hangs."),
        ("Pods that answer", "short", [(PODS, "{{pool}}")], ""),
    ]


def cache() -> list[Panel]:
    """The KV cache and drafts."""
    used = f"max by (pod) (vllm:kv_cache_usage_perc{{{ALL}}})"
    hits = ratio("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
    accepted = "vllm:spec_decode_num_accepted_tokens_total"
    of_drafted = ratio(accepted, "vllm:spec_decode_num_draft_tokens_total")
    per_step = f"1 + {ratio(accepted, 'vllm:spec_decode_num_drafts_total')}"
    no_prefixes = "Empty where the plan drafts tokens instead of caching prefixes."
    no_drafts = "Empty where the plan drafts none."
    preempted = total("vllm:num_preemptions_total", by="pool")
    return [
        ("KV cache in use", "percentunit", [(used, "{{pod}}")], ""),
        ("Preemptions", "ops", [(preempted, "{{pool}}")], ""),
        ("Prompt tokens found in the cache", "percentunit", [(hits, "hits")], no_prefixes),
        ("Drafts accepted", "percentunit", [(of_drafted, "of drafted tokens")], no_drafts),
        ("Tokens per step of a sequence", "short", [(per_step, "with drafts")], no_drafts),
    ]


def cost() -> list[Panel]:
    """Rent against the tokens it gives, and Sonnet's price of them."""
    rent = planned("usd_per_hour")
    tokens = f"({total('vllm:prompt_tokens_total')} + {total('vllm:generation_tokens_total')})"
    output = total("vllm:generation_tokens_total")
    hourly = [(rent, "this release"), (f"{SONNET_USD_PER_S} * 3600", "Sonnet 4.6")]
    blended = [
        (f"{rent} / 3600 / {tokens} * 1e6", "this release"),
        (f"{SONNET_USD_PER_S} / {tokens} * 1e6", "Sonnet 4.6"),
    ]
    used = f"{output} / {planned('output_tokens_per_second')}"
    idle = "At one the rent is used as the plan assumes; far below, fewer GPUs do."
    return [
        ("Rent per hour, and Sonnet 4.6 for the same tokens", "currencyUSD", hourly, LIKE_FOR_LIKE),
        ("Per million tokens, prompt and output", "currencyUSD", blended, LIKE_FOR_LIKE),
        (
            "Per million output tokens",
            "currencyUSD",
            [(f"{rent} / 3600 / {output} * 1e6", "this release")],
            "All rent on output tokens.",
        ),
        ("Of the output the plan foresees", "percentunit", [(used, "output rate")], idle),
    ]


def gpus() -> list[Panel]:
    """The hardware."""
    return [
        gpu("Busy", "percent", "DCGM_FI_DEV_GPU_UTIL", "DCGM exporter with the pods' labels (honorLabels)."),
        gpu("Tensor cores", "percentunit", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"),
        gpu("Memory bandwidth", "percentunit", "DCGM_FI_PROF_DRAM_ACTIVE"),
        gpu("Memory", "decmbytes", "DCGM_FI_DEV_FB_USED"),
        gpu("Power", "watt", "DCGM_FI_DEV_POWER_USAGE"),
        gpu("Xid", "short", "DCGM_FI_DEV_XID_ERRORS", "The last one."),
    ]


ROWS = {"Latency": latency, "Load": load, "Cache and drafts": cache, "Cost": cost, "GPU": gpus}


def made() -> dict[Path, str]:
    """The dashboard's file."""
    text = json.dumps(dashboard(load_catalog([]).api_prices[SONNET]), indent=1) + "\n"
    return {FILE: text}


def dashboard(sonnet: ApiPrice) -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, made in ROWS.items():
        row = made()
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
                       "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}, "panels": []})  # fmt: skip
        top += 1
        for index, one in enumerate(row):
            place = {"x": index % 3 * 8, "y": top + index // 3 * HEIGHT, "w": 8, "h": HEIGHT}
            panels.append(panel(len(panels) + 1, one, place))
        top += (len(row) + 2) // 3 * HEIGHT
    return {
        "uid": "qwenhost",
        "title": "Qwen3.5-122B-A10B on vLLM",
        "tags": ["vllm", "qwenhost"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": variables(sonnet)},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def panel(number: int, drawn: Panel, place: dict[str, int]) -> dict[str, Any]:
    """A panel of lines."""
    title, unit, queries, about = drawn
    return {
        "id": number,
        "type": "timeseries",
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {
            "defaults": {"unit": unit, "min": 0, "custom": {"showPoints": "never", "spanNulls": False}},
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for index, (query, legend) in enumerate(queries)
        ],
    }


def variables(sonnet: ApiPrice) -> list[dict[str, Any]]:
    """Which Prometheus, which release, which prices."""
    usd = sonnet.periods[-1].usd_per_mtok
    more_tokens = sonnet.tokenizer.prose if sonnet.tokenizer else 1.0
    series = "vllm:num_requests_running"
    of_release = f'{series}{{namespace="$namespace",release="$release"}}'
    return [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        chosen("namespace", f"label_values({series}, namespace)"),
        chosen("release", f'label_values({series}{{namespace="$namespace"}}, release)'),
        chosen("pool", f"label_values({of_release}, pool)", several=True),
        box("sonnet_input", "Sonnet $/Mtok input", usd.input),
        box("sonnet_cache_read", "cached", usd.cache_read),
        box("sonnet_output", "output", usd.output),
        box("tokens_ratio", "Sonnet tokens per Qwen token", more_tokens),
    ]


def chosen(name: str, query: str, *, several: bool = False) -> dict[str, Any]:
    """A variable with the values of a label."""
    return {
        "name": name, "label": name, "type": "query", "datasource": SOURCE, "refresh": 2, "sort": 1,
        "query": {"query": query, "refId": "values"}, "definition": query,
        "multi": several, "includeAll": several,
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if several else {}),
    }  # fmt: skip


def box(name: str, label: str, value: float | None) -> dict[str, Any]:
    """A variable that anybody can type."""
    text = f"{value or 0:g}"
    return {
        "name": name, "label": label, "type": "textbox", "query": text,
        "current": {"text": text, "value": text},
        "options": [{"text": text, "value": text, "selected": True}],
    }  # fmt: skip
