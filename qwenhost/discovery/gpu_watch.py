"""What the GPUs do right now, through NVML: memory, use, power, temperature, throttling, Xid faults."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, Self

import pynvml

from qwenhost.discovery import nvml
from qwenhost.errors import UnavailableError
from qwenhost.facts import Value

if TYPE_CHECKING:
    from types import TracebackType

    from qwenhost.discovery.nvml import Device

# Reasons for lower clocks that cost speed; idle clocks and settings by the owner do not count.
_SLOWED: Final = (
    (pynvml.nvmlClocksEventReasonSwPowerCap, "power cap"),
    (pynvml.nvmlClocksEventReasonSwThermalSlowdown, "heat"),
    (pynvml.nvmlClocksEventReasonHwThermalSlowdown, "heat (hardware)"),
    (pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown, "power brake"),
    (pynvml.nvmlClocksEventReasonHwSlowdown, "hardware slowdown"),
)


class GpuReading(Value, frozen=True, kw_only=True):
    """One GPU at one moment; None where NVML does not say."""

    index: int
    name: str = ""
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    utilisation: float | None = None
    """Share of the last moments in which a kernel ran, 0 to 1."""
    power_w: float | None = None
    power_limit_w: float | None = None
    temperature_c: int | None = None
    slowed_by: tuple[str, ...] = ()
    xids: tuple[int, ...] = ()
    """NVIDIA's fault numbers since the watch began."""
    fault: str = ""
    """Why it cannot be read."""


class GpuWatch:
    """NVML held open, so that faults between two looks are seen; a context manager.

    Raises:
        UnavailableError: no NVIDIA GPU, or a driver that does not answer.
    """

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(nvml.session())
        try:
            self._devices = nvml.devices()
        except BaseException:
            self._stack.close()
            raise
        self._xids: dict[str, list[int]] = {}
        self._events = self._listen()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def read(self) -> tuple[GpuReading, ...]:
        """Every GPU this process may open, in PCI order; one that is broken says so."""
        self._take_events()
        return tuple(self._read(device) for device in self._devices)

    def _read(self, device: Device) -> GpuReading:
        xids = tuple(self._xids.get(device.uuid, ()))
        try:
            if device.fault:
                raise device.fault
            return _figures(device, xids)
        except UnavailableError as error:
            return GpuReading(index=device.index, xids=xids, fault=error.message)

    def _listen(self) -> Any:
        """An event set for Xid faults; None where NVML offers none (containers, some boards)."""
        events = nvml.optional(pynvml.nvmlEventSetCreate)
        if events is None:
            return None
        self._stack.callback(lambda: nvml.optional(pynvml.nvmlEventSetFree, events))
        for device in self._devices:
            if device.fault is None:
                with contextlib.suppress(UnavailableError):
                    nvml.optional(
                        pynvml.nvmlDeviceRegisterEvents,
                        device.handle, pynvml.nvmlEventTypeXidCriticalError, events,
                    )  # fmt: skip
        return events

    def _take_events(self) -> None:
        while self._events is not None:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._events, 0)
                uuid = pynvml.nvmlDeviceGetUUID(event.device)
            except pynvml.NVMLError:  # none is waiting
                return
            self._xids.setdefault(uuid, []).append(int(event.eventData))


def _figures(device: Device, xids: tuple[int, ...]) -> GpuReading:
    handle, what = device.handle, f"GPU {device.index}"

    def ask(name: str, *arguments: Any) -> Any:
        return nvml.optional(getattr(pynvml, name), handle, *arguments, what=what)

    memory, use = ask("nvmlDeviceGetMemoryInfo"), ask("nvmlDeviceGetUtilizationRates")
    power_mw, limit_mw = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetPowerManagementLimit")
    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:  # drivers before 535 know the same bits by another name
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return GpuReading(
        index=device.index,
        name=ask("nvmlDeviceGetName") or "",
        memory_used_bytes=memory.used if memory else None,
        memory_total_bytes=memory.total if memory else None,
        utilisation=use.gpu / 100 if use else None,
        power_w=None if power_mw is None else power_mw / 1000,
        power_limit_w=None if limit_mw is None else limit_mw / 1000,
        temperature_c=ask("nvmlDeviceGetTemperature", pynvml.NVML_TEMPERATURE_GPU),
        slowed_by=tuple(word for bit, word in _SLOWED if reasons and reasons & bit),
        xids=xids,
    )
