"""Where the campaign runs: on an H200 with the real shapes, or rehearsed on CPU with a tiny model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT)]

from engine_env import engine_python  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from qwenhost.launcher.command import CPU_FLAGS  # noqa: E402

CALL_WITHIN_S = 300.0


class StepFailedError(Exception):
    """A command of a step failed or took too long; the text says which and how."""


@dataclass(frozen=True)
class Stage:
    """What differs between the machine and its rehearsal."""

    name: str
    out: Path
    vllm_version: str
    python: str
    """The Python that has vLLM."""
    qwenhost: tuple[str, ...]
    hardware: tuple[str, ...] = ()
    """Options that name the GPUs where NVML cannot."""
    batches: tuple[int, ...] = (1, 8, 16, 32, 64, 128, 256)
    contexts: tuple[int, ...] = (1024, 8192, 32768)
    decode_tokens: int = 192
    start_within_s: float = 420.0
    env: dict[str, str] = field(default_factory=dict)
    pack: Path | None = None
    """Archive of results and logs, written anew after each: for a machine that hands back few files."""
    deadline: float = float("inf")
    """On the monotonic clock; no command outlives it."""

    @property
    def rehearsal(self) -> bool:
        """Whether figures mean nothing."""
        return self.name == "rehearsal"

    def model(self, checkpoint: str) -> Path:
        """A folder with the checkpoint's shapes, made at the first call."""
        if self.rehearsal:
            return tiny_model()
        folder = self.out / "models" / checkpoint
        if not (folder / "chat_template.jinja").is_file():  # Written last.
            self.call(self.python, str(Path(__file__).with_name("models.py")), checkpoint, str(folder))
        return folder

    def plan(self, checkpoint: str, *options: str) -> dict[str, Any]:
        """A plan's JSON, made before anything is started.

        Raises:
            StepFailedError: nothing fits with these options.
        """
        plan = self.plan_if_any(checkpoint, *options)
        if plan is None:
            raise StepFailedError(f"no plan for {checkpoint} {' '.join(options)}")
        return plan

    def plan_if_any(self, checkpoint: str, *options: str) -> dict[str, Any] | None:
        """A plan's JSON, or None where nothing fits."""
        argv = [*self.qwenhost, "plan", *self.hardware, "--checkpoint", checkpoint]
        argv += ["--vllm-version", self.vllm_version, "--json", *options]
        plan: dict[str, Any] = json.loads(self.call(*argv, accept=(0, NO_PLAN)))
        return plan if plan["chosen"] else None

    def remaining_s(self) -> float:
        """Seconds until the call has to end."""
        return self.deadline - time.monotonic()

    def environment(self, more: dict[str, str] | None = None) -> dict[str, str]:
        """For the engine and its tools: this process's, the stage's, what preflight found necessary."""
        return {**os.environ, **(more or {}), **self.env, **self._found("env", {})}

    def _found(self, what: str, otherwise: Any) -> Any:
        path = self.result("preflight", "result")
        return json.loads(path.read_text()).get(what, otherwise) if path.is_file() else otherwise

    def argv(self, flags: list[str], checkpoint: str, port: int) -> list[str]:
        """The command of vLLM with the given flags on the weightless model."""
        command = [self.python, "-m", "vllm.entrypoints.cli.main", "serve", str(self.model(checkpoint))]
        command += ["--host", "127.0.0.1", "--port", str(port), *flags]
        if self.rehearsal:
            return command
        return [*command, "--load-format", "dummy", *self._found("flags", [])]

    def flags(self, planned: list[str]) -> list[str]:
        """What to start with: as planned, or what the CPU build of a tiny model takes."""
        return list(CPU_FLAGS) if self.rehearsal else planned

    def call(self, *argv: str, accept: tuple[int, ...] = (0,)) -> str:
        """A command's output.

        Raises:
            StepFailedError: it failed, or was not done when the call's time was up.
        """
        within = max(1.0, min(CALL_WITHIN_S, self.remaining_s()))
        try:
            done = subprocess.run(
                argv, env=self.environment(), capture_output=True, text=True, timeout=within, check=False
            )
        except subprocess.TimeoutExpired as late:
            raise StepFailedError(f"{' '.join(argv)}\nnot done after {within:.0f} s") from late
        if done.returncode not in accept:
            raise StepFailedError(f"{' '.join(argv)}\nended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def keep(self, step: str, key: str, result: dict[str, Any]) -> None:
        """Write one result at once, so that a run that is cut off keeps what it has."""
        path = self.result(step, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"step": step, "key": key, "stage": self.name, **result}, indent=1) + "\n"
        )
        partial.rename(path)
        self.hand_back()

    def hand_back(self) -> None:
        """Write the archive of what there is, whole at any moment."""
        if self.pack is None:
            return
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=3) as archive:
            for name in ("results", "logs"):
                with contextlib.suppress(FileNotFoundError):
                    archive.add(self.out / name, arcname=name)
            for path in sorted(self.out.glob("measurements-*.json")):
                archive.add(path, arcname=path.name)
        partial = self.pack.with_name(self.pack.name + ".partial")
        partial.write_bytes(packed.getvalue())
        partial.rename(self.pack)

    def result(self, step: str, key: str) -> Path:
        """Where a result is kept."""
        return self.out / "results" / f"{step}.{key}.json"

    def has(self, step: str, key: str) -> bool:
        """Whether this result is there from an earlier call."""
        return self.result(step, key).is_file()


