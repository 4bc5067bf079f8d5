"""NVML through NVIDIA's own binding: one session, GPUs one by one, errors in words."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
import pynvml

from qwenhost.errors import UnavailableError
from qwenhost.node import Gpu, GpuProcess, match_gpu_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qwenhost.facts import GpuSpec

DESCRIBE = "Describe the hardware instead, for example: --gpus 2xH200."


class NoGpuError(UnavailableError):
    """There is no NVIDIA GPU for this process; nothing is broken."""

    kind = "no_gpu"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU that NVML lists; ``fault`` says why it cannot be read."""

    index: int
    handle: Any = None
    uuid: str = ""
    pci_address: str = ""
    fault: UnavailableError | None = None


@dataclass(frozen=True, slots=True)
class HostMemory:
    """RAM, for GPUs that share it."""

    total_bytes: int
    available_bytes: int


# NVML error -> what it means for the machine, and the next step.
_FAULTS: Final[dict[int, tuple[str, str]]] = {
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
        "the NVIDIA driver is not loaded",
        "Look at `nvidia-smi` and `dmesg`; install the driver or run `modprobe nvidia`.",
    ),
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the driver's library and its kernel module have different versions",
        "The driver was updated while it ran: reboot, or reload the nvidia kernel modules.",
    ),
    pynvml.NVML_ERROR_NO_PERMISSION: (
        "this process may not use the NVIDIA driver",
        "Give it access to /dev/nvidia*; in a container, start it with the GPUs (docker run --gpus all).",
    ),
    pynvml.NVML_ERROR_GPU_IS_LOST: (
        "it has fallen off the bus",
        "Look for Xid 79 in `dmesg`, then reboot; or leave it out with CUDA_VISIBLE_DEVICES.",
    ),
    pynvml.NVML_ERROR_RESET_REQUIRED: (
        "it needs a reset",
        "Stop what uses it and run `nvidia-smi --gpu-reset`; or leave it out with CUDA_VISIBLE_DEVICES.",
    ),
    pynvml.NVML_ERROR_IRQ_ISSUE: (
        "the kernel has a problem with its interrupts",
        "Look at `dmesg` for lines by NVRM; or leave it out with CUDA_VISIBLE_DEVICES.",
    ),
    pynvml.NVML_ERROR_INSUFFICIENT_POWER: (
        "its power cables are not attached",
        "Attach them; or leave it out with CUDA_VISIBLE_DEVICES.",
    ),
}
# These mean that nothing more can be learnt; any other refusal costs one figure.
_BROKEN: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
        pynvml.NVML_ERROR_GPU_IS_LOST,
        pynvml.NVML_ERROR_RESET_REQUIRED,
    }
)


@contextlib.contextmanager
def session() -> Iterator[None]:
    """NVML, initialised and shut down.

    Raises:
        NoGpuError: no NVIDIA driver is installed.
        UnavailableError: a driver is installed but does not answer.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            raise _no_driver() from error
        raise fault("NVIDIA GPUs", error) from error
    try:
        yield
    finally:
        with contextlib.suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def versions() -> tuple[str | None, str | None]:
    """Driver and CUDA version, e.g. ``("580.95.05", "13.0")``."""
    cuda = optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
    return (
        optional(pynvml.nvmlSystemGetDriverVersion),
        None if cuda is None else f"{cuda // 1000}.{cuda % 1000 // 10}",
    )


def devices() -> list[Device]:
    """Every GPU this process may open, in PCI order; one that is broken carries its fault.

    Raises:
        NoGpuError: the driver finds no GPU.
        UnavailableError: there are GPUs, but this process may open none.
    """
    count = call("NVIDIA GPUs", pynvml.nvmlDeviceGetCount)
    found = [device for index in range(count) if (device := _device(index)) is not None]
    if not count:
        driver, _ = versions()
        raise NoGpuError(f"NVIDIA driver {driver} is loaded but finds no GPU", remedy=DESCRIBE)
    if not found:
        what, remedy = _FAULTS[pynvml.NVML_ERROR_NO_PERMISSION]
        raise UnavailableError(f"{count} GPUs are present, but {what}", remedy=remedy)
    return found


def parent_of_mig(uuid: str) -> str | None:
    """UUID of the GPU that a MIG device is a slice of; None if there is no such device."""
    slice_ = optional(pynvml.nvmlDeviceGetHandleByUUID, uuid)
    parent = None if slice_ is None else optional(pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, slice_)
    return None if parent is None else optional(pynvml.nvmlDeviceGetUUID, parent)


def read_gpu(device: Device, specs: Mapping[str, GpuSpec], ram: HostMemory) -> Gpu:
    """Everything about one GPU.

    Raises:
        UnavailableError: the GPU is lost, needs a reset, or does not answer.
    """
    if device.fault:
        raise device.fault
    what, handle = f"GPU {device.index}", device.handle
    name = call(what, pynvml.nvmlDeviceGetName, handle)
    major, minor = call(what, pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    capability = float(f"{major}.{minor}")
    memory = _memory(what, handle)
    total = memory.total if memory else ram.total_bytes
    used = memory.used if memory else ram.total_bytes - ram.available_bytes
    spec = match_gpu_spec(name, total, capability, specs.values())
    if spec is None and memory is None:
        shared = [s for s in specs.values() if s.unified_memory]
        spec = next((s for s in shared if match_gpu_spec(name, s.memory_bytes, capability, [s])), None)
    mig = optional(pynvml.nvmlDeviceGetMigMode, handle, what=what)
    limit_mw = optional(pynvml.nvmlDeviceGetPowerManagementLimit, handle, what=what)
    processes = _processes(what, handle)
    return Gpu(
        index=device.index,
        name=name,
        spec=spec.id if spec else None,
        uuid=device.uuid,
        pci_address=device.pci_address,
        memory_total_bytes=total,
        memory_used_bytes=used,
        compute_capability=capability,
        mig_enabled=bool(mig and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE),
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        processes=processes or (),
        processes_hidden=processes is None,
    )


def call(what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The function's answer.

    Raises:
        UnavailableError: it has none; the message begins with ``what``.
    """
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        raise fault(what, error) from error


