"""A document of another version is refused: what it is, what is read, whose version wrote it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import fuzz_documents as real
import pytest
from fuzz_mutate import lines
from fuzz_run import ran

from qwenhost.errors import BadInputError
from qwenhost.files import require_schema
from qwenhost.launcher.state import ServiceHome
from qwenhost.node import node_from_json
from qwenhost.probe.records import read_recording
from qwenhost.simulate.fleet_result import load_fleet
from qwenhost.tuning.state import load_state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

READ_BACK: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
    "plan": (real.plan, ("render", "FILE")),
    "measurements": (real.measurements, ("compare", "--plan", "PLAN", "--measurements", "FILE")),
    "comparison": (real.comparison, ("report", "FILE")),
    "token_counts": (real.token_counts, ("compare", "--plan", "PLAN", "--token-counts", "FILE")),
    "records": (real.records, ("probe", "--from-records", "FILE")),
    "service": (real.service, ("status", "fuzzed")),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], Path]]:
    """Write a document under another schema, and say how a command reads it."""
    monkeypatch.setenv("QWENHOST_STATE_DIR", str(tmp_path / "state"))

    def placed(kind: str, schema: Any) -> tuple[list[str], Path]:
        document, argv = READ_BACK[kind]
        value = json.loads(json.dumps(document()))
        head = value[0] if isinstance(value, list) else value
        head["schema"] = schema
        file = tmp_path / "state" / "fuzzed" / "state.json" if kind == "service" else tmp_path / "document"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lines(value) if kind == "records" else json.dumps(value).encode())
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps(real.plan()))
        at = {"FILE": str(file), "PLAN": str(plan)}
        return [at.get(word, word) for word in argv], file

    return placed


@pytest.mark.parametrize("kind", READ_BACK)
def test_the_version_of_today_is_read(kind: str, place: Any) -> None:
    argv, _ = place(kind, f"qwenhost.{kind}/1")
    # Records of a run on a busy machine may be void, which is no fault of the file's.
    assert ran(*argv).code in (0, 5)


@pytest.mark.parametrize("kind", READ_BACK)
@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ("2", "Update qwenhost, which wrote it in a newer version, or make it again."),
        ("10", "Update qwenhost, which wrote it in a newer version, or make it again."),
        ("0", "An older qwenhost wrote it: make it again."),
    ],
)
def test_another_version_is_refused_with_what_to_do(kind: str, version: str, advice: str, place: Any) -> None:
    """10 is newer than 1, though "10" sorts before "2"."""
    argv, file = place(kind, f"qwenhost.{kind}/{version}")
    code, out, err = ran(*argv)
    assert (code, out) == (2, "")
    expected = f"Error: {file}: schema is 'qwenhost.{kind}/{version}', expected 'qwenhost.{kind}/1'"
    first, second, *more = err.splitlines()
    assert first == expected
    assert second.strip().startswith(advice)
    assert not more


@pytest.mark.parametrize("kind", READ_BACK)
@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ("qwenhost.else/1", "'qwenhost.else/1'"),
        (None, "None"),
        (1, "a number"),
        ([], "a list"),
        ({"a": "b"}, "an object"),
        ("x" * 5000, "a long text"),
        ("", "''"),
    ],
)
def test_what_is_no_version_is_refused_without_guessing(
    kind: str, schema: Any, shown: str, place: Any
) -> None:
    """Neither newer nor older; and what a file says at length is not repeated."""
    argv, file = place(kind, schema)
    code, _, err = ran(*argv)
    assert code == 2
    assert f"{file}: schema is {shown}, expected 'qwenhost.{kind}/1'" in err
    assert "newer" not in err
    assert "older" not in err
    assert len(err) < 500


@pytest.mark.parametrize("kind", READ_BACK)
def test_a_document_without_a_schema_is_refused(kind: str, place: Any) -> None:
    argv, file = place(kind, "qwenhost.x/1")
    file.write_bytes(b"{}\n")
    code, _, err = ran(*argv)
    assert code == 2
    assert f"schema is None, expected 'qwenhost.{kind}/1'" in err


def test_a_newer_key_under_the_same_version_names_the_key(tmp_path: Path) -> None:
    """Keys may come under the same number: an older program says which one it does not know."""
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(real.plan() | {"surprise": 1}))
    code, _, err = ran("render", str(file))
    assert code == 2
    assert "unknown field `surprise`" in err


def test_libraries_refuse_as_commands_do(tmp_path: Path) -> None:
    """A node, a fleet's run, a tuning, records and a service, each by its own reader."""
    (tmp_path / "fleet").write_text(json.dumps(real.fleet() | {"schema": "qwenhost.fleet/2"}))
    (tmp_path / "state.json").write_text(json.dumps(real.tuning() | {"schema": "qwenhost.tune/2"}))
    (tmp_path / "records").write_bytes(lines([real.records()[0] | {"schema": "qwenhost.records/2"}]))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "state.json").write_text(json.dumps(real.service() | {"schema": "qwenhost.service/2"}))
    readers: dict[str, Callable[[], object]] = {
        "fleet": lambda: load_fleet(tmp_path / "fleet"),
        "tune": lambda: load_state(tmp_path, "q"),
        "records": lambda: read_recording(tmp_path / "records"),
        "service": lambda: ServiceHome("s", root=tmp_path).read_state(),
        "node": lambda: node_from_json(b'{"schema": "qwenhost.node/2"}'),
    }
    for kind, read in readers.items():
        with pytest.raises(
            BadInputError, match=f"'qwenhost.{kind}/2', expected 'qwenhost.{kind}/1'"
        ) as caught:
            read()
        assert caught.value.remedy.startswith("Update qwenhost")


@pytest.mark.parametrize(
    ("found", "newer"),
    [
        ("a/3", True), ("a/1", False), ("a/2.1", None), ("b/3", None), ("a/", None), ("a", None),
        ("a/-1", None), ("a/²", None), (2, None), (None, None),
    ],
)  # fmt: skip
def test_which_version_is_newer(found: object, newer: bool | None) -> None:
    """Of a/2: a/3 is newer, a/1 older; what is not KIND/NUMBER is neither."""
    with pytest.raises(BadInputError) as caught:
        require_schema(found, "a/2", name="x", remedy="Go.")
    said = caught.value.remedy
    assert said.endswith("Go.")
    assert ("newer" in said, "older" in said) == (newer is True, newer is False)


def test_the_same_version_passes() -> None:
    require_schema("a/2", "a/2", name="x", remedy="Go.")
