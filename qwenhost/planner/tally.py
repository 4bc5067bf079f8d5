"""Adding up one engine step: kernels, streams of state, fixed times."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qwenhost.plan import Bound


class StepCost(NamedTuple):
    """Where a step's time goes, in seconds."""

    hbm_s: float
    flops_s: float
    link_s: float
    host_s: float
    """Fixed times: launches, small kernels, scheduling, drafts."""
    ideal_s: float
    """Same bytes and operations at full bandwidth and full rate, and nothing else."""

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.hbm_s + self.flops_s + self.link_s + self.host_s

    def minus(self, other: StepCost) -> StepCost:
        """What this step costs beyond another; a part may shrink where another limit takes over."""
        return StepCost(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    @property
    def bound(self) -> Bound:
        """The largest share."""
        shares: list[tuple[float, Bound]] = [
            (self.hbm_s, "hbm"), (self.flops_s, "flops"), (self.link_s, "link"), (self.host_s, "host"),
        ]  # fmt: skip
        return max(shares)[1]


class Kernel(NamedTuple):
    """A kernel class at work on one rank: launches that together read ``weight_bytes``."""

    launch_s: float
    """Fixed time of all launches."""
    weight_bytes: float
    bytes_per_token: float
    flops_per_token: float
    bytes_per_s: float
    """Bandwidth reached."""
    flops_per_s: float
    """Rate reached."""
    peak_flops: float


class Tally:
    """Running totals of a step."""

    def __init__(self, exponent: float, bandwidth: float) -> None:
        self._exponent = exponent
        self._bandwidth = bandwidth
        self.hbm_s = self.flops_s = self.link_s = self.host_s = 0.0
        self._read_bytes = self._ideal_flops_s = 0.0

    @property
    def seconds(self) -> float:
        """All so far."""
        return self.hbm_s + self.flops_s + self.link_s + self.host_s

    def gemm(self, kernel: Kernel, tokens: float) -> None:
        """A dense kernel over this many tokens."""
        self.kernel(kernel, kernel.weight_bytes, kernel.flops_per_token * tokens)

    def gemms(self, kernels: Iterable[Kernel], tokens: float, times: int = 1) -> None:
        """Dense kernels over this many tokens, the lot run ``times`` over."""
        for kernel in kernels:
            self.kernel(kernel, kernel.weight_bytes, kernel.flops_per_token * tokens, times)

    def kernel(self, kernel: Kernel, read_bytes: float, flops: float, times: int = 1) -> None:
        """t0 + (memory^p + compute^p)^(1/p), the sum charged to the longer of the two; ``times`` over."""
        memory_s, compute_s = read_bytes / kernel.bytes_per_s, flops / kernel.flops_per_s
        p = self._exponent
        if memory_s >= compute_s:
            if memory_s:
                self.hbm_s += times * memory_s * (1 + (compute_s / memory_s) ** p) ** (1 / p)
        else:
            self.flops_s += times * compute_s * (1 + (memory_s / compute_s) ** p) ** (1 / p)
        self.host_s += times * kernel.launch_s
        self._read_bytes += times * read_bytes
        self._ideal_flops_s += times * flops / kernel.peak_flops

    def stream(self, read_bytes: float, efficiency: float) -> None:
        """Traffic without arithmetic worth counting."""
        self.hbm_s += read_bytes / (self._bandwidth * efficiency)
        self._read_bytes += read_bytes

    def compute(self, flops: float, flops_per_s: float, peak_flops: float) -> None:
        """Arithmetic without traffic worth counting."""
        self.flops_s += flops / flops_per_s
        self._ideal_flops_s += flops / peak_flops

    def cost(self, multiplier: float) -> StepCost:
        """The step's cost; ``multiplier`` corrects a whole GPU kind and leaves the ideal alone."""
        return StepCost(
            hbm_s=self.hbm_s * multiplier,
            flops_s=self.flops_s * multiplier,
            link_s=self.link_s * multiplier,
            host_s=self.host_s * multiplier,
            ideal_s=max(self._read_bytes / self._bandwidth, self._ideal_flops_s),
        )
