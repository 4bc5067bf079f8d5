"""Every failure text, said by a dying engine to a real supervisor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import yaml
from test_supervisor import Command, Make, running

from qwenhost.launcher.failures import classify
from qwenhost.launcher.launch import FallbackCommand

if TYPE_CHECKING:
    from qwenhost.launcher.state import ServiceHome

ROWS: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "failure_lines.yaml").read_text())
TAIL = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"


def names() -> list[str]:
    """One for each row: its kind, numbered where there are several."""
    seen: dict[str, int] = {}
    found = []
    for row in ROWS:
        seen[row["kind"]] = seen.get(row["kind"], 0) + 1
        found.append(row["kind"] + (f"-{seen[row['kind']]}" if seen[row["kind"]] > 1 else ""))
    return found


@pytest.mark.parametrize("row", ROWS, ids=names())
def test_a_fault_of_the_engine_is_answered(
    supervise: Make, stand_in: Command, home: ServiceHome, tmp_path: Path, row: dict[str, Any]
) -> None:
    """The sized fallback where one is named, another try where the fault may pass, else the end."""
    log = tmp_path / "log"
    log.write_text(f"{row['line']}\n{TAIL}\n")
    rule = classify([row["line"], TAIL], 1)
    once = {"once": str(tmp_path / "once")} if rule.transient and not rule.trigger else {}
    dying = stand_in(log=str(log), exit=1, exit_unless_flag="--changed", **once)
    changed = msgspec.structs.replace(dying, argv=(*dying.argv, "--changed"))
    fallback = FallbackCommand(trigger=row["trigger"] or "none", change="as sized", command=changed)
    supervisor, story = supervise(dying, fallbacks=(fallback,))
    if row["trigger"] or rule.transient:
        with running(supervisor):
            story.wait_for("ready")
        again = "fallback" if row["trigger"] else "restart"
        assert story.kinds[:5] == ["start", "failure", again, "start", "ready"]
    else:
        assert supervisor.run().status == "failed"
        assert story.kinds == ["start", "failure", "failed"]
    state = home.read_state()
    assert state is not None
    assert state.failure is not None
    assert (state.failure.kind, state.failure_counts) == (row["kind"], {row["kind"]: 1})
    assert row["remedy"] in state.failure.remedy
    changes = [(change.trigger, change.change) for change in state.fallbacks]
    assert changes == ([(row["trigger"], "as sized")] if row["trigger"] else [])
