"""One thing that is looked at before a start, and what the checks are told of the start."""

from __future__ import annotations

from typing import Literal

from qwenhost.facts import Value

Outcome = Literal["ok", "warn", "fail", "skip"]


class Check(Value, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    status: Outcome
    detail: str
    remedy: str = ""


class Subject(Value, frozen=True, kw_only=True):
    """What is to be started, as far as the checks need to know."""

    engine: Literal["vllm", "simulated"] = "vllm"
    target: Literal["gpu", "cpu"] = "gpu"
    host: str = "127.0.0.1"
    port: int = 8000
    vllm_bin: str | None = None
    vllm_version: str | None = None
    """Of the plan."""
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None
    """Where the supervisor would answer; None = nowhere."""
    repo_id: str | None = None
    """Weights to be fetched from the hub; None where they are local."""
    revision: str | None = None
    weights_bytes: int = 0
    min_compute_capability: float = 0.0
