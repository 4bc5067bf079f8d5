"""In which order the campaign measures, and what of it fits into the time there is.

Each piece is one start of the engine with what is measured on it. The order is by worth: what nobody can
know without the GPU comes first, repetitions of a start last. Seconds are allowances, not measurements;
the first start of a checkpoint compiles (torch.compile, CuTe DSL, DeepGEMM), the later ones find that in
the cache that ``--out`` keeps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import memory
import serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COLD_START_S, START_S = 210.0, 120.0
TRANSFER_S = 45.0
"""Allowed for one call that only carries a piece of the bundle."""
MACHINE_S = 120.0
"""Allowed for the machine's own start."""
UNPACK_S = 60.0
CALL_S = 560.0
"""Of one call, so that it ends by itself before its limit of 600 s."""


class Piece(NamedTuple):
    """One start and its measurements."""

    step: str
    key: str
    start_s: float
    measure_s: float
    why: str

    @property
    def name(self) -> str:
        """As in the results' file names."""
        return f"{self.step} {self.key}"

    @property
    def needs_s(self) -> float:
        """All of it."""
        return self.start_s + self.measure_s


def pieces() -> tuple[Piece, ...]:
    """All of the campaign, what is worth most first."""
    return (
        Piece("preflight", "result", 0, 115, "imports, compilers, drivers; decides on fall-backs"),
        Piece("step_times", "gptq-int4", COLD_START_S, 230, "decode, prefill, memory; probe agreement"),
        Piece("step_times", "fp8", COLD_START_S, 90, "decode, prefill, memory"),
        *(_memory(name) for name in FIRST_STARTS),
        Piece("serving", "chat-plan", COLD_START_S, 150, "goodput of our flags (MTP: compiles anew)"),
        Piece("serving", "chat-defaults", START_S, 150, "goodput of vLLM's defaults"),
        *(
            Piece("serving", f"{preset}-{flags}", START_S, 150, "goodput")
            for flags in ("plan", "defaults")
            for preset in serving.PRESETS[1:]
        ),
        *(Piece("serving", f"{preset}-recipe", START_S, 150, "goodput") for preset in serving.PRESETS),
        *(_memory(name) for name in memory.STARTS if name not in (*FIRST_STARTS, *LAST_STARTS)),
        *(_memory(name) for name in LAST_STARTS),
        Piece("agreement", "result", START_S, 110, "where step_times had no time for it"),
        Piece("verdict", "result", 0, 10, "needs no GPU: also possible elsewhere"),
    )


FIRST_STARTS = ("int4-kv-fp8", "int4-prefix")
"""What the starts of step_times leave open most: another KV type, another block layout."""
LAST_STARTS = ("int4", "fp8")
"""As step_times starts them, but for the number of sequences and the context."""


def _memory(name: str) -> Piece:
    return Piece("memory", name, START_S, 5, "memory of a start")


class Call(NamedTuple):
    """What one call on the machine does."""

    title: str
    seconds: float
    pieces: tuple[Piece, ...]


def calls(budget_s: float, bundle_pieces: int, todo: Sequence[Piece]) -> Iterator[Call]:
    """The calls of a lease, in order, until its time is used up; what does not fit is left out.

    A piece that does not fit into the rest of a call begins the next one; smaller ones overtake it only
    where the lease has no time for it.
    """
    left = budget_s - MACHINE_S
    for number in range(bundle_pieces):
        last = number == bundle_pieces - 1
        seconds = TRANSFER_S + (UNPACK_S if last else 0)
        left -= seconds
        yield Call(f"carry site.{number:02}{', unpack' if last else ''}", seconds, ())
    queue = list(todo)
    while queue:
        taken, room = list[Piece](), min(left, CALL_S)
        while queue and queue[0].needs_s <= room:
            taken.append(queue.pop(0))
            room -= taken[-1].needs_s
        if not taken:  # The lease's end. Half of a serving pair says nothing; each start's memory does.
            for piece in [piece for piece in queue if piece.step == "memory"]:
                if piece.needs_s <= room:
                    taken.append(piece)
                    room -= piece.needs_s
            queue = []
        if not taken:
            return
        seconds = sum(piece.needs_s for piece in taken)
        left -= seconds
        yield Call("all" if queue else "memory --fill", seconds, tuple(taken))


def table(budget_s: float, bundle_pieces: int, todo: Sequence[Piece]) -> str:
    """The schedule as text, with what is left out."""
    at = MACHINE_S
    lines = [f"{'from':>6} {'s':>5}  what", f"{0:6.0f} {MACHINE_S:5.0f}  the machine starts"]
    done = set[str]()
    for number, call in enumerate(calls(budget_s, bundle_pieces, todo), 1):
        lines.append(f"{at:6.0f} {call.seconds:5.0f}  call {number}: {call.title}")
        lines += [f"{'':6} {piece.needs_s:5.0f}    {piece.name}: {piece.why}" for piece in call.pieces]
        done |= {piece.name for piece in call.pieces}
        at += call.seconds
    lines.append(f"{at:6.0f} of {budget_s:.0f} s allowed for")
    rest = [piece.name for piece in todo if piece.name not in done]
    return "\n".join([*lines, f"left for another lease: {', '.join(rest) or 'nothing'}"])
