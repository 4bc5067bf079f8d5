"""Faults on demand, so that clients and supervisors can be tried against them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable

REQUEST_FAULTS: Final = {
    "slow": "the request waits two seconds before it is queued",
    "hang": "the request is never answered",
    "crash": "the engine dies as vLLM's does: 500 for everything in flight, then exit 0",
    "kill": "the process ends at once, as under the kernel's out-of-memory killer",
    "cut": "the stream ends half way, without a closing chunk",
    "429": "the request is refused as too many",
    "503": "the request is refused as overloaded",
}
# What vLLM prints before it gives up; the exit code is 1.
START_FAULTS: Final = {
    "start-oom": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 139.80 GiB of which 1.10 GiB is free.",
    "start-kv": "ValueError: To serve at least one request with the model's max seq len (262144), (6.53 GiB "
    "KV cache is needed, which is larger than the available KV cache memory (3.10 GiB). Based on the "
    "available memory, the estimated maximum model length is 120000. Try increasing "
    "`gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.",
    "start-states": "ValueError: max_num_seqs (1024) exceeds available Mamba cache blocks (256). Each decode "
    "sequence requires one Mamba cache block, so CUDA graph capture cannot proceed. Please lower "
    "max_num_seqs to at most 256 or increase gpu_memory_utilization.",
    "start-hang": "",
}


class Faults:
    """Which faults strike, drawn per request.

    Args:
        specs: ``kind`` or ``kind:probability``.
        seed: of the draws.

    Raises:
        BadInputError: unknown kind, or a probability outside 0 to 1.
    """

    def __init__(self, specs: Iterable[str] = (), *, seed: int = 0) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - a model's draws
        self._chances = dict(parse_fault(spec) for spec in specs)

    def draw(self) -> str | None:
        """The fault that strikes this request, if any."""
        for kind, chance in self._chances.items():
            if kind in REQUEST_FAULTS and self._rng.random() < chance:
                return kind
        return None

    def at_start(self) -> str | None:
        """The fault that strikes this start, if any."""
        for kind, chance in self._chances.items():
            if kind in START_FAULTS and self._rng.random() < chance:
                return kind
        return None


def parse_fault(spec: str) -> tuple[str, float]:
    """``503:0.1`` as kind and probability.

    Raises:
        BadInputError: unknown kind, or a probability outside 0 to 1.
    """
    kind, _, chance_text = spec.partition(":")
    known = {*REQUEST_FAULTS, *START_FAULTS}
    try:
        chance = float(chance_text) if chance_text else 1.0
    except ValueError:
        chance = -1.0
    if kind not in known or not 0 <= chance <= 1:
        raise BadInputError(
            f"--fault {spec!r}: expected KIND or KIND:PROBABILITY",
            remedy=f"Kinds: {', '.join(sorted(known))}; a probability lies within 0 and 1.",
        )
    return kind, chance