def optional(function: Callable[..., Any], *arguments: Any, what: str = "NVIDIA driver") -> Any:
    """The function's answer, or None where GPU, driver or our rights do not give one.

    Raises:
        UnavailableError: the GPU or the driver is broken.
    """
    try:
        return function(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _BROKEN:
            raise fault(what, error) from error
        return None


def fault(what: str, error: Any) -> UnavailableError:
    """An NVML error as ours."""
    if error.value in _FAULTS:
        meaning, remedy = _FAULTS[error.value]
    else:
        meaning, remedy = f"NVML says {str(error)!r}", "Look at `nvidia-smi` and `dmesg`."
    return UnavailableError(f"{what}: {meaning}", remedy=f"{remedy} {DESCRIBE}")


def _device(index: int) -> Device | None:
    """The GPU at an index; None where this process may not open it (a container given other GPUs)."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        pci = pynvml.nvmlDeviceGetPciInfo(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NO_PERMISSION:
            return None
        return Device(index=index, fault=fault(f"GPU {index}", error))
    return Device(index=index, handle=handle, uuid=uuid, pci_address=address_of(pci))


def address_of(pci: Any) -> str:
    """``00000000:18:00.0`` of NVML's PCI structure."""
    text = pci.busId
    return (text.decode() if isinstance(text, bytes) else str(text)).upper()


def _memory(what: str, handle: Any) -> Any:
    """NVML's figures; None for a GPU that shares the CPU's memory (GB10), which reports none of its own."""
    try:
        return pynvml.nvmlDeviceGetMemoryInfo(handle)
    except pynvml.NVMLError as error:
        if error.value == pynvml.NVML_ERROR_NOT_SUPPORTED:
            return None
        raise fault(f"{what}: memory", error) from error


def _processes(what: str, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Who holds memory on the GPU, by process id; None where NVML may not say."""
    compute = optional(pynvml.nvmlDeviceGetComputeRunningProcesses, handle, what=what)
    graphics = optional(pynvml.nvmlDeviceGetGraphicsRunningProcesses, handle, what=what)
    if compute is None:
        return None
    used: dict[int, int | None] = {}
    for process in (*compute, *(graphics or ())):
        # A process with both kinds of context is listed twice, with the same figure.
        used[process.pid] = used.get(process.pid) or process.usedGpuMemory
    return tuple(GpuProcess(pid=pid, name=_process_name(pid), used_bytes=used[pid]) for pid in sorted(used))


def _process_name(pid: int) -> str:
    try:
        return psutil.Process(pid).name()
    except (psutil.Error, ValueError, OverflowError):
        return "?"  # of another container or user, or gone meanwhile


def _no_driver() -> NoGpuError:
    amd = " An AMD GPU driver is loaded; AMD GPUs can be described but not read." if _amd_loaded() else ""
    return NoGpuError(f"no NVIDIA driver is installed here.{amd}", remedy=DESCRIBE)


def _amd_loaded() -> bool:
    return Path("/dev/kfd").exists()
