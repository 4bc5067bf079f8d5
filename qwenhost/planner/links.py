"""Time of collectives between the ranks of one replica."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from qwenhost.planner.tally import positive

if TYPE_CHECKING:
    from qwenhost.facts import GpuSpec
    from qwenhost.planner.constants import Constants

KIB: Final = 1024
_CALIBRATED_RANKS: Final = (2, 4, 8)


def _one_shot_limit(ranks: int) -> float:
    """Bytes from which vLLM's kernel scatters and gathers (custom_all_reduce.cuh); two ranks never do."""
    return math.inf if ranks == 2 else 512 * KIB if ranks <= 4 else 256 * KIB


class Collective:
    """t0 by number of ranks, then the bytes over the link at the efficiency reached."""

    def __init__(self, spec: GpuSpec, constants: Constants, interconnect: str) -> None:
        if interconnect == "nvlink":
            self._kind = "nvlink"
        else:
            self._kind = "pcie" if spec.peer_to_peer else "no_p2p"
        self._constants = constants
        efficiency = constants[f"allreduce_{self._kind}_bandwidth_efficiency"]
        self._bytes_per_s = spec.link_bytes_per_s * efficiency
        self._t0_by_ranks: dict[int, float] = {}

    def all_reduce(self, size_bytes: float, ranks: int) -> float:
        """Ring all-reduce: each rank sends 2 (w-1)/w of the data."""
        if ranks == 1:
            return 0.0
        if ranks not in self._t0_by_ranks:
            self._t0_by_ranks[ranks] = self._t0(ranks)
        t0 = self._t0_by_ranks[ranks]
        two_shot_s = positive(self._two_shot_t0(ranks) - t0) * (size_bytes >= _one_shot_limit(ranks))
        return t0 + two_shot_s + 2 * (ranks - 1) / ranks * size_bytes / self._bytes_per_s

    def gather_and_scatter(self, size_bytes: float, ranks: int) -> float:
        """All-gather before and reduce-scatter after the experts of data-parallel ranks."""
        moved = 2 * (ranks - 1) / ranks * size_bytes / self._bytes_per_s
        return 2 * self._constants["nccl_collective_t0_s"] + moved

    def gather(self, size_bytes: float, ranks: int) -> float:
        """All-gather after the experts, each tensor-parallel rank having kept its share of the tokens."""
        if ranks == 1:
            return 0.0
        return self._constants["nccl_collective_t0_s"] + (ranks - 1) / ranks * size_bytes / self._bytes_per_s

    def hand_over(self, size_bytes: float) -> float:
        """One pipeline stage to the next."""
        return self._constants["nccl_collective_t0_s"] + size_bytes / self._bytes_per_s

    def _two_shot_t0(self, ranks: int) -> float:
        return self._constants.get(f"allreduce_{self._kind}_two_shot_t0_s_{ranks}", 0.0)

    def _t0(self, ranks: int) -> float:
        step = next((known for known in _CALIBRATED_RANKS if known >= ranks), _CALIBRATED_RANKS[-1])
        # Beyond the calibrated sizes and without peer-to-peer: the PCIe figure, doubled per doubling.
        name = f"allreduce_{self._kind}_t0_s_{step}"
        t0 = self._constants.get(name, self._constants[f"allreduce_pcie_t0_s_{step}"])
        return t0 * max(1.0, ranks / _CALIBRATED_RANKS[-1])
