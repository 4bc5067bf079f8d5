"""A plan as something to run: argv, config file, environment, container, unit, chart values. Pure."""

from __future__ import annotations

from qwenhost.render.argv import vllm_argv
from qwenhost.render.formats import FORMATS, render
from qwenhost.render.target import Target

__all__ = ["FORMATS", "Target", "render", "vllm_argv"]
