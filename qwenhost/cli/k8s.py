"""``qwenhost k8s``: plans for a cluster, on its GPUs, and manifests that fit together."""

from __future__ import annotations

import click

from qwenhost.cli.k8s_check import check
from qwenhost.cli.k8s_init import init
from qwenhost.cli.k8s_plan import plan


@click.group("k8s")
def command() -> None:
    """Plan for a cluster's GPUs, plan on the GPUs a pod was given, check manifests.

    \b
    kubectl get nodes -o json | qwenhost k8s plan - --output values.yaml
    helm install qwen k8s/chart -f values.yaml
    helm template qwen k8s/chart -f values.yaml | qwenhost k8s check -
    """  # noqa: D301 - click wants the character itself


command.add_command(plan)
command.add_command(init)
command.add_command(check)
