"""What the machine has, found out before a start is spent on what it lacks.

Every check is a process of its own with a time limit, so that one that hangs or crashes is a finding. Where
a compiled-on-the-spot kernel cannot be built, the campaign goes on with vLLM's own alternative; results
then name it, for it is not what a user's machine would run.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from stage import link_driver

if TYPE_CHECKING:
    from stage import Stage

WITHIN_S = 105.0
"""FlashInfer's sampling kernels take a compiler a minute and more."""
PYTHON_CHECKS = {
    "torch": "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.get_device_name(0),"
    " torch.cuda.mem_get_info())",
    "vllm": "import vllm._C_stable_libtorch, vllm._moe_C_stable_libtorch; import vllm.entrypoints.cli.main,"
    " vllm.v1.engine.core, vllm.model_executor.models.qwen3_5_mtp; print(vllm.__version__)",
    "flash_attention": "from vllm.vllm_flash_attn.flash_attn_interface import is_fa_version_supported as f;"
    " assert f(3); print('FA3')",
    "gdn_prefill": "from flashinfer.gdn_kernels import chunk_gated_delta_rule_sm90 as f;"
    " assert f, 'no CuTe DSL'",
    "sampler": "import flashinfer.sampling as s; s.get_sampling_module(); print('built')",
    "deep_gemm": "import vllm.third_party.deep_gemm as d; print(d.__version__)",
}
COMMAND_CHECKS = {
    "gpu": ("nvidia-smi", "--format=csv",
            "--query-gpu=name,memory.total,memory.used,driver_version,clocks.max.sm"),
    "nvcc": ("nvcc", "--version"),
    "ninja": ("ninja", "--version"),
    "compiler": ("c++", "--version"),
    "shared_memory": ("df", "-h", "/dev/shm"),  # noqa: S108 - looked at, nothing is written
    "disk": ("df", "-h", "."),
}  # fmt: skip
FALL_BACKS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "gdn_prefill": ({}, ("--gdn-prefill-backend", "triton")),
    "sampler": ({"VLLM_USE_FLASHINFER_SAMPLER": "0"}, ()),
    "deep_gemm": ({"VLLM_USE_DEEP_GEMM": "0"}, ()),
}
"""vLLM's environment and flags that do without what a failed check needs."""


def run(stage: Stage) -> dict[str, Any]:
    """All checks side by side, the model folders, and the fall-backs that follow."""
    driver = None if stage.rehearsal else link_driver(stage.out)
    commands = {name: (stage.python, "-c", code) for name, code in PYTHON_CHECKS.items()}
    with ThreadPoolExecutor(len(commands) + len(COMMAND_CHECKS)) as pool:
        pending = {
            name: pool.submit(check, stage, argv) for name, argv in (commands | COMMAND_CHECKS).items()
        }
        folders = {name: str(stage.model(name)) for name in ("gptq-int4", "fp8")}
        checks = {name: future.result() for name, future in pending.items()}
    return {"driver": driver, "checks": checks, "models": folders, **fall_backs(checks)}


def fall_backs(checks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Environment and flags for what failed."""
    env: dict[str, str] = {}
    flags: list[str] = []
    for name, (more_env, more_flags) in FALL_BACKS.items():
        if not checks[name]["ok"]:
            env |= more_env
            flags += more_flags
    return {"env": env, "flags": flags}


def check(stage: Stage, argv: tuple[str, ...]) -> dict[str, Any]:
    """Whether a command succeeds, and the end of what it says."""
    try:
        done = subprocess.run(
            argv, env=stage.environment(), capture_output=True, text=True, timeout=WITHIN_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as failed:
        return {"ok": False, "says": str(failed)[-500:]}
    return {"ok": done.returncode == 0, "says": (done.stdout + done.stderr)[-800:]}
