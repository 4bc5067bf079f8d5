"""What every command prints with ``--json`` is what the reference says of it."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import fuzz_documents as real
import jsonschema_rs
import pytest
from fuzz_run import HOME, SCHEMAS, VALIDATORS, ran

if TYPE_CHECKING:
    from pathlib import Path

LOGS = real.TESTS / "logs"
PRINTED: list[tuple[str, tuple[str, ...], str]] = [
    ("plan", ("plan", *real.NODE), "plan/1"),
    ("plan, explained", ("plan", *real.NODE, "--explain", "--top", "2"), "plan/1"),
    ("plan with adapters' room", ("plan", *real.NODE, "--max-loras", "2"), "plan/1"),
    ("plan, pinned", ("plan", "--gpus", "8xH100", "-tp", "4", "--num-speculative-tokens", "2"), "plan/1"),
    ("inspect", ("inspect", *real.NODE), "node/1"),
    ("compare", ("compare", *real.NODE), "comparison/1"),
    ("compare a plan", ("compare", "--plan", "PLAN", "--requests-per-day", "90000"), "comparison/1"),
    ("compare a run", ("compare", "--plan", "PLAN", "--measurements", "MEASUREMENTS"), "comparison/1"),
    ("compare, owned", ("compare", *real.NODE, "--own"), "comparison/1"),
    ("compare, batch", ("compare", *real.NODE, "--batch", "--web-searches", "1"), "comparison/1"),
    ("report", ("report", "COMPARISON"), "comparison/1"),
    ("advise", ("advise", *real.NODE, "--coding", "--privacy"), "advice/1"),
    ("cost", ("cost", "--workload", "chat"), "cost/1"),
    ("cost of usage", ("cost", "--usage", "USAGE"), "cost/1"),
    ("simulate", ("simulate", *real.NODE, "--requests", "30", "--rate", "4"), "simulation/1"),
    ("simulate in a loop", ("simulate", "--plan", "PLAN", "--requests", "9", "--concurrency", "2"),
     "simulation/1"),
    (
        "simulate a fleet",
        ("simulate", *real.NODE, "--replicas", "2", "--rate", "2", "--days", "0.01"), "fleet/1",
    ),
    (
        "find a fleet",
        ("simulate", *real.NODE, "--replicas", "1..2", "--rate", "2", "--days", "0.01", "--find-fleet"),
        "fleet_search/1",
    ),
    ("find a rate", ("simulate", *real.NODE, "--slo", "ttft=3000,tpot=60", "--requests", "60"),
     "rate_search/1"),
    ("a run anew", ("probe", "--from-records", "RECORDS"), "measurements/1"),
    ("render", ("render", "PLAN", "-f", "compose"), "render/1"),
    ("calibrate", ("calibrate", "--plan", "PLAN", "MEASUREMENTS", "--dry-run"), "calibration/1"),
    ("completion", ("completion", "fish"), "completion/1"),
    ("k8s plan", ("k8s", "plan", "NODES"), "k8s-plan/1"),
    ("k8s check", ("k8s", "check", str(real.TESTS / "kubernetes" / "application.yaml")), "k8s-check/1"),
    ("status", ("status", "fuzzed"), "service/1"),
]  # fmt: skip
USAGE = b'{"input_tokens": 900, "output_tokens": 120}\n{"input_tokens": 90, "output_tokens": 12}\n'


def placed(word: str) -> str:
    """Names in capitals are files with a real document."""
    if not (word.isupper() and word.isalpha()):
        return word
    path = HOME / f"schemas-{word.lower()}.json"
    if not path.exists():
        if word == "USAGE":
            path.write_bytes(USAGE)
        elif word == "RECORDS":
            path.write_text("".join(json.dumps(row) + "\n" for row in real.records()))
        else:
            path.write_text(json.dumps(getattr(real, word.lower())()))
    return str(path)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state folder with one service that has ended."""
    (tmp_path / "fuzzed").mkdir()
    (tmp_path / "fuzzed" / "state.json").write_text(json.dumps(real.service()))
    monkeypatch.setenv("QWENHOST_STATE_DIR", str(tmp_path))


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(("argv", "schema"), [row[1:] for row in PRINTED], ids=[row[0] for row in PRINTED])
def test_a_document_is_as_the_reference_says(argv: tuple[str, ...], schema: str) -> None:
    """``ran`` holds it against the schema; here: that it names that schema, and prints nothing else."""
    code, out, _ = ran(*map(placed, argv), "--json")
    assert code in (0, 5)
    value = json.loads(out)
    assert value["schema"] == f"qwenhost.{schema}"
    VALIDATORS[value["schema"]].validate(value)


