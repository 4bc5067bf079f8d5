"""A plan's file with one figure that cannot be: a command says so, or goes on, and never fails of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.cli.main import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PARTS = (
    "inputs.workload_detail",
    "inputs.slo",
    "chosen.kv_cache",
    "chosen.engine_args",
    "chosen.parallelism",
)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A plan as ``--save`` writes it, with one alternative and one fallback."""
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    assert run(["plan", "--gpus", "2xH200", "--save", str(path)]) == 0
    found = json.loads(path.read_bytes())
    return found | {key: found[key][:1] for key in ("alternatives", "rejections", "fallbacks")}


def figures(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where numbers stand, and where one may stand in the place of null."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from figures(one, (*path, key))
    elif value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        yield path


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("figure", [0, -1])
def test_no_figure_of_a_plan_makes_a_command_fail_of_itself(
    document: Any, part: str, figure: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is refused as the plan's with exit code 2, or gives a result of finite figures."""
    path = tmp_path / "plan.json"
    above, name = part.split(".")
    places = list(figures(document[above][name], (above, name)))
    assert len(places) >= 3
    for place in places:
        changed = json.loads(json.dumps(document))
        at = changed
        for word in place[:-1]:
            at = at[word]
        at[place[-1]] = figure
        path.write_text(json.dumps(changed))
        code = run(["simulate", "--plan", str(path), "--requests", "3", "--rate", "1", "--json"])
        said = capsys.readouterr()
        assert code in (0, 2, 5), (place, code, said.err)
        if code == 2:
            assert said.out == ""
            assert said.err.startswith("Error: "), (place, said.err)
            assert f"{path}: " in said.err or "the plan's" in said.err, (place, said.err)
        else:
            json.loads(said.out, parse_constant=pytest.fail)  # NaN, Infinity
