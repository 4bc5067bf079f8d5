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
    expert_s: float = 0.0
    """Fixed time of each expert read, in all launches."""


class Stack:
    """Dense kernels that always run over the same tokens: their weights' time is known before the tokens."""

    __slots__ = ("ideal_s_per_token", "launch_s", "read_bytes", "times_s")

    def __init__(self, kernels: Iterable[Kernel]) -> None:
        rows = tuple(kernels)
        self.times_s = tuple(
            (kernel.weight_bytes / kernel.bytes_per_s, kernel.flops_per_token / kernel.flops_per_s)
            for kernel in rows
        )
        """(memory seconds, compute seconds per token) of each."""
        self.launch_s = sum(kernel.launch_s for kernel in rows)
        self.read_bytes = sum(kernel.weight_bytes for kernel in rows)
        self.ideal_s_per_token = sum(kernel.flops_per_token / kernel.peak_flops for kernel in rows)


class Tally:
    """Running totals of a step.

    Every number may be a float or a NumPy array over many steps: the equations know only arithmetic, and
    a condition is a factor of 0 or 1.
    """

    __slots__ = ("_bandwidth", "_exponent", "_ideal_flops_s", "_read_bytes",
                 "flops_s", "hbm_s", "host_s", "link_s")  # fmt: skip

    def __init__(self, exponent: float, bandwidth: float) -> None:
        self._exponent = exponent
        self._bandwidth = bandwidth
        self.hbm_s = self.flops_s = self.link_s = self.host_s = 0.0
        self._read_bytes = self._ideal_flops_s = 0.0

    @property
    def seconds(self) -> float:
        """All so far."""
        return self.hbm_s + self.flops_s + self.link_s + self.host_s

    def stack(self, stack: Stack, tokens: float, times: float = 1) -> None:
        """Dense kernels over this many tokens, the lot run ``times`` over."""
        p = self._exponent
        root = 1 / p
        for memory_s, per_token_s in stack.times_s:
            compute_s = per_token_s * tokens
            whole_s = times * (memory_s**p + compute_s**p) ** root
            by_compute_s = whole_s * (compute_s > memory_s)
            self.flops_s += by_compute_s
            self.hbm_s += whole_s - by_compute_s
        self.host_s += times * stack.launch_s
        self._read_bytes += times * stack.read_bytes
        self._ideal_flops_s += times * stack.ideal_s_per_token * tokens

    def kernel(self, kernel: Kernel, read_bytes: float, flops: float, times: int = 1) -> None:
        """t0 + (memory^p + compute^p)^(1/p), the sum charged to the longer of the two; ``times`` over."""
        memory_s, compute_s = read_bytes / kernel.bytes_per_s, flops / kernel.flops_per_s
        p = self._exponent
        whole_s = times * (memory_s**p + compute_s**p) ** (1 / p)
        by_compute_s = whole_s * (compute_s > memory_s)
        self.flops_s += by_compute_s
        self.hbm_s += whole_s - by_compute_s
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

    def cost(self, factor: float) -> StepCost:
        """The step's cost; ``factor`` corrects all but the ideal."""
        memory_s, compute_s = self._read_bytes / self._bandwidth, self._ideal_flops_s
        return StepCost(
            hbm_s=self.hbm_s * factor,
            flops_s=self.flops_s * factor,
            link_s=self.link_s * factor,
            host_s=self.host_s * factor,
            ideal_s=memory_s + positive(compute_s - memory_s),
        )


def positive(value: float) -> float:
    """The value where it is above 0, else 0; of floats and of arrays."""
    return (value + abs(value)) / 2
