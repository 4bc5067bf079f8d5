"""A plan that runs: its step times, and the service it would give under a measured load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.errors import BadInputError
from qwenhost.plan import DEFAULT_VLLM_VERSION, Pins, PlanRequest
from qwenhost.planner.context import Context
from qwenhost.planner.option import Option
from qwenhost.planner.service import Demand, Load, closed_loop, open_loop

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.measurements import Measurements
    from qwenhost.node import Node
    from qwenhost.plan import Candidate
    from qwenhost.planner.performance import StepModel
    from qwenhost.planner.service import Service


def running_model(
    candidate: Candidate, node: Node, catalog: Catalog, vllm_version: str = DEFAULT_VLLM_VERSION
) -> StepModel:
    """Step times of one data-parallel replica of a candidate.

    Raises:
        BadInputError: the candidate's checkpoint or the node's GPU is not in the catalog.
    """
    if candidate.checkpoint.id not in catalog.checkpoints:
        raise BadInputError(
            f"the plan's checkpoint {candidate.checkpoint.id!r} is not in the catalog",
            remedy="Give the profiles it was made with: --profiles DIR.",
        )
    args, any_workload = candidate.engine_args, next(iter(catalog.workloads.values()))
    request = PlanRequest(
        node=node,
        workload=any_workload,
        slo=any_workload.slo,
        pins=Pins(mamba_ssm_cache_dtype=args.mamba_ssm_cache_dtype),
        vllm_version=vllm_version,
    )
    option = Option(
        checkpoint=candidate.checkpoint.id,
        layout=candidate.parallelism,
        kv_cache_dtype=args.kv_cache_dtype,
        num_speculative_tokens=args.num_speculative_tokens,
        enable_prefix_caching=args.enable_prefix_caching,
    )
    return Context(request, catalog).step_model(option, enforce_eager=args.enforce_eager)


def service_under(model: StepModel, candidate: Candidate, measured: Measurements) -> Service:
    """What one group of ranks would deliver under the load and the sizes that were measured.

    Requests beyond ``max_num_seqs`` wait in the engine's queue; that wait is no part of this.
    """
    groups, work, load = candidate.parallelism.serving_groups, measured.workload, measured.load
    demand = Demand(work.mean_input_tokens, work.mean_cached_tokens, max(1.0, work.mean_output_tokens))
    args = candidate.engine_args
    capacity = Load(args.max_num_seqs, args.max_num_batched_tokens)
    if load.kind == "open":
        return open_loop(model, demand, capacity, measured.request_per_s / groups)
    users = (load.concurrency or 1) / groups
    return closed_loop(model, demand, capacity._replace(concurrency=min(users, args.max_num_seqs)))
