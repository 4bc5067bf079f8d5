"""Engine arguments read back from vLLM's log."""

from __future__ import annotations

from pathlib import Path

from qwenhost.launcher.logged_args import logged_arguments

LOGS = Path(__file__).parents[1] / "logs"


def test_arguments_of_a_real_log() -> None:
    """Nested ones too: two MTP draft tokens."""
    found = logged_arguments((LOGS / "vllm-0.32-cpu-engine-death.log").read_text())
    assert (found["max_model_len"], found["max_num_seqs"], found["enforce_eager"]) == (2048, 4, True)
    assert found["speculative_config"] == {"method": "mtp", "num_speculative_tokens": 2}


def test_plain_values_beside_an_object() -> None:
    """``CompilationConfig(...)`` is no literal; what stands around it is still read."""
    line = (
        "INFO 11-23 13:12:20 [a.py:1] non-default args: {'model': 'x/y', 'compilation_config': C(level=3), "
    )
    found = logged_arguments(line + "'max_num_seqs': 4, 'gpu_memory_utilization': 0.85}")
    assert found == {"model": "x/y", "max_num_seqs": 4, "gpu_memory_utilization": 0.85}


def test_no_such_line() -> None:
    """An empty mapping."""
    assert logged_arguments("nothing here") == {}
