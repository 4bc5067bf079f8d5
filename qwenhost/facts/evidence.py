"""Scores and costs that others published, and the numbers that nobody did."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts.base import Source, Value


class BenchmarkScore(Value, frozen=True, kw_only=True):
    """A published score."""

    benchmark: str
    model: str
    """``qwen3.5-122b-a10b`` or ``claude-sonnet-4.6``."""
    score: float
    unit: str = "%"
    by: Literal["maker", "third_party"]
    like_for_like: bool = True
    remark: str = ""
    source: Source


class CostPerTask(Value, frozen=True, kw_only=True):
    """A published mean cost of one benchmark task at list prices."""

    benchmark: str
    model: str
    usd_per_task: float
    score: float
    remark: str = ""
    source: Source


class Assumption(Value, frozen=True, kw_only=True):
    """A number nobody published, with its range."""

    id: str
    value: float
    low: float
    high: float
    unit: str
    why: str
    source: Source
