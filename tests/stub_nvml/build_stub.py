"""Compile the stub ``libnvidia-ml.so.1`` and describe machines for it.

library = build(folder)
env = environment(library, [h200(0), h200(1)], config=folder / "machine.txt")
subprocess.run([..., "inspect", "--json"], env=env)
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOURCE = Path(__file__).with_name("nvml_stub.c")
MIB = 2**20

# Error codes of nvml.h that the tests provoke.
NOT_SUPPORTED, NO_PERMISSION, DRIVER_NOT_LOADED, GPU_IS_LOST, VERSION_MISMATCH = 3, 4, 9, 15, 18


@dataclass(frozen=True, kw_only=True)
class StubGpu:
    """A GPU as the stub reports it."""

    name: str
    uuid: str
    pci: str
    capability: tuple[int, int]
    memory_bytes: int
    used_bytes: int = 0
    power_limit_mw: int = 700_000
    now: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Utilisation in %, power in mW, temperature in C, NVML's bits of slowed clocks."""
    xid: int = 0
    mig: bool = False
    mig_uuid: str = ""
    compute: Mapping[int, int] = field(default_factory=dict)
    """Bytes by process id; -1 = not available."""
    graphics: Mapping[int, int] = field(default_factory=dict)
    nvlink_switch: int = 0
    nvlink_gpus: Mapping[int, int] = field(default_factory=dict)
    """Ports by the index of the GPU they lead to."""
    nvlink_down: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    """Code by the name of the C function."""

    def lines(self) -> list[str]:
        """The GPU in the stub's language."""
        return [
            "gpu",
            f"name {self.name}",
            f"uuid {self.uuid}",
            *([f"mig_uuid {self.mig_uuid}"] if self.mig_uuid else []),
            f"pci {self.pci}",
            f"capability {self.capability[0]} {self.capability[1]}",
            f"memory {self.memory_bytes} {self.used_bytes}",
            f"mig {int(self.mig)}",
            f"power_limit_mw {self.power_limit_mw}",
            f"now {' '.join(map(str, self.now))}",
            f"xid {self.xid}",
            *(f"compute {pid} {size}" for pid, size in self.compute.items()),
            *(f"graphics {pid} {size}" for pid, size in self.graphics.items()),
            f"nvlink_switch {self.nvlink_switch}",
            *(f"nvlink_gpu {gpu} {ports}" for gpu, ports in self.nvlink_gpus.items()),
            f"nvlink_down {self.nvlink_down}",
            *(f"error {function} {code}" for function, code in self.errors.items()),
        ]


def h200(index: int, **changes: object) -> StubGpu:
    """An H200 of an eight-GPU board: 18 ports to the switches, 143,771 MiB."""
    values: dict[str, object] = {
        "name": "NVIDIA H200",
        "uuid": f"GPU-{index}0000000-1111-2222-3333-444444444444",
        "pci": f"00000000:{0x18 + index:02X}:00.0",
        "capability": (9, 0),
        "memory_bytes": 143_771 * MIB,
        "nvlink_switch": 18,
    }
    return StubGpu(**(values | changes))  # type: ignore[arg-type]


def rtx_pro_6000(index: int, **changes: object) -> StubGpu:
    """An RTX PRO 6000 Blackwell Server Edition: no NVLink, 97,887 MiB."""
    values: dict[str, object] = {
        "name": "NVIDIA RTX PRO 6000 Blackwell Server Edition",
        "uuid": f"GPU-6000000{index}-1111-2222-3333-444444444444",
        "pci": f"00000000:{0x41 + index:02X}:00.0",
        "capability": (12, 0),
        "memory_bytes": 97_887 * MIB,
        "power_limit_mw": 600_000,
        "errors": {"nvmlDeviceGetNvLinkState": NOT_SUPPORTED},
    }
    return StubGpu(**(values | changes))  # type: ignore[arg-type]


def build(directory: Path) -> Path:
    """Compile into ``directory``; returns the library. A C compiler must be there."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    assert compiler, "the tests need a C compiler: apt install gcc"
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "libnvidia-ml.so.1"
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return library


def environment(
    library: Path,
    gpus: Sequence[StubGpu],
    *,
    config: Path,
    driver: str = "580.95.05",
    cuda: int = 13000,
    errors: Mapping[str, int] | None = None,
    topology: Mapping[tuple[int, int], int] | None = None,
    p2p: Mapping[tuple[int, int, int], int] | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """An environment in which a process finds these GPUs; writes ``config``.

    Args:
        library: what :func:`build` returned.
        gpus: in PCI order.
        config: the file to write.
        driver: version.
        cuda: version as NVML gives it, 13000 for 13.0.
        errors: code by function, whatever the GPU.
        topology: common ancestor of two GPUs, as NVML numbers it.
        p2p: status by (GPU, GPU, capability).
        environ: further variables.
    """
    lines = [f"driver {driver}", f"cuda {cuda}"]
    lines += [f"error {function} {code}" for function, code in (errors or {}).items()]
    lines += [line for gpu in gpus for line in gpu.lines()]
    lines += [f"topology {a} {b} {level}" for (a, b), level in (topology or {}).items()]
    lines += [f"p2p {a} {b} {cap} {status}" for (a, b, cap), status in (p2p or {}).items()]
    config.write_text("\n".join(lines) + "\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("CUDA_")}
    return {
        **inherited,
        "LD_LIBRARY_PATH": str(library.parent),
        "STUB_NVML_CONFIG": str(config),
        **(environ or {}),
    }
