"""What damage to documents and odd values of options brought to light, one example each."""

from __future__ import annotations

import copy
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import fuzz_documents as real
import pytest
from fuzz_mutate import lines
from fuzz_run import ran

from qwenhost.cli import main as command_line
from qwenhost.errors import BadInputError
from qwenhost.files import LARGEST, write_atomically
from qwenhost.probe.wire import parse_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LONG_NAME = "x" * 300
"""More than any file system takes."""


def changed(document: Any, place: str, value: Any) -> Any:
    """The document with another value at ``a.0.b``."""
    whole = copy.deepcopy(document)
    parent = whole
    *path, last = [int(key) if key.isdecimal() else key for key in place.split(".")]
    for key in path:
        parent = parent[key]
    parent[last] = value
    return whole


def saved(folder: Path, name: str, document: Any) -> str:
    path = folder / name
    path.write_bytes(lines(document) if isinstance(document, list) else json.dumps(document).encode())
    return str(path)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("chosen.parallelism.tensor_parallel_size", 0, ">= 1"),
        ("chosen.parallelism.data_parallel_size", -1, ">= 1"),
        ("chosen.parallelism.replicas", 0, ">= 1"),
        ("chosen.parallelism.tensor_parallel_size", None, "Expected `int`"),
        ("chosen.estimate.ttft_ms.value", 1e300, "number beyond 1e+20"),
        ("chosen.memory_per_gpu.weights_bytes", 10**30, "number beyond 1e+20"),
    ],
)
@pytest.mark.parametrize("command", [("render", "PLAN"), ("compare", "--plan", "PLAN"), ("doctor", "PLAN")])
def test_a_plan_of_no_gpus_or_of_too_many_bytes(
    tmp_path: Path, command: tuple[str, ...], place: str, value: Any, said: str
) -> None:
    """Was a division by zero, or infinity in a table. The key is named."""
    file = saved(tmp_path, "plan.json", changed(real.plan(), place, value))
    code, out, err = ran(*(file if word == "PLAN" else word for word in command))
    assert (code, out) == (2, "")
    assert f"{file}: not a plan" in err
    assert said in err
    assert f"$.{place}" in err


def test_the_largest_number_is_not_beyond_itself(tmp_path: Path) -> None:
    """A limit is tried at its edge."""
    at_edge = changed(real.plan(), "chosen.estimate.speed_of_light_fraction", LARGEST)
    assert ran("render", saved(tmp_path, "plan.json", at_edge)).code == 0


@pytest.mark.parametrize("rate", [0.0, -0.0])
def test_a_run_that_delivered_nothing_teaches_no_rate(tmp_path: Path, rate: float) -> None:
    """Was a division by zero: a relative error has no meaning where nothing was measured."""
    run = saved(tmp_path, "run.json", changed(real.measurements(), "output_tokens_per_s", rate))
    plan = saved(tmp_path, "plan.json", real.plan())
    code, out, _ = ran("calibrate", "--plan", plan, run, "--dry-run", "--json")
    assert code == 0
    figures = {row["figure"] for row in json.loads(out)["errors"]}
    assert "tpot_ms" in figures
    assert "output_tokens_per_s" not in figures


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("as_of", "1,5", "'1,5' is no date"),
        ("as_of", "2026-13-01", "'2026-13-01' is no date"),
        ("price_history.0.since", "yesterday", "'yesterday' is no date"),
        ("sensitivity.0.break_even_at_high", 1e300, "number beyond 1e+20 at `$.sensitivity[0].break_even_"),
        ("sensitivity.0.break_even_at_low", 0.0, "Expected `float` > 0.0"),
        ("curve.0.requests_per_day", -5.0, "Expected `float` > 0.0"),
        ("curve.0.requests_per_day", 0, "Expected `float` > 0.0"),
        ("hardware_options.0.break_even_requests_per_day", 0.0, "Expected `float` > 0.0"),
        ("api", [], "`$.api` names no price"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["text", "--html", "--csv", "--json"])
def test_a_comparison_that_cannot_be_drawn(
    tmp_path: Path, place: str, value: Any, said: str, form: str
) -> None:
    """Logarithms of nothing, days that are none, an axis to infinity; no page is begun."""
    file = saved(tmp_path, "comparison.json", changed(real.comparison(), place, value))
    output = tmp_path / "out"
    more = {"text": (), "--json": ("--json",)}.get(form, (form, str(output)))
    code, out, err = ran("report", file, *more)
    assert (code, out) == (2, "")
    assert f"{file}: not a comparison: " in err
    assert said in err
    assert not output.exists()


