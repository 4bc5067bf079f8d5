"""The planner as ``qwenhost k8s`` hands it to :mod:`qwenhost.kubernetes`, which may not import it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.cli import wiring
from qwenhost.errors import InfeasibleError
from qwenhost.plan import DEFAULT_VLLM_VERSION, PlanRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qwenhost.facts import Catalog
    from qwenhost.kubernetes import Cluster, PoolPlan, Rung
    from qwenhost.node import Node
    from qwenhost.plan import Plan
    from qwenhost.render import ChartPool


def planner(known: Catalog, options: Mapping[str, Any]) -> Callable[[Node, tuple[int, int] | None], Plan]:
    """Plans for a machine with the command's workload, objective, pins and prices.

    Tensor and pipeline parallel size are pinned where they are given.
    """
    workload, pins = wiring.workload(known, options), wiring.pins(options)

    def plan(machine: Node, sizes: tuple[int, int] | None) -> Plan:
        from qwenhost.planner import make_plan

        pinned = pins
        if sizes is not None:
            pinned = msgspec.structs.replace(
                pins, tensor_parallel_size=sizes[0], pipeline_parallel_size=sizes[1], data_parallel_size=1
            )
        request = PlanRequest(
            node=machine,
            workload=workload,
            slo=workload.slo,
            objective=options.get("objective") or "cost",
            pins=pinned,
            gpu_price=wiring.gpu_price(known, machine, options),
            vllm_version=options.get("vllm_version") or DEFAULT_VLLM_VERSION,
        )
        return wiring.with_argv(make_plan(request, known))

    return plan


def rung_planner(
    known: Catalog, options: Mapping[str, Any], *, least_context: int
) -> Callable[[Node], Plan | None]:
    """Plans as one engine over all GPUs of a machine; None unless it has the context."""
    # Whether it fits is asked, not what is best: without drafts, which take memory, one engine on all GPUs.
    least = {"num_speculative_tokens": 0, "replicas": 1, "enable_expert_parallel": False}
    plan = planner(known, least | {name: value for name, value in options.items() if value is not None})

    def feasible(machine: Node) -> Plan | None:
        try:
            found = plan(machine, (machine.gpu_count, 1))
        except InfeasibleError:
            return None
        chosen = found.chosen
        good = chosen.engine_args.max_model_len >= least_context
        return found if good else None

    return feasible


def report(planned: PoolPlan) -> str:
    """The plan of a pool in words."""
    from qwenhost.render import pool_report

    shape = planned.shape
    instead = [other.text for other in planned.others[:2]]
    return pool_report(
        planned.plan, shape.pods, replicas=planned.plan_runs, nodes=shape.nodes, instead=instead
    )


def chart_pool(planned: PoolPlan) -> ChartPool:
    """A planned pool as the chart's values have it."""
    from qwenhost.render import ChartPool

    pool, shape = planned.pool, planned.shape
    return ChartPool(
        name=pool.name,
        plan=planned.plan,
        products=pool.products,
        replicas=planned.plan_runs,
        nodes=shape.nodes,
        report=report(planned),
        tolerations=tuple(
            {
                "key": one.key,
                "operator": "Equal" if one.value else "Exists",
                **({"value": one.value} if one.value else {}),
                "effect": one.effect,
            }
            for one in pool.tolerations
        ),
    )


def rungs(known: Catalog, options: Mapping[str, Any], cluster: Cluster | None) -> list[Rung]:
    """The ladder over the GPUs of a cluster, or over every NVIDIA GPU of the catalog.

    Raises:
        InfeasibleError: no number of GPUs serves.
    """
    from qwenhost.kubernetes import COUNTS, ladder

    native = max(a.max_position_embeddings for a in known.architectures.values())
    feasible = rung_planner(known, options, least_context=options.get("max_model_len") or native)
    wanted = {pool.spec for pool in cluster.pools} if cluster else set(known.gpus)
    most = max((pool.gpus_per_node for pool in cluster.pools), default=0) if cluster else max(COUNTS)
    kinds = {
        (spec.architecture, spec.link, spec.peer_to_peer): spec
        for spec in sorted(known.gpus.values(), key=lambda one: one.memory_bytes)
        if spec.id in wanted and spec.vendor == "nvidia" and not spec.unified_memory
    }
    found = ladder(list(kinds.values()), feasible, [count for count in COUNTS if count <= most])
    if not found:
        raise InfeasibleError(
            "No number of GPUs serves with the context asked for.",
            remedy="Release a pin, or give --max-model-len.",
        )
    return found


def values_text(planned: Sequence[PoolPlan], *, source: str) -> str:
    """A values file with its provenance and each pool's report as comments."""
    from qwenhost.render import chart_values, header

    more = [f"Planned by qwenhost k8s plan from {'stdin' if source == '-' else source}."]
    for one in planned:
        more += [f"Pool {one.pool.name}, nodes {', '.join(one.pool.nodes)}:", *report(one).splitlines()]
    head = header(planned[0].plan, *more)
    return head + dumped(chart_values([chart_pool(one) for one in planned]))


def ladder_notes(found: Sequence[Rung]) -> list[str]:
    """What each rung is, for comments."""
    return [
        "Alternatives for GPU claims, by qwenhost k8s plan --dra: the scheduler takes the first that fits.",
        *(
            f"{one.count} x at least {one.min_memory_gib} GiB, capability {one.min_compute_capability}: "
            f"{one.plan.chosen.label}"
            for one in found
        ),
    ]


def ladder_text(found: Sequence[Rung]) -> str:
    """A values file for claims: the init container plans on what the claim got."""
    from qwenhost.render import header, model_values

    checkpoints = {one.plan.chosen.checkpoint.id: one.plan.chosen.checkpoint for one in found}
    first = found[0].plan
    values = {
        "model": model_values(first.chosen.checkpoint),
        "plan": {
            "mode": "dra",
            "vllmVersion": first.inputs.vllm_version,
            "workload": first.inputs.workload,
            "checkpoints": [{"id": name, **model_values(one)} for name, one in checkpoints.items()],
        },
        "dra": {"ladder": [one.values for one in found]},
    }
    return header(first, *ladder_notes(found)) + dumped(values)


def dumped(value: Any, notes: Sequence[str] = ()) -> str:
    """YAML below comments."""
    from qwenhost.render import dump

    return "".join(f"# {line}\n" for line in notes) + dump(value)
