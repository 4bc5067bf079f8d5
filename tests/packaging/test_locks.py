"""The locks pin what pyproject.toml asks for, each file by its hash; image and SBOM follow them."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from packaging.requirements import Requirement
from packaging_kit import ROOT, pins, plain

if TYPE_CHECKING:
    from pathlib import Path

RUNTIME, DEVELOPMENT = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY = re.compile(r"^[A-Za-z0-9].*(?:\n .*)*", re.MULTILINE)


def required(*extras: str) -> list[Requirement]:
    """What the project asks for."""
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(("lock", "extras"), [(RUNTIME, ()), (DEVELOPMENT, ("dev", "docs", "release"))])
def test_each_requirement_is_pinned_within_its_range(lock: Path, extras: tuple[str, ...]) -> None:
    """A range that was raised, or a requirement that came, needs ``make lock``."""
    pinned = pins(lock)
    for one in required(*extras):
        versions = pinned.get(plain(one.name), set())
        assert versions, f"{lock.name} lacks {one.name}: make lock"
        assert all(version in one.specifier for version in versions), f"{one} is {versions} in {lock.name}"


@pytest.mark.parametrize("lock", [RUNTIME, DEVELOPMENT], ids=lambda path: path.name)
def test_every_pin_has_hashes_and_nothing_else_is_named(lock: Path) -> None:
    """Hashes are checked only where every entry has one; an address or a folder would be one machine's."""
    entries = ENTRY.findall(lock.read_text())
    assert len(entries) >= len(required())
    for entry in entries:
        assert "==" in entry.split("\n")[0], entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(?![0-9a-f])", entry), entry.split("\n")[0]
    text = lock.read_text()
    assert not re.search(r"://|file:|--index|--find-links|^-e|/tmp|/home", text, re.MULTILINE)
    assert "make lock" in text.splitlines()[1]


def test_tests_run_with_what_users_of_the_image_get() -> None:
    """The development lock has every pin of the other, at the same version."""
    development = pins(DEVELOPMENT)
    assert {name: development.get(name) for name in pins(RUNTIME)} == pins(RUNTIME)


def test_no_lock_brings_torch() -> None:
    """The engine pins its own."""
    for lock in (RUNTIME, DEVELOPMENT):
        assert not {"torch", "vllm", "transformers"} & set(pins(lock))
    assert not {"pytest", "mypy", "ruff"} & set(pins(RUNTIME))


def test_make_installs_by_hash() -> None:
    """What CI tests is what the locks say: no line of the Makefile lets pip choose a version."""
    recipe = (ROOT / "Makefile").read_text()
    installs = re.findall(r"-m pip install (.+)", recipe)
    assert len(installs) == 3
    for words in installs:
        assert "--require-hashes" in words or ("--no-deps" in words and "--editable ." in words), words


def test_the_image_is_built_from_the_lock() -> None:
    """Its own packages come by their hashes, into a folder of their own; it does not run as root."""
    recipe = re.sub(r"\\\n", "", (ROOT / "k8s" / "Dockerfile").read_text())
    installs = re.findall(r"pip install ([^&\n]+)", recipe)
    assert ["--require-hashes" in words or "--no-deps" in words for words in installs] == [True, True]
    assert all("--target /opt/qwenhost/lib" in words for words in installs)
    (user,) = re.findall(r"^USER (\d+):\d+$", recipe, re.MULTILINE)
    assert int(user) > 0
    assert ":latest" not in recipe
    assert not re.search(r"^ADD ", recipe, re.MULTILINE)


def test_what_the_image_copies_reaches_the_builder() -> None:
    """Each source of a COPY exists, and the ignore file lets it through."""
    allowed = {
        line[1:]
        for line in (ROOT / "k8s" / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    recipe = (ROOT / "k8s" / "Dockerfile").read_text()
    sources = [
        word
        for line in re.findall(r"^COPY (?!--from)(.+)$", recipe, re.MULTILINE)
        for word in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, source


@pytest.mark.skipif(importlib.util.find_spec("cyclonedx_py") is None, reason="no cyclonedx-bom: make install")
def test_the_sbom_lists_every_pin(tmp_path: Path) -> None:
    """CycloneDX with a package address and a hash for each; written twice, the same bytes."""
    made = []
    for name in ("one.json", "two.json"):
        program = f"{sys.executable} -W ignore -m cyclonedx_py requirements --output-reproducible"
        about = ["--pyproject", str(ROOT / "pyproject.toml"), "--mc-type", "application"]
        command = [*program.split(), *about, "--output-file", str(tmp_path / name), str(RUNTIME)]
        subprocess.run(command, check=True, capture_output=True)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    bill = json.loads(made[0])
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["name"] == "qwenhost"
    found: dict[str, set[str]] = {}
    for part in bill["components"]:
        found.setdefault(plain(part["name"]), set()).add(part["version"])
        assert part["purl"].startswith(f"pkg:pypi/{plain(part['name'])}@"), part["purl"]
        assert any(link.get("hashes") for link in part["externalReferences"])
    assert found == pins(RUNTIME)
