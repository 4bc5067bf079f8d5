"""``qwenhost k8s plan``: a cluster's nodes as values of the chart, or a ladder of GPU claims."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwenhost.cli import k8s_setup, wiring
from qwenhost.cli.options import json_option, objective_option, pin_options, price_options, workload_options
from qwenhost.cli.output import say, write_json
from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.plan import DEFAULT_VLLM_VERSION

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.kubernetes import Cluster, PoolPlan, Rung


@click.command("plan", short_help="Plan for a cluster's GPUs: values for the chart.")
@click.argument("nodes", metavar="[NODES.json|-]", required=False, type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), help="File to write instead of stdout.")
@click.option("--dra", is_flag=True, help="A ladder of GPU claims (firstAvailable) instead of pools.")
@click.option(
    "--claim-template",
    metavar="NAME",
    help="With --dra: the ResourceClaimTemplate itself, without the chart.",
)
@click.option("--tolerate", multiple=True, metavar="KEY", help="Take nodes with this taint; repeatable.")
@workload_options
@objective_option()
@pin_options
@price_options
@click.option("--vllm-version", default=DEFAULT_VLLM_VERSION, show_default=True, help="vLLM to plan for.")
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    *,
    nodes: Path | None,
    output: Path | None,
    dra: bool,
    claim_template: str | None,
    tolerate: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """Plan for every kind of GPU in a cluster, and write the chart's values.

    NODES is what `kubectl get nodes -o json` prints, from a file or stdin (-). Nothing is asked of the
    cluster, so the values suit GitOps. Nodes with MIG, shared or unknown GPUs are left out with a reason.
    With --dra the values hold alternatives, fewest GPUs first; NODES is not needed then, and limits them to
    GPUs that are there. Exit code 3 where nothing fits.

    \b
    kubectl get nodes -o json | qwenhost k8s plan - --output values.yaml
    qwenhost k8s plan nodes.json --workload coding_agent --objective latency
    qwenhost k8s plan --dra --checkpoint fp8 --output values.yaml
    """  # noqa: D301 - click wants the character itself
    if nodes is None and not dra:
        raise click.UsageError("give the nodes: kubectl get nodes -o json | qwenhost k8s plan -")
    if claim_template and not dra:
        raise click.UsageError("--claim-template goes with --dra")
    known, pinned = wiring.with_checkpoint_folder(wiring.catalog(ctx), options)
    cluster = _cluster(nodes, known, tolerate) if nodes else None
    if dra:
        rungs = k8s_setup.rungs(known, pinned, cluster)
        text = _ladder_text(rungs, claim_template)
        document = _ladder_document(rungs, text)
    else:
        assert cluster is not None  # noqa: S101 - checked above
        planned, unfit = _planned(cluster, known, pinned)
        text = k8s_setup.values_text(planned, source=str(nodes))
        document = _document(cluster, planned, unfit, text)
    if output is not None:
        from qwenhost.files import write_atomically

        write_atomically(output, text)
        say(f"Wrote {output}.")
    if as_json:
        write_json(document)
    elif output is None:
        click.echo(text, nl=False)


def _cluster(nodes: Path, known: Catalog, tolerate: tuple[str, ...]) -> Cluster:
    from qwenhost.kubernetes import read_cluster

    if str(nodes) == "-":
        data, name = sys.stdin.buffer.read(), "stdin"
    else:
        try:
            data, name = nodes.read_bytes(), str(nodes)
        except OSError as error:
            raise BadInputError(
                f"{nodes}: {error.strerror}", remedy="Save them with: kubectl get nodes -o json > nodes.json"
            ) from error
    cluster = read_cluster(data, known.gpus, name=name, tolerate=tolerate)
    for one in cluster.refused:
        say(f"Left out {one.node}: {one.reason}.")
    if not cluster.pools:
        raise InfeasibleError(
            f"None of the {cluster.nodes} nodes has GPUs to plan for.",
            remedy="The reasons are above."
            if cluster.refused
            else "Are these the nodes of the right cluster?",
        )
    return cluster


def _planned(cluster: Cluster, known: Catalog, options: Any) -> tuple[list[PoolPlan], dict[str, str]]:
    """The plans, best pool first, and the sentence for each pool that cannot serve.

    Raises:
        InfeasibleError: no pool can; carries the rejections of the last.
    """
    from qwenhost.kubernetes import plan_pool

    plans, unfit, last = [], {}, None
    for pool in cluster.pools:
        try:
            plans.append(plan_pool(pool, known.gpus, k8s_setup.planner(known, options)))
        except InfeasibleError as error:
            unfit[pool.name], last = error.message, error
            say(f"Pool {pool.name} ({len(pool.nodes)} nodes): {error.message}")
    if not plans and last is not None:
        raise InfeasibleError(
            "No pool of the cluster can serve.", remedy=last.remedy, rejections=last.rejections
        )
    plans.sort(key=lambda one: one.shape.requests_per_s, reverse=True)
    for one in plans:
        _tell(one)
    served = sorted({one.plan.chosen.checkpoint.repo_id for one in plans})
    if len(served) > 1:
        say(
            f"The pools serve {len(served)} checkpoints behind one name ({', '.join(served)}), "
            "which answer differently: --checkpoint makes it one."
        )
    return plans, unfit


def _tell(planned: PoolPlan) -> None:
    nodes = len(planned.pool.nodes)
    say(f"Pool {planned.pool.name}, {nodes} {'node' if nodes == 1 else 'nodes'}:")
    for line in k8s_setup.report(planned).splitlines():
        say(f"  {line}")


def _document(cluster: Cluster, planned: list[PoolPlan], unfit: dict[str, str], text: str) -> dict[str, Any]:
    from qwenhost.render import waiting_per_replica

    return {
        "schema": "qwenhost.k8s-plan/1",
        "pools": [
            {
                "name": one.pool.name,
                "nodes": one.pool.nodes,
                "shape": one.shape,
                "others": one.others,
                "waiting_per_replica": waiting_per_replica(one.plan),
                "report": k8s_setup.report(one),
                "plan": one.plan,
            }
            for one in planned
        ],
        "unfit": [{"pool": name, "reason": reason} for name, reason in unfit.items()],
        "refused": cluster.refused,
        "values": text,
    }


def _ladder_text(rungs: list[Rung], template: str | None) -> str:
    from qwenhost.kubernetes import claim_template

    if template is None:
        return k8s_setup.ladder_text(rungs)
    return k8s_setup.dumped(claim_template(rungs, template), k8s_setup.ladder_notes(rungs))


def _ladder_document(rungs: list[Rung], text: str) -> dict[str, Any]:
    return {
        "schema": "qwenhost.k8s-ladder/1",
        "ladder": [{**one.values, "label": one.plan.chosen.label} for one in rungs],
        "values": text,
    }
