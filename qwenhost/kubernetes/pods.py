"""How a pool's GPUs become pods: so many per pod, so many pods, by the planner that is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.errors import InfeasibleError
from qwenhost.facts import Value
from qwenhost.kubernetes.nodes import GpuPool
from qwenhost.plan import Plan
from qwenhost.units import format_gib, format_usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from qwenhost.facts import GpuSpec
    from qwenhost.node import Node

    # Plans for a machine, with tensor and pipeline parallel sizes pinned where they are given.
    Planner = Callable[[Node, tuple[int, int] | None], Plan]

_SIZES: Final = (1, 2, 4, 8, 16)
_MOST_NODES: Final = 4


class PodShape(Value, frozen=True, kw_only=True):
    """One way to cut a pool into pods, and what all of them serve together."""

    gpus_per_node: int
    """Of one pod (or, over several nodes, of each node's part)."""
    nodes: int
    """Of one replica."""
    replicas: int
    label: str
    requests_per_s: float
    output_tokens_per_s: float
    meets_slo: bool


class PoolPlan(Value, frozen=True, kw_only=True):
    """A pool with its plan."""

    pool: GpuPool
    shape: PodShape
    plan: Plan
    """Of one replica."""
    others: tuple[PodShape, ...]
    """Best first."""


def plan_pool(pool: GpuPool, specs: Mapping[str, GpuSpec], planner: Planner) -> PoolPlan:
    """The pods that serve most (or by the plan's objective are best) on the pool's GPUs.

    Several small pods often serve more than one large one. Where no node can hold the model, one replica
    spans nodes: tensor parallelism within each, a pipeline over them.

    Raises:
        InfeasibleError: nothing fits, not even over several nodes.
    """
    found: list[tuple[PodShape, Plan]] = []
    refusals: list[InfeasibleError] = []
    for gpus in _sizes(pool.gpus_per_node):
        try:
            plan = planner(pool.machine(specs, gpus), None)
        except InfeasibleError as error:
            refusals.append(error)
            continue
        # A plan may leave GPUs of its machine idle; then a smaller pod says the same.
        if plan.chosen.parallelism.world_size == gpus:
            found.append((_shape(plan, gpus, 1, (pool.gpus_per_node // gpus) * len(pool.nodes)), plan))
    if not found:
        found = list(_over_nodes(pool, specs, planner, refusals))
    if not found:
        raise refusals[-1]
    found.sort(key=lambda one: _merit(*one), reverse=True)
    shape, plan = found[0]
    return PoolPlan(pool=pool, shape=shape, plan=plan, others=tuple(other for other, _ in found[1:]))


def _sizes(gpus: int) -> list[int]:
    return sorted({size for size in _SIZES if size <= gpus} | {gpus})


def _over_nodes(
    pool: GpuPool, specs: Mapping[str, GpuSpec], planner: Planner, refusals: list[InfeasibleError]
) -> Iterator[tuple[PodShape, Plan]]:
    within = max(size for size in _SIZES if size <= pool.gpus_per_node)
    for nodes in range(2, min(_MOST_NODES, len(pool.nodes)) + 1):
        try:
            plan = planner(pool.machine(specs, within * nodes), (within, nodes))
        except InfeasibleError as error:
            refusals.append(error)
            continue
        yield _shape(plan, within, nodes, len(pool.nodes) // nodes), plan
        return


def _shape(plan: Plan, gpus: int, nodes: int, replicas: int) -> PodShape:
    speed = plan.chosen.estimate
    return PodShape(
        gpus_per_node=gpus,
        nodes=nodes,
        replicas=replicas,
        label=plan.chosen.label,
        requests_per_s=speed.requests_per_s.value * replicas,
        output_tokens_per_s=speed.output_tokens_per_s.value * replicas,
        meets_slo=speed.meets_slo,
    )


def _merit(shape: PodShape, plan: Plan) -> tuple[float, ...]:
    chosen, workload = plan.chosen, plan.inputs.workload_detail
    if plan.inputs.objective == "latency":
        speed = chosen.estimate
        answer = speed.ttft_ms.value + speed.tpot_ms.value * workload.output_tokens.mean
        return (shape.meets_slo, -answer, shape.requests_per_s)
    if plan.inputs.objective == "context":
        at_once = chosen.concurrency_at_max_model_len * shape.replicas
        return (chosen.engine_args.max_model_len, at_once, shape.requests_per_s)
    return (shape.meets_slo, shape.requests_per_s, -shape.replicas)


def waiting_per_replica(plan: Plan) -> int:
    """Requests that may wait before another replica is worth its start: those served within the limit.

    waiting = (limit on time to first token - predicted time to first token) x requests per second;
    a tenth of the requests in flight where the workload has no such limit.
    """
    speed, limit = plan.chosen.estimate, plan.inputs.slo.ttft_ms
    if limit is None:
        return max(1, round(speed.concurrency.value / 10))
    spare_s = (limit - speed.ttft_ms.value) / 1000
    return max(1, int(spare_s * speed.requests_per_s.value))


def report(planned: PoolPlan) -> str:
    """The plan in words, for NOTES.txt, the pod's annotation and the values file."""
    plan, shape, chosen = planned.plan, planned.shape, planned.plan.chosen
    speed, memory, args = chosen.estimate, chosen.memory_per_gpu, chosen.engine_args
    pods = _pods(shape)
    low, high = (
        speed.output_tokens_per_s.low * shape.replicas,
        speed.output_tokens_per_s.high * shape.replicas,
    )
    lines = [
        f"{pods}, {plan.inputs.node.gpus[0].name}: {chosen.checkpoint.repo_id}, {chosen.label}.",
        (
            f"Memory of a GPU: {format_gib(memory.weights_bytes, 1)} weights, "
            f"{format_gib(memory.kv_cache_bytes, 1)} cache, of {format_gib(memory.total_bytes, 1)}."
        ),
        (
            f"Workload {plan.inputs.workload}: {shape.output_tokens_per_s:,.0f} output tokens/s "
            f"({low:,.0f} to {high:,.0f}), {shape.requests_per_s:,.1f} requests/s, first token "
            f"{speed.ttft_ms.value:,.0f} ms, {speed.tpot_ms.value:,.1f} ms per token; "
            f"{speed.output_tokens_per_s.basis}, bound by {speed.output_tokens_per_s.bound}."
        ),
        (
            f"Each pod: {speed.concurrency.value:,.0f} requests in flight, "
            f"{chosen.concurrency_at_max_model_len:,.1f} of {args.max_model_len:,} tokens."
        ),
    ]
    if not speed.meets_slo:
        lines.append("The prediction misses the workload's service level.")
    if chosen.usd_per_hour is not None and plan.inputs.gpu_price is not None:
        price = plan.inputs.gpu_price
        blended = chosen.usd_per_mtok_blended
        per = f", {format_usd(blended)} per million tokens" if blended is not None else ""
        usd = format_usd(chosen.usd_per_hour * shape.replicas)
        lines.append(f"Rent {usd}/h{per} ({price.provider}, {price.tier}, {price.as_of}).")
    if shape.nodes > 1:
        lines.append(
            "The link between nodes is not in the prediction: hand-over is counted as within a node."
        )
    lines += [
        f"Instead {_pods(other)}, {other.label}: {other.requests_per_s:,.1f} requests/s."
        for other in planned.others[:2]
    ]
    return "\n".join(lines)


def _pods(shape: PodShape) -> str:
    """``4 pods of 2 GPUs``."""
    pods = f"{shape.replicas} {'pod' if shape.replicas == 1 else 'pods'}"
    gpus = f"{shape.gpus_per_node} {'GPU' if shape.gpus_per_node == 1 else 'GPUs'}"
    if shape.nodes == 1:
        return f"{pods} of {gpus}"
    return (
        f"{shape.replicas} {'group' if shape.replicas == 1 else 'groups'} of {shape.nodes} nodes with {gpus}"
    )