@pytest.mark.parametrize("place", ["output_ratio.value", "input_ratio.value", "input_ratio.low"])
@pytest.mark.parametrize("value", [0, -0.0, -1.2])
def test_ratios_of_tokens_are_above_nothing(tmp_path: Path, place: str, value: float) -> None:
    """Was a division by zero in the API's bill."""
    file = saved(tmp_path, "counts.json", changed(real.token_counts(), place, value))
    code, _, err = ran("compare", *real.NODE, "--token-counts", file)
    assert code == 2
    assert f"{file}: not a file of token counts: Expected `float` > 0.0 - at `$." in err


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("sent_s", 1.7e308, "<= 1000000000000.0"),
        ("scheduled_s", -1e300, ">= -1000000000000.0"),
        ("token_times_s", [1.7e308], "<= 1000000000000.0"),
        ("index", -1, ">= 0"),
        ("index", 2**53 + 1, "<= 999999999"),
    ],
)
@pytest.mark.parametrize("how", ["--from-records", "--resume"])
def test_records_beyond_any_run(tmp_path: Path, how: str, key: str, value: Any, said: str) -> None:
    """Was infinity among percentiles, and a set of requests with a byte for each of 2^53."""
    rows = changed(real.records(), f"2.{key}", value)
    code, _, err = ran("probe", how, saved(tmp_path, "run.jsonl", rows))
    assert code == 2
    assert "run.jsonl, line 3: Expected" in err
    assert said in err


def test_half_a_character_in_a_manifest(tmp_path: Path) -> None:
    """YAML can escape half of a surrogate pair, which no UTF-8 holds: was an exception while printing."""
    file = tmp_path / "m.yaml"
    file.write_text('kind: Service\napiVersion: v1\nmetadata: {name: "a\\ud800"}\n')
    for more in ((), ("--json",)):
        code, out, err = ran("k8s", "check", str(file), *more)
        assert (code, out) == (2, "")
        assert f"{file}:1: a text holds half of a surrogate pair" in err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("k8s", "check", LONG_NAME), "File name too long"),
        (("profiles", "import", f"./{LONG_NAME}", "--offline"), "no such folder"),
        (("render", LONG_NAME), "File name too long"),
        (("report", LONG_NAME), "File name too long"),
        (("plan", *real.NODE, "--save", LONG_NAME), "File name too long"),
    ],
)
def test_names_that_no_file_has(argv: tuple[str, ...], said: str) -> None:
    code, _, err = ran(*argv)
    assert code == 2
    assert said in err


@pytest.mark.parametrize("host", ["\u2028", "a..b", "x" * 300])
def test_names_that_no_host_has(host: str) -> None:
    """The socket's own encoding gives up on them with a TypeError."""
    code, out, _ = ran("doctor", "--host", host, "--json")
    assert code == 4
    (check,) = [one for one in json.loads(out) if one["name"] == "port"]
    assert check["status"] == "fail"
    assert "cannot listen on" in check["detail"]


@pytest.mark.parametrize(
    ("url", "host", "prefix"),
    [
        ("http://m\u00fcnchen.example:8000/v1", "xn--mnchen-3ya.example", ""),
        ("http://127.0.0.1:1/\u65e5\u672c/v1", "127.0.0.1", "/%E6%97%A5%E6%9C%AC"),
        ("http://127.0.0.1:1/a b", "127.0.0.1", "/a%20b"),
        ("http://127.0.0.1:1/a%20b", "127.0.0.1", "/a%20b"),
    ],
)
def test_addresses_in_other_scripts(url: str, host: str, prefix: str) -> None:
    """As browsers send them: punycode (RFC 3492), UTF-8 in per cent; was an exception while sending."""
    target = parse_url(url)
    assert (target.host, target.prefix) == (host, prefix)


@pytest.mark.parametrize("url", ["http://a\u3002\u3002b", "http://" + "\u00e9" * 80])
def test_addresses_that_have_no_other_form(url: str) -> None:
    with pytest.raises(BadInputError, match="is not a URL"):
        parse_url(url)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setenv("QWENHOST_STATE_DIR", str(tmp_path))

    def write(**changes: Any) -> None:
        (tmp_path / "fuzzed").mkdir(exist_ok=True)
        (tmp_path / "fuzzed" / "state.json").write_text(json.dumps(real.service() | changes))

    return write


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999", "http://127.0.0.1:x"])
def test_the_state_of_a_service_at_no_address(service: Callable[..., None], url: str) -> None:
    service(base_url=url)
    for argv in (("status",), ("top", "fuzzed", "--once"), ("stop", "fuzzed")):
        code, _, err = ran(*argv)
        assert code == 2
        assert "state.json: not a service state: " in err
        assert "`$.base_url`" in err


def test_the_certificate_of_a_service_is_gone(service: Callable[..., None], tmp_path: Path) -> None:
    """Was an exception of the ssl module."""
    service(ssl_certfile=str(tmp_path / "gone.pem"))
    code, _, err = ran("top", "fuzzed", "--once")
    assert code == 4
    assert "gone.pem: No such file or directory" in err


@pytest.mark.parametrize("value", ["1e308", "1e7"])
def test_more_staff_than_people(value: str) -> None:
    """Was an overflow in the break-even."""
    code, _, err = ran("advise", *real.NODE, f"--staff-fte={value}")
    assert code == 2
    assert "--staff-fte" in err


