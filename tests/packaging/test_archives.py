"""Wheel and source archive hold what they must, nothing else, and are the same whoever builds them."""

from __future__ import annotations

import base64
import csv
import email
import hashlib
import io
import os
import shutil
import tarfile
from typing import TYPE_CHECKING

import pytest
from packaging_kit import ROOT, Built, build, built

from qwenhost import __version__

if TYPE_CHECKING:
    from email.message import Message
    from pathlib import Path

# In the wheel, what lies elsewhere in the tree.
CARRIED = {"profiles": "qwenhost/_profiles", "k8s/chart": "qwenhost/_chart"}
INFO = f"qwenhost-{__version__}.dist-info"


@pytest.fixture(scope="module")
def files(release: Built) -> dict[str, bytes]:
    return release.wheel_files


@pytest.fixture(scope="module")
def metadata(files: dict[str, bytes]) -> Message:
    return email.message_from_bytes(files[f"{INFO}/METADATA"])


def below(folder: Path) -> dict[str, bytes]:
    """Files below a folder by their relative paths, compiled ones left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".pyc"
    }


def test_the_wheel_is_the_package_with_its_facts_and_chart(tree: Path, files: dict[str, bytes]) -> None:
    """Every file of the package, byte for byte, and none beside them."""
    wanted = {f"qwenhost/{name}": data for name, data in below(tree / "qwenhost").items()}
    for folder, place in CARRIED.items():
        wanted |= {f"{place}/{name}": data for name, data in below(tree / folder).items()}
    found = {name: data for name, data in files.items() if not name.startswith(INFO)}
    assert sorted(found) == sorted(wanted)
    assert found == wanted


@pytest.mark.parametrize(
    "name",
    [
        "qwenhost/py.typed",
        "qwenhost/_profiles/gpus.yaml",
        "qwenhost/_chart/Chart.yaml",
        "qwenhost/_chart/values.schema.json",
        "qwenhost/_chart/templates/_validate.tpl",
        "qwenhost/report/templates/report.css",
        "qwenhost/launcher/engine_side/qwenhost_key_guard.py",
        f"{INFO}/licenses/LICENSE",
    ],
)
def test_what_programs_look_for_is_there(name: str, files: dict[str, bytes]) -> None:
    """Names that code, type checkers or lawyers open; a build with other settings would lose them."""
    assert name in files


def test_record_is_true(files: dict[str, bytes]) -> None:
    """Every file is listed with its size and hash; only RECORD itself has none (PEP 376, PEP 427)."""
    rows = list(csv.reader(io.StringIO(files[f"{INFO}/RECORD"].decode())))
    assert {row[0] for row in rows} == set(files)
    for name, digest, size in rows:
        if name.endswith("RECORD"):
            assert (digest, size) == ("", "")
            continue
        made = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={made}", len(files[name])), name


def test_metadata_says_what_the_readme_says(metadata: Message) -> None:
    """Version, Python, licence and the README as the long description."""
    assert metadata["Name"] == "qwenhost"
    assert metadata["Version"] == __version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip().startswith("# qwenhost")


def test_the_base_install_is_free_of_cuda(metadata: Message) -> None:
    """Planning and comparing need no torch: what does is behind an extra."""
    requires = metadata.get_all("Requires-Dist") or []
    base = [line for line in requires if "extra ==" not in line]
    assert base
    assert not [
        line for line in base if line.startswith(("vllm", "torch", "nvidia-cu", "transformers", "tokenizers"))
    ]
    assert [line for line in requires if line.startswith("vllm") and "extra == 'vllm'" in line]
    assert set(metadata.get_all("Provides-Extra") or []) >= {"vllm", "tokenizer", "dev", "docs"}


def test_the_command_is_installed(files: dict[str, bytes]) -> None:
    assert files[f"{INFO}/entry_points.txt"].decode().split() == [
        "[console_scripts]", "qwenhost", "=", "qwenhost.cli.main:main",
    ]  # fmt: skip


def test_the_wheel_is_pure(files: dict[str, bytes], release: Built) -> None:
    """One file for every machine, without bytecode, and small enough to mail."""
    assert release.wheel.name == f"qwenhost-{__version__}-py3-none-any.whl"
    assert b"Root-Is-Purelib: true" in files[f"{INFO}/WHEEL"]
    assert not [name for name in files if name.endswith((".pyc", ".so"))]
    assert release.wheel.stat().st_size < 3_000_000


def test_the_source_archive_is_the_tree(tree: Path, release: Built) -> None:
    """From it the tests run, the pages build and the locks install, as from a clone."""
    assert set(below(tree)) | {"PKG-INFO"} == release.sdist_names - {""}


def test_no_file_of_the_source_archive_leads_out_of_it(release: Built) -> None:
    """Plain files below one folder, no links, no owner of this machine."""
    with tarfile.open(release.sdist) as archive:
        for member in archive:
            assert member.isfile() or member.isdir(), member.name
            assert member.name.startswith(f"qwenhost-{__version__}/"), member.name
            assert ".." not in member.name.split("/")
            assert (member.uid, member.gid) == (0, 0)


def test_the_wheel_from_the_source_archive_is_the_wheel_from_the_tree(release: Built, tmp_path: Path) -> None:
    """Nothing that a wheel needs is missing from the archive."""
    with tarfile.open(release.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    built(next(tmp_path.glob("qwenhost-*")), tmp_path / "out", "--wheel")
    (wheel,) = (tmp_path / "out").glob("*.whl")
    assert wheel.read_bytes() == release.wheel.read_bytes()


def test_a_second_build_gives_the_same_bytes(tree: Path, release: Built, tmp_path: Path) -> None:
    """Elsewhere, in another time zone, from files with other times, rights and order of creation."""
    copy = shutil.copytree(tree, tmp_path / "somewhere" / "else")
    for path in sorted(copy.rglob("*"), reverse=True):
        if path.is_file():
            path.chmod(0o600 | (path.stat().st_mode & 0o100))
            os.utime(path, (1_500_000_000, 1_500_000_000))
    again = build(copy, tmp_path / "out", TZ="Asia/Kathmandu", PYTHONHASHSEED="7")
    assert again.wheel.read_bytes() == release.wheel.read_bytes()
    assert again.sdist.read_bytes() == release.sdist.read_bytes()


def test_the_version_stands_in_one_place(metadata: Message) -> None:
    """Code and archives have it from ``qwenhost/__init__.py``; the chart, released with it, agrees."""
    chart = (ROOT / "k8s" / "chart" / "Chart.yaml").read_text().splitlines()
    assert f"version: {__version__}" in chart
    assert f"appVersion: {__version__}" in chart
    assert (
        "version"
        not in (ROOT / "pyproject.toml").read_text().split("[project]")[1].split("dynamic")[0].split()
    )
    named = [
        path.name for path in (ROOT / "qwenhost").rglob("*.py") if f'"{__version__}"' in path.read_text()
    ]
    assert named == ["__init__.py"]
    assert metadata["Version"] == __version__
