"""GPUs at one moment, from a library that answers as NVIDIA's does."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from build_stub import GPU_IS_LOST, NOT_SUPPORTED, environment, h200

if TYPE_CHECKING:
    from pathlib import Path

    from build_stub import StubGpu

TWICE = (
    "import msgspec, sys; from qwenhost.discovery.gpu_watch import GpuWatch\n"
    "with GpuWatch() as watch:\n"
    "    sys.stdout.buffer.write(msgspec.json.encode([watch.read(), watch.read()]))\n"
)


def look(library: Path, config: Path, gpus: list[StubGpu], **stub: Any) -> Any:
    """Two readings of the same watch, in a process of its own."""
    env = environment(library, gpus, config=config, **stub)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TWICE], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_figure_is_read(stub_library: Path, tmp_path: Path) -> None:
    """87 % busy at 512 of 700 W and 64 C, slowed by its power cap (bit 4) and by heat (bit 32)."""
    gpu = h200(0, used_bytes=10 * 2**30, now=(87, 512_000, 64, 4 + 32))
    first, _ = look(stub_library, tmp_path / "m", [gpu])
    assert first == [{
        "index": 0, "name": "NVIDIA H200", "memory_used_bytes": 10 * 2**30,
        "memory_total_bytes": 143_771 * 2**20, "utilisation": 0.87, "power_w": 512.0,
        "power_limit_w": 700.0, "temperature_c": 64, "slowed_by": ["power cap", "heat"], "xids": [],
        "fault": "",
    }]  # fmt: skip


def test_idle_clocks_slow_nobody(stub_library: Path, tmp_path: Path) -> None:
    """Bit 1 is an idle GPU, bit 2 clocks that somebody set."""
    first, _ = look(stub_library, tmp_path / "m", [h200(0, now=(0, 70_000, 30, 1 + 2))])
    assert first[0]["slowed_by"] == []


def test_a_fault_is_kept_once_it_was_told(stub_library: Path, tmp_path: Path) -> None:
    """NVML tells each Xid once; the watch says it at every look, for the GPU it happened on."""
    first, second = look(stub_library, tmp_path / "m", [h200(0), h200(1, xid=79)])
    assert [gpu["xids"] for gpu in first] == [[], [79]]
    assert [gpu["xids"] for gpu in second] == [[], [79]]


def test_what_a_board_does_not_say_is_missing(stub_library: Path, tmp_path: Path) -> None:
    """Rather than zero; and an older driver's name for slowed clocks will do."""
    silent = (
        "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetPowerUsage", "nvmlEventSetCreate",
        "nvmlDeviceGetCurrentClocksEventReasons",
    )  # fmt: skip
    errors = dict.fromkeys(silent, NOT_SUPPORTED)
    first, _ = look(stub_library, tmp_path / "m", [h200(0, now=(1, 1, 50, 8))], errors=errors)
    assert (first[0]["utilisation"], first[0]["power_w"], first[0]["temperature_c"]) == (None, None, 50)
    assert first[0]["slowed_by"] == ["hardware slowdown"]


@pytest.mark.parametrize("function", ["nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetMemoryInfo"])
def test_a_lost_gpu_says_so_beside_the_others(stub_library: Path, tmp_path: Path, function: str) -> None:
    """It fell off the bus; its neighbour is read."""
    lost = h200(1, errors={function: GPU_IS_LOST})
    first, _ = look(stub_library, tmp_path / "m", [h200(0), lost])
    assert first[0]["fault"] == ""
    assert "fallen off the bus" in first[1]["fault"]
