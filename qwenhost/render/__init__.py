"""A plan as something to run: argv, config file, environment, container, unit, chart values. Pure."""

from __future__ import annotations

from qwenhost.render.argv import vllm_argv
from qwenhost.render.chart_report import pool_report, waiting_per_replica
from qwenhost.render.chart_values import ChartPool, chart_values, engine_config, model_values, product_label
from qwenhost.render.formats import FORMATS, render
from qwenhost.render.header import header
from qwenhost.render.host_formats import dump
from qwenhost.render.target import Target

__all__ = [
    "FORMATS",
    "ChartPool",
    "Target",
    "chart_values",
    "dump",
    "engine_config",
    "header",
    "model_values",
    "pool_report",
    "product_label",
    "render",
    "vllm_argv",
    "waiting_per_replica",
]