def test_outputs_go_through_links(tmp_path: Path) -> None:
    """The link stays, its target is replaced; a link to nothing makes its target."""
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("new")
    write_atomically(tmp_path / "link", "1")
    write_atomically(tmp_path / "dangling", "2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "1"
    assert (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "new").read_text() == "2"


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    code, _, err = ran("plan", *real.NODE, "--save", str(tmp_path / "a"))
    assert code == 2
    assert "cannot write: its links lead in a circle" in err
    assert (tmp_path / "a").is_symlink()


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    """A rename put a file in its place; for root that ended /dev/null and /dev/full."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"plan")
    reader.join(timeout=30)
    assert read == [b"plan"]
    assert pipe.is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_fault_of_ours_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last net: kind, words and place; with --debug the exception itself."""

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("by\nnothing")

    monkeypatch.setattr("qwenhost.node.parse_gpus", broken)
    monkeypatch.setattr("qwenhost.cli.wiring.parse_gpus", broken)
    assert command_line.run(["plan", *real.NODE]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    first, second = err.splitlines()
    assert first.startswith("Error: a fault of qwenhost's own: ZeroDivisionError: by nothing (")
    assert "--debug" in second
    with pytest.raises(ZeroDivisionError):
        command_line.run(["--debug", "plan", *real.NODE])


def test_a_report_writes_all_its_files_or_none(tmp_path: Path) -> None:
    """The page was written before the folder of tables was refused."""
    page = tmp_path / "page.html"
    page.write_text("kept")
    comparison = saved(tmp_path, "comparison.json", real.comparison())
    code, out, err = ran("report", "--json", "--csv", f"{comparison}/x", "--html", str(page), comparison)
    assert (code, out) == (2, "")
    assert f"--csv {comparison}/x: Not a directory" in err
    assert page.read_text() == "kept"


def test_a_folder_that_cannot_be_one_of_manifests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``k8s check /`` read the whole disk."""
    monkeypatch.setattr("qwenhost.cli.k8s_check._MOST_FILES", 10)
    for i in range(11):
        (tmp_path / f"{i}.txt").touch()
    code, out, err = ran("k8s", "check", "--json", str(tmp_path))
    assert (code, out) == (2, "")
    assert f"{tmp_path}: more than 10 files, no folder of manifests" in err


def test_a_name_that_is_half_a_character_is_refused_in_writing(tmp_path: Path) -> None:
    """The refusal of k8s init goes to a file, too, which is UTF-8."""
    log = tmp_path / "log"
    code, _, err = ran(
        "k8s", "init", "--request", "\udcff", "--output", str(tmp_path / "o"), "--termination-log", str(log)
    )
    assert code == 2
    assert "\\udcff" in err
    assert "\\udcff" in log.read_text()


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("chosen.parallelism.replicas", 10**9, "Expected `int` <= 1024 - at `$.chosen.parallelism.replicas`"),
        ("chosen.parallelism.data_parallel_size", 1025, "Expected `int` <= 1024"),
        ("chosen.estimate.speed_of_light_fraction", 1e-320, "number below 1e-100 at `$.chosen.estimate."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("render", "--format", "compose"), ("simulate", "--plan")])
def test_a_plan_of_layouts_without_end(
    tmp_path: Path, command: tuple[str, ...], place: str, value: Any, said: str
) -> None:
    """A list of a thousand million engines was written; a quotient by almost nothing is infinite."""
    file = saved(tmp_path, "plan.json", changed(real.plan(), place, value))
    code, out, err = ran(*command, file)
    assert (code, out) == (2, "")
    assert f"{file}: not a plan" in err
    assert said in err


@pytest.mark.parametrize("day", ["0", "1,5", "2026-02-31"])
def test_a_price_of_no_day(tmp_path: Path, day: str) -> None:
    """Its age cannot be told."""
    file = saved(tmp_path, "plan.json", changed(real.plan(), "inputs.gpu_price.as_of", day))
    code, out, err = ran("compare", "--plan", file)
    assert (code, out) == (2, "")
    assert f"GPU price: {day!r} is no date" in err


def test_an_offer_that_the_curve_does_not_have(tmp_path: Path) -> None:
    """Drawing it ended in a KeyError."""
    file = saved(tmp_path, "comparison.json", changed(real.comparison(), "api.1.id", " "))
    code, _, err = ran("report", file, "--html", str(tmp_path / "page.html"))
    assert code == 2
    assert f"{file}: not a comparison: `$.curve[0].api` has no ' '" in err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("compare", "--gpus", "2xH200", "--volume", "1e308"), "'1e308' is beyond 1e+12."),
        (("advise", "--gpus", "2xH200", "--available-kv-gib", "1e300"), "'1e300' is beyond 1e+12."),
        (("advise", "--gpus", "2xH200", "--gpu-price=1e308"), "'1e308' is beyond 1e+12."),
        (("doctor", "--host=\udcff"), "'\\udcff': bytes that are no text in UTF-8"),
        (("plan", "--gpus", "2xH200", f"--why-not={'x' * 9000}"), f"{'x' * 60!r} is no checkpoint and no"),
    ],
)  # fmt: skip
def test_values_beyond_reason(argv: tuple[str, ...], said: str) -> None:
    """Were faults of ours, dollars without end, or a screenful of what had been typed."""
    code, out, err = ran(*argv)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err) < 600
