"""The calibration that holds for one GPU: common values, then its architecture's, then its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qwenhost.facts import Basis, Calibration, GpuSpec, KernelConstants


REFIT_CONSTANTS: Final = (
    "step_time_multiplier", "flops_time_multiplier", "t_fix_s", "t_seq_s", "expert_skew_decay",
)  # fmt: skip
"""What ``qwenhost calibrate`` refits on the user's own machine, beside the acceptance of drafts."""


def is_refit(row: Calibration) -> bool:
    """Whether a row is the speed of one GPU kind, refitted by its owner: scales, and no kernels."""
    return row.gpu is not None and not row.kernels and any(name in row.constants for name in REFIT_CONSTANTS)


def nearest_refit(rows: Sequence[Calibration], vllm_version: str | None) -> Sequence[Calibration]:
    """The one of this vLLM; without it the newest that is not newer, else the oldest; none of none."""
    if not rows:
        return ()
    ordered = sorted(rows, key=lambda row: _release(row.vllm_version))
    if vllm_version is None:
        return ordered[-1:]
    not_newer = [row for row in ordered if _release(row.vllm_version) <= _release(vllm_version)]
    return not_newer[-1:] or ordered[:1]


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


class Constants(dict[str, float]):
    """Named constants, and kernel classes, looked up through the layers that apply.

    A mapping of its own kind, since a plan reads some ten thousand times from it.
    """

    def __init__(
        self, spec: GpuSpec, calibrations: Mapping[str, Calibration], vllm_version: str | None = None
    ) -> None:
        rows = [row for _, row in sorted(calibrations.items())]
        shared = [row for row in rows if row.gpu_architecture == "any" and row.gpu is None]
        same = [row for row in rows if row.gpu_architecture == spec.architecture and row.gpu is None]
        own = [row for row in rows if row.gpu == spec.id and not is_refit(row)]
        # A row of memory constants alone, as a calibrated start leaves it, says nothing of speed.
        timed = [row for row in (*same, *own) if row.kernels]
        refit = nearest_refit([row for row in rows if row.gpu == spec.id and is_refit(row)], vllm_version)
        if not timed:
            raise BadInputError(
                f"no speed calibration for GPU architecture {spec.architecture!r} ({spec.name})",
                remedy="Add one under profiles/calibration/ in a folder given with --profiles.",
            )
        self._owner = f"profiles/calibration ({spec.architecture})"
        super().__init__()
        self._kernels: dict[str, KernelConstants] = {}
        for row in (*shared, *same, *own, *refit):
            self.update(row.constants)
            self._kernels |= row.kernels
        self.calibration = [*timed, *refit][-1]

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
