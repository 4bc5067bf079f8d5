"""Metrics that queries may use, with their kinds and labels, and the queries' own names taken apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import promql_parser

REGISTRY = Path(__file__).parents[1] / "data" / "vllm-metrics-0.33.txt"
# What Prometheus, its operator and the chart add to each series: relabelings of the PodMonitor.
TARGET_LABELS = frozenset({"namespace", "pod", "release", "pool", "instance", "job"})
GPU_LABELS = frozenset({"gpu", "UUID", "Hostname", "exported_namespace", "exported_pod"})
# Exporters beside the engine: etc/default-counters.csv of github.com/NVIDIA/dcgm-exporter, and
# docs/metrics of github.com/kubernetes/kube-state-metrics.
OTHERS = {
    "up": frozenset(),
    "DCGM_FI_DEV_GPU_UTIL": GPU_LABELS,
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": GPU_LABELS,
    "DCGM_FI_PROF_DRAM_ACTIVE": GPU_LABELS,
    "DCGM_FI_DEV_FB_USED": GPU_LABELS,
    "DCGM_FI_DEV_POWER_USAGE": GPU_LABELS,
    "DCGM_FI_DEV_XID_ERRORS": GPU_LABELS,
    "DCGM_FI_DEV_ROW_REMAP_FAILURE": GPU_LABELS,
    "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": GPU_LABELS,
    "kube_job_failed": frozenset({"job_name", "condition"}),
    "kube_deployment_spec_replicas": frozenset({"deployment"}),
    # Recorded by the chart's own rules from the plan.
    "qwenhost:pool_usd_per_hour": frozenset(),
    "qwenhost:pool_concurrency": frozenset(),
    "qwenhost:pool_output_tokens_per_second": frozenset(),
    "qwenhost:pool_gpus": frozenset(),
}


def known_series() -> dict[str, frozenset[str]]:
    """Labels by name of a series, counters and histograms with their suffixes."""
    series = {name: labels | TARGET_LABELS for name, labels in OTHERS.items()}
    for line in REGISTRY.read_text().splitlines():
        if line.startswith("#"):
            continue
        kind, name, *labels = line.split()
        own = frozenset(labels) | TARGET_LABELS
        if kind == "counter":
            series[f"{name.removesuffix('_total')}_total"] = own
        elif kind == "gauge":
            series[name] = own
        else:
            series |= {f"{name}_sum": own, f"{name}_count": own, f"{name}_bucket": own | {"le"}}
    return series


def selectors(query: str) -> list[Any]:
    """Every vector selector of a query."""
    found: list[Any] = []

    def walk(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        else:
            for child in ("expr", "lhs", "rhs", "param"):
                if getattr(node, child, None) is not None:
                    walk(getattr(node, child))
            for child in getattr(node, "args", None) or ():
                walk(child)

    walk(promql_parser.parse(query))
    return found


def labels_of(selector: Any) -> set[str]:
    """The labels that a selector names."""
    return {matcher.name for matcher in selector.matchers.matchers}
