"""The chart's README from values.yaml, the planner's reports beside the examples, the Kustomize base."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).parent.parent.parent / "k8s"
CHART = HERE / "chart"
EXAMPLES = HERE / "examples"
_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z][A-Za-z0-9]*):(?: (?P<value>.*))?$")
_REPORT = re.compile(r"^# Report: (.+)$", re.MULTILINE)


def made() -> dict[Path, str]:
    """Every page, and the manifests."""
    pages = {CHART / "README.md": chart_readme()}
    for path in sorted(EXAMPLES.glob("*.yaml")):
        pages[path.with_suffix(".report.txt")] = report(path.read_text())
    pages[HERE / "kustomize" / "base" / "manifests.yaml"] = base_manifests()
    return pages


def chart_readme() -> str:
    """The fixed parts around a table of every value."""
    head, _, tail = (HERE / "chart_readme.md").read_text().partition("<!-- values -->\n")
    rows = [f"| `{key}` | `{default}` | {text} |" for key, default, text in values()]
    return head + "| value | default | |\n|---|---|---|\n" + "\n".join(rows) + "\n" + tail


def values() -> list[tuple[str, str, str]]:
    """(path, default, description) of each value with a ``# --`` comment."""
    found: list[tuple[str, str, str]] = []
    above: list[tuple[int, str]] = []
    comment: list[str] = []
    lines = (CHART / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        text = line.strip()
        if text.startswith("# -- "):
            comment = [text.removeprefix("# -- ")]
        elif comment and text.startswith("#") and len(text) > 1:
            comment.append(text.removeprefix("# "))
        elif match := _KEY.match(line):
            indent = len(match["indent"])
            above = [one for one in above if one[0] < indent] + [(indent, match["key"])]
            if comment:
                default = match["value"] or _block(lines, number, indent)
                path = ".".join(key for _, key in above)
                found.append((path, default.replace("|", "\\|"), " ".join(comment).replace("|", "\\|")))
            comment = []
        else:
            comment = []
    return found


def _block(lines: list[str], number: int, indent: int) -> str:
    """A default written over several lines, on one."""
    inside = []
    for line in lines[number + 1 :]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        inside.append(line)
    return yaml.safe_dump(yaml.safe_load("\n".join(inside)), default_flow_style=True, width=1000).strip()


def base_manifests() -> str:
    """The chart rendered for 2xH200, without Helm's own objects."""
    settings = ("gpus=2xH200", "auth.existingSecret=qwen-keys", "tests.enabled=false")
    helm = [str(Path(sys.executable).parent / "helm"), "template", "qwen", str(CHART), "--namespace", "qwen"]
    for setting in settings:
        helm += ["--set", setting]
    rendered = subprocess.run(helm, check=True, capture_output=True, text=True).stdout
    kept = [
        line for line in rendered.splitlines() if "helm.sh/" not in line and "managed-by: Helm" not in line
    ]
    return "# Made by make docs; do not edit.\n" + "\n".join(kept) + "\n"


def report(example: str) -> str:
    """What the planner says of the GPUs that an example names, one section for each."""
    return "\n\n".join(planned(arguments) for arguments in _REPORT.findall(example))


@functools.cache
def planned(arguments: str) -> str:
    """What `qwenhost plan` says to the arguments."""
    # --gpus takes the rest of the line up to the next option: names of GPUs have blanks.
    words = shlex.split(re.sub(r"--gpus ([^-]+?)(?= --| -tp|$)", r"--gpus '\1'", arguments))
    command = [str(Path(sys.executable).parent / "qwenhost"), "plan", *words]
    surroundings = {"COLUMNS": "110", "PATH": ""}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings)
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    return f"$ qwenhost plan {shlex.join(words)}\n" + "\n".join(lines).strip() + "\n"