def test_saved_documents_are_as_printed() -> None:
    """What --save writes holds the same schema: plan, comparison, fleet, measurements, sweep."""
    for value in (real.plan(), real.comparison(), real.fleet(), real.measurements(), real.probed()["sweep"]):
        VALIDATORS[value["schema"]].validate(value)
    assert real.probed()["sweep"]["schema"] == "qwenhost.sweep/1"


def test_states_are_as_the_reference_says() -> None:
    """Of services, tunings and token counts."""
    for value in (real.service(), real.tuning(), real.token_counts()):
        VALIDATORS[value["schema"]].validate(value)


@pytest.mark.parametrize("name", sorted(VALIDATORS))
def test_a_schema_refuses_what_is_not_its_document(name: str) -> None:
    """An empty object lacks what is required; a list is no object: no schema lets everything through."""
    validator = VALIDATORS[name]
    assert not validator.is_valid({})
    assert not validator.is_valid([])
    assert not validator.is_valid({"schema": name})


def test_every_schema_of_the_reference_is_held_by_a_test() -> None:
    """A new document needs a row above or in the tests of states."""
    printed = {f"qwenhost.{row[2]}" for row in PRINTED}
    states = {value["schema"] for value in (real.service(), real.tuning(), real.token_counts())}
    # plan --check is read in test_a_checked_log; a sweep is saved by a probe.
    others = {"qwenhost.check/1", "qwenhost.sweep/1"}
    assert set(VALIDATORS) == printed | states | others


def test_a_checked_log() -> None:
    """A start of vLLM on one H200 node against the prediction."""
    logs = sorted((LOGS / "assembled").glob("*.log"))
    found = 0
    for log in logs:
        code, out, _ = ran("plan", "--gpus", "2xH200", "--check", str(log), "--json")
        if code == 0:
            value: dict[str, Any] = json.loads(out)
            VALIDATORS["qwenhost.check/1"].validate(value)
            found += 1
    assert found


def test_the_page_lists_every_schema() -> None:
    """docs/reference/json.md names each file, and each file its title."""
    page = (SCHEMAS.parent / "json.md").read_text()
    for file in SCHEMAS.glob("*.json"):
        title = json.loads(file.read_text())["title"]
        assert f"[`{title}`](schemas/{file.name})" in page
        assert file.stem == title.removeprefix("qwenhost.").replace("/", "-")


def test_commands_without_a_schema_print_json_all_the_same(tmp_path: Path) -> None:
    """Lists and small objects; what they hold is said in their own tests."""
    shutil.copy(real.TESTS / "data" / "configs" / "qwen3.5-122b-a10b.json", tmp_path / "config.json")
    for argv in (("profiles", "list"), ("profiles", "list", "gpus"), ("profiles", "show", "h200-sxm"),
    ("status",),
                 ("profiles", "check"), ("profiles", "schema", "gpus"), ("doctor",)):  # fmt: skip
        code, out, _ = ran(*argv, "--json")
        assert code in (0, 2, 4), argv
        assert code == 2 or isinstance(json.loads(out), dict | list)


def test_a_broken_document_is_told_from_a_good_one() -> None:
    """The validator is no rubber stamp: one figure turned into null is found, and its place named."""
    plan = json.loads(json.dumps(real.plan()))
    plan["chosen"]["estimate"]["ttft_ms"]["value"] = None
    with pytest.raises(jsonschema_rs.ValidationError, match="null") as caught:
        VALIDATORS["qwenhost.plan/1"].validate(plan)
    assert list(caught.value.instance_path)[:3] == ["chosen", "estimate", "ttft_ms"]
