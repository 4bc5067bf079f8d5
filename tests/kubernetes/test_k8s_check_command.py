"""``qwenhost k8s check`` as people and pipelines use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qwenhost.errors import BadInputError
from qwenhost.kubernetes import read_manifests

GOOD = Path(__file__).with_name("application.yaml")


def run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qwenhost.cli.main", "k8s", "check", *arguments],
        check=False, capture_output=True, text=True, input=stdin,
    )  # fmt: skip


def test_good_manifests_pass() -> None:
    """Nothing on stdout, a count on stderr."""
    done = run(str(GOOD))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "17 objects: 0 errors, 0 warnings.\n"


def test_an_error_names_file_line_object_and_path() -> None:
    """One slip of a real file, from stdin."""
    done = run("-", stdin=GOOD.read_text().replace("targetPort: http", "targetPort: api"))
    assert done.returncode == 1
    assert done.stdout.splitlines()[1:] == [
        "  qwen/Deployment/engine has no port called 'api' [target_port]",
        "  It has: http, metrics.",
    ]
    assert done.stdout.startswith("stdin:86: error: Service/qwen spec.ports[0].targetPort\n")


def test_warnings_fail_only_when_asked_to() -> None:
    """A Secret may be in the cluster already."""
    text = GOOD.read_text().replace("metadata: {name: keys}", "metadata: {name: other}")
    assert run("-", stdin=text).returncode == 0
    assert run("-", "--strict", stdin=text).returncode == 1


def test_json_holds_every_finding() -> None:
    """With what a pipeline needs to point at the line."""
    text = GOOD.read_text().replace("targetPort: http", "targetPort: api")
    document = json.loads(run("-", "--json", stdin=text).stdout)
    assert document["schema"] == "qwenhost.k8s-check/1"
    assert (document["objects"], document["errors"], document["warnings"]) == (17, 1, 0)
    assert document["findings"][0]["rule"] == "target_port"


def test_a_folder_is_one_application(tmp_path: Path) -> None:
    """What one file refers to may be in another."""
    service, pods = GOOD.read_text().split("apiVersion: v1\nkind: Service\n")
    (tmp_path / "a.yaml").write_text(service)
    (tmp_path / "b.yml").write_text("apiVersion: v1\nkind: Service\n" + pods)
    (tmp_path / "notes.txt").write_text("not a manifest")
    assert run(str(tmp_path)).returncode == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no manifest in -"),
        ("a: [", "stdin:1: not YAML"),
        ("- 1\n", "stdin:1: not a Kubernetes object: it has no kind"),
        ("a: {{ .Values.x }}\n", "stdin:1: not YAML"),
        ("a: &x [*x]\n", "stdin"),
        ("[" * 5000, "stdin"),
    ],
)
def test_what_is_no_manifest_is_one_sentence(text: str, message: str) -> None:
    """Exit code 2, and no traceback."""
    done = run("-", stdin=text)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: {message}")
    assert "Traceback" not in done.stderr


def test_a_missing_or_binary_file_is_one_sentence(tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    assert "x.yaml: not text in UTF-8" in run(str(tmp_path / "x.yaml")).stderr
    assert "none.yaml: No such file" in run(str(tmp_path / "none.yaml")).stderr


def test_lists_are_unfolded_and_lines_are_kept() -> None:
    """As kubectl prints several objects."""
    pods = "- kind: Pod\n  metadata: {name: a}\n- kind: Pod\n  metadata: {}\n"
    text = f"kind: List\napiVersion: v1\nitems:\n{pods}"
    manifests, _ = read_manifests(text, "x")
    assert [(one.title, one.root.error("r", "m").line) for one in manifests] == [
        ("Pod/a", 4),
        ("Pod/(no name)", 6),
    ]


def test_dates_and_equal_signs_are_text() -> None:
    """As Kubernetes reads them."""
    text = "kind: ConfigMap\ndata: {a: 2026-11-23, b: =}\n"
    assert read_manifests(text, "x")[0][0].body["data"] == {"a": "2026-11-23", "b": "="}


def test_an_unknown_tag_is_bad_input() -> None:
    """No object of Python is ever made."""
    with pytest.raises(BadInputError, match="not YAML"):
        read_manifests("a: !!python/object/apply:os.getcwd []\n", "x")
