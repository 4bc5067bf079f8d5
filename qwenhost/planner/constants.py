"""The calibration that holds for one GPU: common values, then its architecture's, then its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.facts import Basis, Calibration, GpuSpec, KernelConstants


class Constants(dict[str, float]):
    """Named constants, and kernel classes, looked up through the layers that apply.

    A mapping of its own kind, since a plan reads some ten thousand times from it.
    """

    def __init__(self, spec: GpuSpec, calibrations: Mapping[str, Calibration]) -> None:
        rows = [row for _, row in sorted(calibrations.items())]
        shared = [row for row in rows if row.gpu_architecture == "any" and row.gpu is None]
        same = [row for row in rows if row.gpu_architecture == spec.architecture and row.gpu is None]
        own = [row for row in rows if row.gpu == spec.id]
        # A row of memory constants alone, as a calibrated start leaves it, says nothing of speed.
        timed = [row for row in (*same, *own) if row.kernels]
        if not timed:
            raise BadInputError(
                f"no speed calibration for GPU architecture {spec.architecture!r} ({spec.name})",
                remedy="Add one under profiles/calibration/ in a folder given with --profiles.",
            )
        self._owner = f"profiles/calibration ({spec.architecture})"
        super().__init__()
        self._kernels: dict[str, KernelConstants] = {}
        for row in (*shared, *same, *own):
            self.update(row.constants)
            self._kernels |= row.kernels
        self.calibration = timed[-1]

    def __missing__(self, name: str) -> float:
        """No layer defines it.

        Raises:
            BadInputError: always; names the key.
        """
        raise self._missing(f"constants.{name}")

    def kernel(self, name: str) -> KernelConstants:
        """A kernel class by name.

        Raises:
            BadInputError: no layer defines it.
        """
        try:
            return self._kernels[name]
        except KeyError:
            raise self._missing(f"kernels.{name}") from None

    @property
    def basis(self) -> Basis:
        """Predictions are modelled at best; with assumed constants they are assumed."""
        return "assumed" if self.calibration.basis == "assumed" else "modelled"

    @property
    def source(self) -> str:
        """Which calibration, for the estimate."""
        row = self.calibration
        return f"calibration {row.id} (vLLM {row.vllm_version}, {row.source.as_of.isoformat()})"

    def _missing(self, key: str) -> BadInputError:
        return BadInputError(
            f"{self._owner}: {key} is not given",
            remedy="Add it to the calibration of this GPU's architecture.",
        )
