"""The plans that the chart carries.

``files/plans.yaml``: the planner's choice for every known GPU in sensible numbers, so that
``--set gpus=2xH200`` is enough. ``files/ladder.yaml``: the alternatives of a GPU claim. Both are made for the
workload ``chat`` by the planner of ``qwenhost plan``, and change when it or the facts in ``profiles/`` do.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwenhost.cli import k8s_setup
from qwenhost.errors import InfeasibleError
from qwenhost.kubernetes import GpuPool, plan_pool, pool_name
from qwenhost.plan import DEFAULT_VLLM_VERSION
from qwenhost.profiles import load_catalog
from qwenhost.render import dump, model_values, product_label

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

FILES = Path(__file__).parent.parent.parent / "k8s" / "chart" / "files"
COUNTS = (1, 2, 4, 8)
# What people call them, as --gpus of qwenhost plan understands it; further names come after the first.
NAMES = {
    "a100-80gb": ("A100-80GB", "A100"),
    "a100-80gb-pcie": ("A100-PCIe",),
    "h100-80gb": ("H100", "H100-80GB"),
    "h100-pcie": ("H100-PCIe",),
    "h100-nvl": ("H100-NVL",),
    "h200": ("H200",),
    "gh200": ("GH200",),
    "b200": ("B200",),
    "b300": ("B300",),
    "gb200": ("GB200",),
    "gb300": ("GB300",),
    "l40s": ("L40S",),
    "rtx-pro-6000": ("RTXPRO6000",),
    "rtx-pro-6000-workstation": ("RTXPRO6000-Workstation",),
    "rtx-pro-6000-max-q": ("RTXPRO6000-Max-Q",),
    "rtx-5090": ("RTX5090",),
    "rtx-4090": ("RTX4090",),
    "rtx-3090": ("RTX3090",),
}
# Boards with fewer than eight GPUs in one machine.
MOST = {"gh200": 1, "gb200": 4, "gb300": 4}
# One download serves every rung, and the official weights run on every GPU from Ampere on.
LADDER_CHECKPOINT = "fp8"
HEAD = """\
# Made by make docs with the planner of qwenhost; do not edit.
# Workload chat, vLLM {vllm}; newest fact {newest}.
"""


def made() -> dict[Path, str]:
    """Both files."""
    known = load_catalog([])
    return {FILES / "plans.yaml": plans_text(known), FILES / "ladder.yaml": ladder_text(known)}


def plans_text(known: Catalog) -> str:
    """``files/plans.yaml``."""
    planner = k8s_setup.planner(known, {"workload": "chat"})
    # A pool of eight tries pods of one, two and four, which the smaller pools are.
    remembered = functools.lru_cache(maxsize=None)(planner)
    entries: dict[str, Any] = {}
    for spec, names in NAMES.items():
        for count in (n for n in COUNTS if n <= MOST.get(spec, max(COUNTS))):
            pool = GpuPool(
                name=pool_name(spec),
                spec=spec,
                products=(product_label(known.gpus[spec].name),),
                gpus_per_node=count,
                memory_mib=known.gpus[spec].memory_bytes // 2**20,
                nodes=("one",),
            )
            try:
                planned = plan_pool(pool, known.gpus, remembered)
            except InfeasibleError:
                continue
            entry = {
                "model": model_values(planned.plan.chosen.checkpoint),
                "pool": k8s_setup.chart_pool(planned).values,
            }
            entries |= {f"{count}x{name}": entry for name in names}
    return head(known) + dump(entries)


def ladder_text(known: Catalog) -> str:
    """``files/ladder.yaml``."""
    rungs = k8s_setup.rungs(known, {"checkpoint": LADDER_CHECKPOINT, "workload": "chat"}, None)
    checkpoint = rungs[0].plan.chosen.checkpoint
    notes = "".join(f"# {line}\n" for line in k8s_setup.ladder_notes(rungs))
    values = {
        "checkpoints": [{"id": checkpoint.id, **model_values(checkpoint)}],
        "ladder": [one.values for one in rungs],
    }
    return head(known) + notes + dump(values)


def head(known: Catalog) -> str:
    """Where the file comes from."""
    return HEAD.format(vllm=DEFAULT_VLLM_VERSION, newest=known.newest_fact)
