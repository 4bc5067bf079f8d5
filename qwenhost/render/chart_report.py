"""A pool's plan in a few sentences, and the queue at which it wants another pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.units import format_gib, format_usd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qwenhost.plan import Plan


def pool_report(plan: Plan, pods: str, *, replicas: int, nodes: int = 1, instead: Sequence[str] = ()) -> str:
    """For NOTES.txt, the pod's annotation and the values file.

    Args:
        plan: of one replica; where its layout has several engines, of all of them.
        pods: ``4 pods of 2 GPUs``.
        replicas: how often the plan runs.
        nodes: of one replica.
        instead: what else was looked at, best first.
    """
    chosen, memory = plan.chosen, plan.chosen.memory_per_gpu
    lines = [
        f"{pods}, {plan.inputs.node.gpus[0].name}: {chosen.checkpoint.repo_id}, {chosen.label}.",
        (
            f"Memory of a GPU: {format_gib(memory.weights_bytes, 1)} weights, "
            f"{format_gib(memory.kv_cache_bytes, 1)} cache, of {format_gib(memory.total_bytes, 1)}."
        ),
        *_speed(plan, replicas),
    ]
    if nodes > 1:
        lines.append(
            "The link between nodes is not in the prediction: hand-over is counted as within a node."
        )
    return "\n".join([*lines, *(f"Instead {other}" for other in instead)])


def _speed(plan: Plan, replicas: int) -> Iterator[str]:
    chosen, speed, price = plan.chosen, plan.chosen.estimate, plan.inputs.gpu_price
    output = speed.output_tokens_per_s
    value, low, high = (one * replicas for one in (output.value, output.low, output.high))
    yield (
        f"Workload {plan.inputs.workload}: {value:,.0f} output tokens/s ({low:,.0f} to {high:,.0f}), "
        f"{speed.requests_per_s.value * replicas:,.1f} requests/s, "
        f"first token {speed.ttft_ms.value:,.0f} ms, "
        f"{speed.tpot_ms.value:,.1f} ms per token; {output.basis}, bound by {output.bound}."
    )
    engines = chosen.parallelism.replicas
    yield (
        f"Each pod: {speed.concurrency.value / engines:,.0f} requests in flight, "
        f"{chosen.concurrency_at_max_model_len / engines:,.1f} "
        f"of {chosen.engine_args.max_model_len:,} tokens."
    )
    if not speed.meets_slo:
        yield "The prediction misses the workload's service level."
    if chosen.usd_per_hour is not None and price is not None:
        blended = chosen.usd_per_mtok_blended
        per = f", {format_usd(blended)} per million tokens" if blended is not None else ""
        from_whom = ", ".join(word for word in (price.provider, price.tier, price.as_of) if word)
        yield f"Rent {format_usd(chosen.usd_per_hour * replicas)}/h{per} ({from_whom})."


def waiting_per_replica(plan: Plan) -> int:
    """Requests that may wait before another replica is worth its start: those served within the limit.

    waiting = (limit on time to first token - predicted time to first token) x requests per second;
    a tenth of the requests in flight where the workload has no such limit.
    """
    speed, limit, engines = plan.chosen.estimate, plan.inputs.slo.ttft_ms, plan.chosen.parallelism.replicas
    if limit is None:
        return max(1, round(speed.concurrency.value / engines / 10))
    spare_s = (limit - speed.ttft_ms.value) / 1000
    return max(1, int(spare_s * speed.requests_per_s.value / engines))
