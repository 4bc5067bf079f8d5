"""How a pool's GPUs become pods: so many per pod, so many pods, by the planner that is passed in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qwenhost.errors import InfeasibleError
from qwenhost.facts import Value
from qwenhost.kubernetes.nodes import GpuPool
from qwenhost.plan import Plan

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

    @property
    def pods(self) -> str:
        """``4 pods of 2 GPUs``."""
        pods = f"{self.replicas} {'pod' if self.replicas == 1 else 'pods'}"
        gpus = f"{self.gpus_per_node} {'GPU' if self.gpus_per_node == 1 else 'GPUs'}"
        if self.nodes == 1:
            return f"{pods} of {gpus}"
        groups = f"{self.replicas} {'group' if self.replicas == 1 else 'groups'}"
        return f"{groups} of {self.nodes} nodes with {gpus}"

    @property
    def text(self) -> str:
        """``4 pods of 2 GPUs, fp8 TP2 ...: 27.9 requests/s.``."""
        return f"{self.pods}, {self.label}: {self.requests_per_s:,.1f} requests/s."


class PoolPlan(Value, frozen=True, kw_only=True):
    """A pool with its plan."""

    pool: GpuPool
    shape: PodShape
    plan: Plan
    """Of one replica; of several where engines of one machine were pinned (``--replicas``)."""
    others: tuple[PodShape, ...]
    """Best first."""

    @property
    def plan_runs(self) -> int:
        """How often the plan runs in the pool."""
        return self.shape.replicas // self.plan.chosen.parallelism.replicas


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
    speed, engines = plan.chosen.estimate, plan.chosen.parallelism.replicas
    return PodShape(
        gpus_per_node=gpus // engines,
        nodes=nodes,
        replicas=replicas * engines,
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
