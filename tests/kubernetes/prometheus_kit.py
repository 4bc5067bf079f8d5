"""Prometheus' own programs, and the chart's rules as the chart fills them in."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

CHART_FILES = Path(__file__).parents[2] / "k8s" / "chart" / "files"
WORDS = {
    "@selector@": 'namespace="prod",release="qwen"',
    "@namespace@": "prod",
    "@release@": "qwen",
    "@fullname@": "qwen-qwenhost",
    "@ttftSeconds@": "5",
    "@tpotSeconds@": "0.1",
    "@stallSeconds@": "600",
}


def program(name: str) -> str:
    """Path of promtool or prometheus; skips, or fails in CI, where Debian's package is not installed."""
    found = shutil.which(name)
    if found:
        return found
    message = f"{name} is not installed: apt install prometheus"
    if os.environ.get("QWENHOST_REQUIRE_ENGINE"):
        pytest.fail(message)
    pytest.skip(message)


def filled(text: str) -> str:
    """Rules with the chart's words in their places."""
    for word, value in WORDS.items():
        text = text.replace(word, value)
    return text


def rules_text() -> str:
    """The one file of alerts."""
    return filled((CHART_FILES / "alerts" / "engine.yaml").read_text())
