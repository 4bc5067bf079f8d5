"""Which GPUs ``CUDA_VISIBLE_DEVICES`` leaves visible, by CUDA's own rules. Pure.

Rules: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_positions(
    value: str | None, uuids: Sequence[str], parent_of_mig: Callable[[str], str | None]
) -> tuple[list[int], list[str]]:
    """Positions in ``uuids`` that CUDA would enumerate, in its order, and notes for people.

    Args:
        value: the variable's value; None when it is not set, which shows every GPU.
        uuids: of the GPUs this process may open, in PCI order.
        parent_of_mig: UUID of the GPU that a ``MIG-`` UUID is a slice of, or None.

    Raises:
        BadInputError: a GPU is named twice.
    """
    if value is None:
        return list(range(len(uuids))), []
    if not value.strip():
        return [], []
    chosen: list[int] = []
    for word in value.split(","):
        position = _position(word.strip(), uuids, parent_of_mig)
        if position is None:
            # CUDA stops at the first entry that names no device; "-1" is the usual way to ask for that.
            return chosen, [] if word.strip() == "-1" else [_stopped(value, word.strip())]
        if position in chosen and not word.strip().upper().startswith("MIG-"):
            raise BadInputError(
                f"{VARIABLE}={value!r} names GPU {position} twice", remedy="Name each GPU once."
            )
        if position not in chosen:
            chosen.append(position)
    return chosen, []


def names_by_number(value: str | None) -> bool:
    """Whether the variable numbers GPUs, so that CUDA's order of them matters."""
    return value is not None and any(word.strip().isdigit() for word in value.split(","))


def _position(word: str, uuids: Sequence[str], parent_of_mig: Callable[[str], str | None]) -> int | None:
    if re.fullmatch(r"[+-]?\d+", word):
        number = int(word)
        return number if 0 <= number < len(uuids) else None
    if word.upper().startswith("MIG-"):
        parent = parent_of_mig(word)
        return uuids.index(parent) if parent in uuids else None
    if not word.upper().startswith("GPU-"):
        return None
    matching = [i for i, uuid in enumerate(uuids) if uuid.lower().startswith(word.lower())]
    return matching[0] if len(matching) == 1 else None


def _stopped(value: str, word: str) -> str:
    return f"{VARIABLE}={value!r}: {word!r} names no single GPU here; CUDA hides it and all that follow it."