NO_PLAN = 3
"""Exit code of a plan where nothing fits."""


def h200_env(out: Path) -> dict[str, str]:
    """Nothing from the network, caches kept between calls, compilers and the DSL found."""
    cuda = cuda_home()
    path = [str(Path(sys.executable).parent), *([f"{cuda}/bin"] if cuda else []), os.environ.get("PATH", "")]
    # A .pth file of CuTe DSL names this folder, and Python reads none in the folders of PYTHONPATH.
    site = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    dsl = [
        str(found)
        for folder in site
        if (found := Path(folder, "nvidia_cutlass_dsl", "dsl_packages")).is_dir()
    ]
    cache = out / "cache"
    return {
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *site, *dsl]),
        **({"CUDA_HOME": cuda} if cuda else {}),
        "CPATH": os.pathsep.join(header_folders()),
        "LIBRARY_PATH": os.pathsep.join([str(out / "lib"), *DRIVER_FOLDERS]),
        "XDG_CACHE_HOME": str(cache),
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "FLASHINFER_WORKSPACE_BASE": str(cache),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_DEEP_GEMM_WARMUP": "skip",  # Compiles what a load uses, in place of every shape at start.
    }


DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/lib/x86_64-linux-gnu", "/usr/lib64")


def link_driver(out: Path, folders: tuple[str, ...] = DRIVER_FOLDERS) -> str | None:
    """Give the linker the driver's library by the name it asks for, which only development packages hold.

    Returns what it stands for, or None where no driver is.
    """
    drivers = (path for folder in folders if (path := Path(folder, "libcuda.so.1")).exists())
    driver = next(drivers, None)
    link = out / "lib" / "libcuda.so"
    if driver is not None and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(driver)
    return str(driver) if driver else None


def cuda_home() -> str | None:
    """The toolkit's folder: one with nvcc and headers, for a wrapper of nvcc elsewhere has none beside it."""
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    homes += sorted(map(str, Path("/usr/local").glob("cuda-*")), reverse=True)
    if nvcc := shutil.which("nvcc"):
        homes.append(str(Path(nvcc).resolve().parents[1]))
    usable = (home for home in homes if home and Path(home, "bin", "nvcc").is_file())
    return next((home for home in usable if Path(home, "include", "cuda_runtime.h").is_file()), None)


def header_folders() -> list[str]:
    """Headers of CUDA's libraries that come with PyTorch's wheels: a toolkit may hold the compiler alone."""
    found = os.environ.get("CPATH", "").split(os.pathsep)
    found += [str(path) for folder in sys.path for path in Path(folder).glob("nvidia/cu13/include")]
    return [folder for folder in found if folder]


def h200(out: Path) -> Stage:
    """The machine itself; this Python has vLLM and qwenhost on its path."""
    return Stage(
        name="h200",
        out=out,
        vllm_version="0.26.0",
        python=sys.executable,
        qwenhost=(sys.executable, "-m", "qwenhost"),
        hardware=("--gpus", "1xH200"),  # Predicted from the profile alone, whatever NVML says there.
        env=h200_env(out),
    )


def rehearsal(out: Path) -> Stage:
    """The same steps on the tiny model and vLLM's CPU build; its figures mean nothing."""
    return Stage(
        name="rehearsal",
        out=out,
        vllm_version="0.32.0",
        python=str(engine_python()),
        qwenhost=(sys.executable, "-m", "qwenhost"),
        hardware=("--gpus", "1xH200"),
        batches=(1, 4),
        contexts=(64, 256),
        decode_tokens=48,
        env={
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
        },
    )
