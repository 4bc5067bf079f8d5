"""The simulated engine decides as vLLM's own scheduler does, step by step, for every load drawn."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

import pytest

from e2e import oracles, scheduler_loads
from e2e.scheduler_loads import Family

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

SEED = 20261123
LOADS = 80
FAMILIES = [
    Family(caching=caching, states=states, ahead=ahead)
    for caching in (False, True)
    for states in (False, True)
    for ahead in (False, True)
] + [
    Family(caching=True, states=True, ahead=False, exports=True),
    Family(caching=True, states=True, ahead=True, exports=True),
    Family(caching=False, states=True, ahead=False, drafts=1),
    Family(caching=True, states=True, ahead=False, exports=True, drafts=2),
    Family(caching=False, states=True, ahead=True, drafts=2),
    Family(caching=True, states=True, ahead=True, exports=True, drafts=1),
]


class Answered(NamedTuple):
    """One load: our steps, vLLM's, and the case both were given."""

    ours: list[dict[str, Any]]
    theirs: list[dict[str, Any]]
    case: dict[str, Any]


@pytest.fixture(scope="module")
def answered() -> dict[Family, list[Answered]]:
    """All loads in one process of the oracle, as importing vLLM takes longest."""
    rng = random.Random(SEED)  # noqa: S311 - not a secret
    runs = [
        (family, *scheduler_loads.run(scheduler_loads.draw(rng, family)))
        for family in FAMILIES
        for _ in range(LOADS)
    ]
    answers = oracles.ask("scheduler_oracle.py", [case for _, _, case in runs])
    found: dict[Family, list[Answered]] = {family: [] for family in FAMILIES}
    for (family, ours, case), theirs in zip(runs, answers, strict=True):
        found[family].append(Answered(ours, theirs, case))
    return found


@pytest.mark.parametrize("family", FAMILIES, ids=str)
def test_every_decision_is_vllms(answered: dict[Family, list[Answered]], family: Family) -> None:
    """Tokens of each request in each step, who gives way, blocks held, and prefix hits."""
    for one in answered[family]:
        for number, (ours, theirs) in enumerate(zip(one.ours, one.theirs, strict=False), start=1):
            expected = {int(name): tokens for name, tokens in theirs["scheduled"].items()}
            where = f"step {number} of {one.case}"
            assert ours["scheduled"] == expected, where
            assert ours["preemptions"] == len(theirs["preempted"]), where
            assert set(ours["preempted"]) <= set(theirs["preempted"]), where  # ended ones need no more
            for figure in ("used_blocks", "hits", "queries"):
                assert ours[figure] == theirs[figure], f"{figure}, {where}"
        assert len(one.ours) == len(one.theirs), one.case


def test_the_loads_are_hard(answered: dict[Family, list[Answered]]) -> None:
    """Among the loads of each kind are preemptions, chunked prompts and, where prefixes are cached, hits."""
    for family, found in answered.items():
        assert sum(step["preemptions"] for one in found for step in one.ours) >= LOADS // 5, family
        assert sum(max(step["scheduled"].values()) > 1 for one in found for step in one.ours) > LOADS, family
        hits = sum(one.ours[-1]["hits"] for one in found)
        assert (hits > 10 * LOADS) == family.caching, family
