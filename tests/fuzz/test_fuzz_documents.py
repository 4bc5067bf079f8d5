"""Every document that a command reads back, damaged with its structure in mind, given to that command."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import fuzz_documents as real
import pytest
import yaml
from fuzz_kit import fuzzed
from fuzz_mutate import damage, lines
from fuzz_run import BEFORE, HOME, check_output, ran
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

GPUS = real.NODE
URL = "http://127.0.0.1:1"


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump_all(value if isinstance(value, list) else [value]).encode("utf-8", "replace")


class Reader(NamedTuple):
    """A document and a command line that reads it from FILE; GOOD-x is an undamaged x, OUT.x an output."""

    document: Callable[[], Any]
    argv: tuple[str, ...]
    encode: Callable[[Any], bytes] | None = None
    file: str = "fuzzed.json"
    may_start: bool = False


READERS = {
    "render": Reader(real.plan, ("render", "FILE", "-f", "argv")),
    "render config": Reader(real.plan, ("render", "FILE", "-f", "config", "-o", "OUT.yaml")),
    "render env": Reader(real.plan, ("render", "FILE", "-f", "env")),
    "render docker": Reader(real.plan, ("render", "FILE", "-f", "docker")),
    "render compose": Reader(real.plan, ("render", "FILE", "-f", "compose", "--json")),
    "render systemd": Reader(real.plan, ("render", "FILE", "-f", "systemd")),
    "render helm": Reader(real.plan, ("render", "FILE", "-f", "helm")),
    "compare a plan": Reader(real.plan, ("compare", "--plan", "FILE", "--save", "OUT.json")),
    "compare a plan, JSON": Reader(real.plan, ("compare", "--plan", "FILE", "--json")),
    "compare a plan, page": Reader(real.plan, ("compare", "--plan", "FILE", "--html", "OUT.html")),
    "advise": Reader(real.plan, ("advise", "--plan", "FILE", "--json")),
    "simulate": Reader(real.plan, ("simulate", "--plan", "FILE", "--requests", "5", "--json")),
    "simulate, table": Reader(
        real.plan, ("simulate", "--plan", "FILE", "--requests", "3", "--concurrency", "2")
    ),
    "simulate a fleet": Reader(
        real.plan, ("simulate", "--plan", "FILE", "--replicas", "2", "--rate", "1", "--days", "0.001",
        "--json")
    ),
    "serve": Reader(real.plan, ("serve", "FILE", "--model", "/nonexistent", "--force"), may_start=True),
    "doctor": Reader(real.plan, ("doctor", "FILE", "--json")),
    "calibrate under a plan": Reader(
        real.plan, ("calibrate", "--plan", "FILE", "GOOD-measurements", "--dry-run", "--json")
    ),
    "calibrate": Reader(real.measurements, ("calibrate", "GOOD-plan", "FILE", "--dry-run")),
    "compare a run": Reader(real.measurements, ("compare", "--plan", "GOOD-plan", "--measurements", "FILE")),
    "compare runs": Reader(
        real.measurements,
        ("compare", "--plan", "GOOD-plan", "--measurements", "FILE", "--measurements", "GOOD-measurements",
         "--json"),
    ),
    "advise on a run": Reader(
        real.measurements, ("advise", "--plan", "GOOD-plan", "--measurements", "FILE", "--privacy")
    ),
    "report": Reader(real.comparison, ("report", "FILE")),
    "report, JSON": Reader(real.comparison, ("report", "FILE", "--json")),
    "report, page": Reader(real.comparison, ("report", "FILE", "--html", "OUT.html")),
    "report, CSV": Reader(real.comparison, ("report", "FILE", "--csv", "OUT-csv")),
    "report two": Reader(real.comparison, ("report", "FILE", "GOOD-comparison")),
    "counts": Reader(real.token_counts, ("compare", "--plan", "GOOD-plan", "--token-counts", "FILE")),
    "records": Reader(real.records, ("probe", "--from-records", "FILE", "--json"), lines),
    "records, page": Reader(
        real.records,
        ("probe", "--from-records", "FILE", "--slo-ttft-ms", "60000", "--html", "OUT.html"), lines,
    ),
    "resume": Reader(lambda: real.records()[:-2], ("probe", "--resume", "FILE"), lines),
    "nodes": Reader(real.nodes, ("k8s", "plan", "FILE", "--json")),
    "nodes, values": Reader(real.nodes, ("k8s", "plan", "FILE", "-o", "OUT.yaml")),
    "manifests": Reader(real.manifests, ("k8s", "check", "FILE", "--json"), _yaml),
    "init": Reader(
        real.init_request,
        ("k8s", "init", "--request", "FILE", "-o", "OUT.yaml", "--termination-log", "/dev/null"),
    ),
    "calibration": Reader(
        real.calibration, ("--profiles", "FOLDER", "plan", *GPUS), file="folder/fuzzed.yaml"
    ),
    "profiles, plan": Reader(
        real.profiles, ("--profiles", "FOLDER", "plan", *GPUS, "--json"), file="folder/fuzzed.yaml"
    ),
    "profiles, compare": Reader(
        real.profiles, ("--profiles", "FOLDER", "compare", *GPUS), file="folder/fuzzed.yaml"
    ),
    "profiles, check": Reader(
        real.profiles, ("profiles", "check", "FOLDER", "--freshness", "1"), file="folder/fuzzed.yaml"
    ),
    "profiles, list": Reader(
        real.profiles, ("--profiles", "FOLDER", "profiles", "list", "--json"), file="folder/fuzzed.yaml"
    ),
    "adapter": Reader(
        real.adapter, ("plan", *GPUS, "--lora-modules", "a=FOLDER"), file="folder/adapter_config.json"
    ),
    "config": Reader(
        real.model_config, ("profiles", "import", "FOLDER", "--offline"), file="folder/config.json"
    ),
    "values": Reader(
        lambda: {"image": {"tag": "v1"}, "commonLabels": {"team": "x"}}, ("render", "GOOD-plan", "-f",
        "k8s", "--values", "FILE"),
        _yaml,
    ),
}  # fmt: skip


def words(reader: Reader) -> list[str]:
    """The command line with its files in place."""
    file = HOME / reader.file
    shutil.rmtree(HOME / "folder", ignore_errors=True)
    file.parent.mkdir(exist_ok=True)
    placed = []
    for word in reader.argv:
        if word.startswith("GOOD-"):
            good = HOME / word
            if not good.exists():
                good.write_text(json.dumps(getattr(real, word.removeprefix("GOOD-"))()))
        if word.startswith("OUT."):
            (HOME / word).write_bytes(BEFORE)
        at = {"FILE": str(file), "a=FOLDER": f"a={file.parent}", "FOLDER": str(file.parent)}
        placed.append(at.get(word, str(HOME / word) if word.startswith(("GOOD-", "OUT")) else word))
    return placed


def read(reader: Reader, data: bytes) -> None:
    """Give it to the command; outputs are as they were or whole."""
    argv = words(reader)
    (HOME / reader.file).write_bytes(data)
    code, _, err = ran(*argv, may_start=reader.may_start, given=data)
    for word in argv:
        if Path(word).name.startswith("OUT."):
            check_output(Path(word))
    assert code != 1 or reader.argv[1] == "check", err


@pytest.mark.parametrize("name", READERS)
def test_undamaged_documents_are_read(name: str) -> None:
    """Or damage would prove nothing."""
    reader = READERS[name]
    argv = words(reader)
    (HOME / reader.file).write_bytes(
        (reader.encode or (lambda value: json.dumps(value).encode()))(reader.document())
    )
    code, _, err = ran(*argv, may_start=reader.may_start)
    refused = {"serve": (2, "/nonexistent"), "resume": (4, "127.0.0.1"), "init": (4, "GPU"), "doctor": (4,
    ""),
               "config": (2, "folder"), "manifests": (0, ""), "profiles, check": (5, "")}  # fmt: skip
    expected, said = refused.get(name, (0, ""))
    assert (code, said in err) == (expected, True), err


@pytest.mark.parametrize("name", READERS)
@fuzzed(6, seed=st.integers(0, 2**64 - 1))
def test_damaged_documents(name: str, seed: int) -> None:
    reader = READERS[name]
    damaged = damage(reader.document(), seed, reader.encode)
    try:
        read(reader, damaged.data)
    except BaseException as error:
        error.add_note(repr(damaged))
        raise


SERVICE = (("status",), ("status", "fuzzed"), ("status", "--json"), ("logs", "fuzzed"), ("stop", "fuzzed"),
           ("top", "fuzzed", "--once", "--interval", "0.2"))  # fmt: skip


@pytest.mark.parametrize("argv", SERVICE, ids=" ".join)
@fuzzed(6, seed=st.integers(0, 2**64 - 1))
def test_damaged_state_of_a_service(argv: tuple[str, ...], seed: int) -> None:
    folder = Path(os.environ["XDG_STATE_HOME"]) / "qwenhost" / "fuzzed"
    folder.mkdir(parents=True, exist_ok=True)
    damaged = damage(real.service(), seed)
    (folder / "state.json").write_bytes(damaged.data)
    try:
        ran(*argv, given=damaged.data)
    except BaseException as error:
        error.add_note(repr(damaged))
        raise
    finally:
        shutil.rmtree(folder)
