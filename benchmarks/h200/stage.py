"""Where the campaign runs: on an H200 with the real shapes, or rehearsed on CPU with a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "e2e"), str(ROOT)]

from engine_env import engine_python  # noqa: E402
from tiny_model import tiny_model  # noqa: E402

from qwenhost.launcher.command import CPU_FLAGS  # noqa: E402


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

    @property
    def rehearsal(self) -> bool:
        """Whether figures mean nothing."""
        return self.name == "rehearsal"

    def model(self, checkpoint: str) -> Path:
        """A folder with the checkpoint's shapes, made at the first call."""
        if self.rehearsal:
            return tiny_model()
        folder = self.out / "models" / checkpoint
        if not (folder / "chat_template.jinja").is_file():
            self.call(self.python, str(Path(__file__).with_name("models.py")), checkpoint, str(folder))
        return folder

    def plan(self, checkpoint: str, *options: str) -> dict[str, Any]:
        """A plan's JSON, made before anything is started."""
        argv = [*self.qwenhost, "plan", *self.hardware, "--checkpoint", checkpoint]
        argv += ["--vllm-version", self.vllm_version, "--json", *options]
        plan: dict[str, Any] = json.loads(self.call(*argv))
        return plan

    def argv(self, flags: list[str], checkpoint: str, port: int) -> list[str]:
        """The command of vLLM with the given flags on the weightless model."""
        command = [self.python, "-m", "vllm.entrypoints.cli.main", "serve", str(self.model(checkpoint))]
        command += ["--host", "127.0.0.1", "--port", str(port), *flags]
        return command if self.rehearsal else [*command, "--load-format", "dummy"]

    def flags(self, planned: list[str]) -> list[str]:
        """What to start with: as planned, or what the CPU build of a tiny model takes."""
        return list(CPU_FLAGS) if self.rehearsal else planned

    def call(self, *argv: str, accept: tuple[int, ...] = (0,)) -> str:
        """A command's output; its words where it fails."""
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode not in accept:
            raise SystemExit(f"{' '.join(argv)}\nended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def keep(self, step: str, key: str, result: dict[str, Any]) -> None:
        """Write one result at once, so that a run that is cut off keeps what it has."""
        folder = self.out / "results"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{step}.{key}.json"
        partial = path.with_suffix(".partial")
        partial.write_text(
            json.dumps({"step": step, "key": key, "stage": self.name, **result}, indent=1) + "\n"
        )
        partial.rename(path)

    def has(self, step: str, key: str) -> bool:
        """Whether this result is there from an earlier call."""
        return (self.out / "results" / f"{step}.{key}.json").is_file()


def h200(out: Path) -> Stage:
    """The machine itself; this Python has vLLM and qwenhost on its path."""
    return Stage(
        name="h200",
        out=out,
        vllm_version="0.26.0",
        python=sys.executable,
        qwenhost=(sys.executable, "-m", "qwenhost"),
        env={"VLLM_CACHE_ROOT": str(out / "cache"), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"},
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
