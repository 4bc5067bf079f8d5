"""Load against an OpenAI-compatible or Anthropic Messages endpoint, on an absolute clock."""

from __future__ import annotations

from qwenhost.probe.config import ProbeConfig
from qwenhost.probe.load import ProbeResult, run_probe
from qwenhost.probe.traffic import Progress

__all__ = ["ProbeConfig", "ProbeResult", "Progress", "run_probe"]
