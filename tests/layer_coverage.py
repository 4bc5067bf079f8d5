"""Holds layers 0 to 3 to their bar of branch coverage, in the data that a run of the tests left behind.

Run by ``make test`` after the tests: ``python tests/layer_coverage.py [DATA_FILE]``. Ends with 1, and the
lines that no test went through, where one of those modules or packages lies below the bar.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from coverage import Coverage
from test_layers import FILES, LAYERS, PACKAGE, room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

HIGHEST_LAYER: Final = 3
LEAST_PERCENT: Final = 95.0


class Tally(NamedTuple):
    """Ways out of the branches of a file, or of several."""

    name: str
    branches: int
    taken: int
    statements: int
    run: int
    missing: tuple[str, ...] = ()
    """``path: lines`` of what was not run."""

    @property
    def percent(self) -> float:
        """The lower of branches and statements, each held alone; 100 of nothing."""
        shares = ((self.taken, self.branches), (self.run, self.statements))
        return min((100 * done / of for done, of in shares if of), default=100.0)


def tallies(files: Iterable[Path], measured: Callable[[Path], Tally]) -> list[Tally]:
    """One for each module or package of the lower layers, in the order of its layer."""
    found: dict[str, list[Tally]] = {}
    for path in files:
        if LAYERS[room(path)] <= HIGHEST_LAYER:
            found.setdefault(room(path), []).append(measured(path))
    return [
        Tally(
            name,
            sum(one.branches for one in parts),
            sum(one.taken for one in parts),
            sum(one.statements for one in parts),
            sum(one.run for one in parts),
            tuple(line for one in parts for line in one.missing),
        )
        for name, parts in sorted(found.items(), key=lambda item: (LAYERS[item[0]], item[0]))
    ]


def reader(coverage: Coverage, root: Path = PACKAGE.parent) -> Callable[[Path], Tally]:
    """What coverage's data say of a file below ``root``; one that no test imported counts as not run."""

    def measured(path: Path) -> Tally:
        _, statements, _, missing, lines = coverage.analysis2(str(path))
        ways = coverage.branch_stats(str(path)).values()
        name = path.relative_to(root).as_posix()
        return Tally(
            name,
            sum(total for total, _ in ways),
            sum(taken for _, taken in ways),
            len(statements),
            len(statements) - len(missing),
            (f"{name}: {lines}",) if lines else (),
        )

    return measured


def verdict(found: Iterable[Tally]) -> tuple[list[str], int]:
    """What to print, and the exit code."""
    lines, code = [], 0
    for one in found:
        short = one.percent < LEAST_PERCENT
        code = max(code, int(short))
        lines.append(
            f"{'below' if short else 'ok':5}  {one.name:14}  {one.taken:3} of {one.branches:3} branches, "
            f"{one.run:4} of {one.statements:4} statements, {one.percent:5.1f} %"
        )
        lines += [f"       not run: {missing}" for missing in one.missing if short]
    return lines, code


def main(data_file: str = ".coverage") -> int:
    """Print the table of the data file; 1 where something lies below the bar."""
    coverage = Coverage(data_file=data_file)
    coverage.load()
    lines, code = verdict(tallies(FILES, reader(coverage)))
    print(
        f"Branch coverage of layers 0 to {HIGHEST_LAYER}, at least {LEAST_PERCENT:.0f} % each:",
        *lines,
        sep="\n",
    )
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
