"""Provenance: which plan a file was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qwenhost.plan import Plan


def header(plan: Plan, *more: str) -> str:
    """Comment lines that begin every format; valid in shell, YAML, env files and units."""
    inputs, chosen = plan.inputs, plan.chosen
    pinned = f"revision {chosen.checkpoint.revision}" if chosen.checkpoint.revision else "no revision pinned"
    lines = (
        f"Made by qwenhost {inputs.qwenhost_version} from a plan ({plan.schema}).",
        f"For {inputs.node.description}, workload {inputs.workload}, objective {inputs.objective}.",
        f"For vLLM {inputs.vllm_version}; catalog {inputs.catalog_digest}, newest fact {inputs.newest_fact}.",
        f"{chosen.checkpoint.repo_id}, {pinned}: {chosen.label}.",
        *more,
    )
    # A line break in a name must not end the comment.
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)
