"""A plan as something to run: argv, config file, environment, container, unit, chart values. Pure."""

from __future__ import annotations

from qwenhost.render.argv import vllm_argv

__all__ = ["vllm_argv"]
