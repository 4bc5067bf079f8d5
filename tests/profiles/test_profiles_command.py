"""``qwenhost profiles`` as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import msgspec
import pytest

from qwenhost.profiles import KINDS, rows_of, schema_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qwenhost.facts import Catalog

BAD = "gpus:\n- id: mine\n  memory: 80\n"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", *args],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_list_gives_every_kind(builtin: Catalog) -> None:
    """The kinds, their number of rows, the digest."""
    done = run("profiles", "list", "--json")
    found = json.loads(done.stdout)
    assert found["digest"] == builtin.digest
    assert found["kinds"] == {kind: len(rows_of(builtin, kind)) for kind in KINDS}


@pytest.mark.parametrize("kind", ["gpus", "gpu_prices", "api_prices", "assumptions"])
def test_list_of_a_kind_is_its_rows(builtin: Catalog, kind: str) -> None:
    """JSON holds the rows themselves; the table names every one of them in full."""
    rows = json.loads(run("profiles", "list", kind, "--json").stdout)
    assert rows == json.loads(msgspec.json.encode(rows_of(builtin, kind)))
    table = run("profiles", "list", kind).stdout
    assert all(row.get("id", row.get("provider")) in table for row in rows)


def test_show_by_what_people_call_it() -> None:
    """An id, a repository, an alias in other spelling, and KIND/ID."""
    found = json.loads(run("profiles", "show", "h200", "--json").stdout)
    assert [(row["kind"], row["id"]) for row in found] == [("gpus", "h200"), ("owned_gpus", "h200")]
    (only,) = json.loads(run("profiles", "show", "gpus/RTX PRO 6000", "--json").stdout)
    assert only["id"] == "rtx-pro-6000"
    (fp8,) = json.loads(run("profiles", "show", "Qwen/Qwen3.5-122B-A10B-FP8", "--json").stdout)
    assert fp8["derived"]["load_bytes"] == pytest.approx(116.06 * 2**30, rel=1e-4)
    text = run("profiles", "show", "checkpoints/fp8").stdout
    assert "repo_id: Qwen/Qwen3.5-122B-A10B-FP8" in text
    assert "as_of: " in text


def test_unknown_names_end_with_2() -> None:
    """Near names are given on stderr, stdout stays empty."""
    done = run("profiles", "show", "h20x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "h200" in done.stderr
    assert run("profiles", "list", "gpu").returncode == 2
    assert run("profiles", "schema", "gpu").returncode == 2


def test_check_tells_file_and_line(write: Callable[..., Path]) -> None:
    """A mistake ends with exit code 2 and its place, in words and in JSON."""
    folder = write(BAD)
    done = run("profiles", "check", str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    place = f"{folder / 'mine.yaml'}:3: gpus[0].memory"
    assert f"{place}: unknown key (did you mean `memory_bytes`?)" in done.stderr
    as_json = run("profiles", "check", str(folder), "--json")
    found = json.loads(as_json.stdout)
    assert (as_json.returncode, found["ok"]) == (2, False)
    assert [(m["line"], m["key"]) for m in found["mistakes"]] == [(3, "gpus[0].memory")]


def test_check_passes_on_the_built_in_profiles() -> None:
    """Without a folder the built-in profiles are checked."""
    done = run("profiles", "check", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["ok"] is True


def test_freshness_lists_old_facts() -> None:
    """Facts older than the given days are listed, oldest first; an age beyond all of them lists none."""
    old = json.loads(run("profiles", "check", "--freshness", "0", "--json").stdout)["old"]
    assert "gpu_prices/rtx-5090/runpod/on_demand" in [f"{fact['kind']}/{fact['id']}" for fact in old]
    assert [fact["as_of"] for fact in old] == sorted(fact["as_of"] for fact in old)
    assert json.loads(run("profiles", "check", "--freshness", "36500", "--json").stdout)["old"] == []


def test_freshness_without_a_number_takes_the_age_stated_for_each_kind(tmp_path: Path) -> None:
    """A rent of last year fails a scheduled job with exit code 5; a checkpoint never ages."""
    row = (
        "gpu_prices:\n- gpu: h200\n  provider: old\n  tier: on_demand\n  usd_per_gpu_hour: 1.0\n"
        "  source: {where: 'x', as_of: 2025-01-01}\n"
    )
    (tmp_path / "old.yaml").write_text(row)
    done = run("profiles", "check", str(tmp_path), "--freshness", "--json")
    assert done.returncode == 5
    found = json.loads(done.stdout)
    assert found["older_than"] == "their stated age"
    assert "h200/old/on_demand" in {fact["id"] for fact in found["old"]}
    ageing = {"gpu_prices", "api_prices", "benchmarks", "costs_per_task"}
    assert {fact["kind"] for fact in found["old"]} <= ageing


def test_profiles_option_and_variable(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """--profiles DIR and QWENHOST_PROFILES both add a folder; the option wins."""
    row = (
        "assumptions:\n- {{id: staff_fte, value: {}, low: 0, high: 9, unit: FTE, why: ours, "
        "source: {{where: us, as_of: 2026-11-01}}}}\n"
    )
    by_variable, by_option = write(row.format(2), folder="a"), write(row.format(3), folder="b")
    monkeypatch.setenv("QWENHOST_PROFILES", str(by_variable))
    (first,) = json.loads(run("profiles", "show", "staff_fte", "--json").stdout)
    shown = run("--profiles", str(by_option), "profiles", "show", "staff_fte", "--json")
    (second,) = json.loads(shown.stdout)
    assert (first["row"]["value"], second["row"]["value"]) == (2.0, 3.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_schema_takes_what_the_loader_takes(builtin: Catalog, kind: str) -> None:
    """Every built-in row satisfies the JSON Schema of its kind; a row with a strange key does not."""
    validator = jsonschema.Draft202012Validator(schema_of(kind))
    rows = msgspec.to_builtins(rows_of(builtin, kind))
    rows = json.loads(msgspec.json.encode(rows))
    validator.validate({kind: rows})
    assert not validator.is_valid({kind: [rows[0] | {"strange": 1}]})
