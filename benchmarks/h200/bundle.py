"""Build what a machine with one H200 and no network lacks to run the campaign, in pieces.

    python benchmarks/h200/bundle.py OUT --present PACKAGES [--vllm 0.26.0] [--torch 2.11.0]

``PACKAGES`` lists what that machine has, a name a line (``pip list --format freeze`` will do). The rest
of vLLM's requirements is resolved for its Python, fetched as wheels, unpacked into one tree with this
project's wheel, trimmed of what Hopper never loads, packed with xz and cut into pieces of at most
``--piece-mib``. ``assemble.py`` puts them together there; it is copied beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MIB = 2**20

# pip matches a platform tag exactly, so each glibc up to Ubuntu 24.04's is named.
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in range(39, 4, -1)),
    "manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64", "any",
)  # fmt: skip

# Not imported on the path of this model on Hopper: seen by importing vLLM 0.26's server, engine core,
# model, FP8 and GPTQ layers, FlashAttention and Gated DeltaNet backends with these missing. They serve
# Blackwell, MLA, video, or a compiler that the machine has by itself. CuTe DSL is brought along, for
# CUDA 13 alone: FlashInfer 0.6.14's Gated DeltaNet prefill, which vLLM 0.26 takes on Hopper, is written
# in it. Its import fails quietly without; the first prompt, in the profile run at start, then fails aloud.
NOT_NEEDED = re.compile(
    r"^(nvidia-(?!cutlass-dsl(-libs-(base|core|cu13))?$).*|tilelang|tokenspeed-.*|pynvvideocodec|z3-solver|quack-kernels|torchcodec|cuda-(tile|python)"
    r"|humming-kernels|fastsafetensors|torch|torchaudio|torchvision|triton|sentry-sdk|fastapi-cloud-cli)$"
)

# Of vLLM's own tree: GPU code for other architectures, and other Pythons' builds. FlashAttention 2 is the
# largest library of all; get_flash_attn_version takes 3 on Hopper wherever its import succeeds.
TRIMMED = (
    "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
    "vllm/third_party/fmha_sm100/*",
    "vllm/third_party/deep_gemm/_C.cpython-3[01][0134]-*",
    "vllm/_flashmla_C.abi3.so",
    "vllm/_qutlass_C.abi3.so",
    "vllm/vllm-rs",
)


def main() -> None:
    """Resolve, fetch, unpack, trim, pack, cut."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--present", type=Path, required=True, help="packages of the target, one a line")
    parser.add_argument("--vllm", default="0.26.0")
    parser.add_argument("--torch", default="2.11.0", help="the target's, which is not brought along")
    parser.add_argument("--transformers", default="5.17.0", help="the target's")
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--piece-mib", type=int, default=48)
    parser.add_argument("--preset", type=int, default=6, help="of xz: 1 takes a fifth of 6's time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    present = {normal(re.split(r"[=@ ]", line)[0]) for line in arguments.present.read_text().splitlines()}
    with tempfile.TemporaryDirectory(dir=arguments.out) as scratch:
        wheels, site = Path(scratch) / "wheels", Path(scratch) / "site"
        wanted = missing(arguments, present)
        fetch(wanted, wheels, arguments.python)
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, ROOT],
            check=True, capture_output=True,
        )  # fmt: skip
        for wheel in sorted(wheels.glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(site)  # noqa: S202 - wheels of the index, as pip unpacks them
        trim(site)
        cut(pack(site, Path(scratch) / "site.tar.xz", arguments.preset), arguments, wanted)
    shutil.copy(HERE / "assemble.py", arguments.out / "assemble.py")


def normal(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def missing(arguments: argparse.Namespace, present: set[str]) -> list[str]:
    """``name==version`` of what vLLM and this project need there and do not find."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed",
                "--target", "nowhere", "--report", report.name, *selection(arguments.python),
                f"vllm=={arguments.vllm}", f"torch=={arguments.torch}",
                f"transformers=={arguments.transformers}", *requirements(),
            ],
            check=True,
        )  # fmt: skip
        resolved = json.loads(Path(report.name).read_text())["install"]
    named = {normal(item["metadata"]["name"]): item["metadata"]["version"] for item in resolved}
    return [
        f"{name}=={version}"
        for name, version in sorted(named.items())
        if name not in present and not NOT_NEEDED.match(name)
    ]


def requirements() -> list[str]:
    """What this project itself needs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = project["dependencies"]
    return found


def selection(python: str) -> list[str]:
    """Options of pip for the target's wheels."""
    options = ["--python-version", python, "--implementation", "cp", "--only-binary", ":all:"]
    return options + [part for name in PLATFORMS for part in ("--platform", name)]


def fetch(wanted: list[str], folder: Path, python: str) -> None:
    """Fetch exactly these wheels."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, *selection(python), *wanted], check=True)


def trim(site: Path) -> None:
    """Remove what the target never loads; a pattern without a match is a sign of another vLLM."""
    for pattern in TRIMMED:
        found = list(site.glob(pattern))
        if not found:
            print(f"nothing to trim for {pattern}: is the list still right for this vLLM?")
        for path in found:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def pack(site: Path, packed: Path, preset: int) -> Path:
    """One reproducible archive: sorted names, no owners, no times."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        return member

    with lzma.open(packed, "wb", preset=preset) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        for path in sorted(site.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.add(path, arcname=str(path.relative_to(site)), filter=plain)
    return packed


def cut(packed: Path, arguments: argparse.Namespace, wanted: list[str]) -> None:
    """Write the pieces and ``bundle.json``, which names each with its size and checksum."""
    pieces: list[dict[str, Any]] = []
    whole = hashlib.sha256()
    with packed.open("rb") as stream:
        while data := stream.read(arguments.piece_mib * MIB):
            name = f"site.{len(pieces):02}"
            (arguments.out / name).write_bytes(data)
            whole.update(data)
            pieces.append({"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
    listing = {
        "python": arguments.python,
        "vllm": arguments.vllm,
        "torch": arguments.torch,
        "sha256": whole.hexdigest(),
        "pieces": pieces,
        "packages": wanted,
    }
    (arguments.out / "bundle.json").write_text(json.dumps(listing, indent=2) + "\n")
    total = sum(piece["bytes"] for piece in pieces)
    print(f"{len(pieces)} pieces, {total / MIB:.0f} MiB, {len(wanted)} packages, in {arguments.out}")


if __name__ == "__main__":
    main()
