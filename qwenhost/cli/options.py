"""Options that several commands share, so that they read and behave alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from qwenhost.cli.ranges import FloatRange

F = TypeVar("F", bound=Callable[..., Any])


def _stack(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout, nothing else.")

node_options = _stack(
    click.option(
        "--gpus",
        metavar="NxNAME|FILE",
        help="Hardware to plan for instead of this machine's: e.g. 2xH200, or what qwenhost inspect --json "
        "wrote on another (node.json).",
    ),
    click.option(
        "--interconnect", type=click.Choice(["nvlink", "pcie"]), help="Link between the GPUs of --gpus."
    ),
)


def objective_option(help_text: str = "What to be best at, within the service level.") -> Callable[[F], F]:
    """``--objective``, which plans are chosen for."""
    return click.option(
        "--objective",
        type=click.Choice(["cost", "throughput", "latency", "context"]),
        default="cost",
        show_default=True,
        help=help_text,
    )


workload_options = _stack(
    click.option(
        "--workload",
        default="chat",
        show_default=True,
        metavar="ID",
        help="Preset: qwenhost profiles list workloads.",
    ),
    click.option(
        "--input-tokens", type=click.IntRange(1), help="Mean prompt tokens, instead of the preset's."
    ),
    click.option(
        "--output-tokens", type=click.IntRange(1), help="Mean output tokens, instead of the preset's."
    ),
    click.option("--prefix-hit", type=FloatRange(0, 1), help="Share of prompt tokens found in a cache."),
    click.option("--slo-ttft-ms", type=FloatRange(0, min_open=True), help="Limit on time to first token."),
    click.option("--slo-tpot-ms", type=FloatRange(0, min_open=True), help="Limit on time per output token."),
)

load_options = _stack(
    click.option("--concurrency", type=click.IntRange(1), help="Closed loop: requests in flight."),
    click.option("--rate", type=FloatRange(0, min_open=True), help="Open loop: requests per second."),
)

pin_options = _stack(
    click.option(
        "--checkpoint",
        metavar="ID|DIR",
        help="Pin the checkpoint: an id (qwenhost profiles list checkpoints) or a folder with weights.",
    ),
    click.option("--tensor-parallel-size", "-tp", type=click.IntRange(1), help="Pin TP."),
    click.option("--pipeline-parallel-size", "-pp", type=click.IntRange(1), help="Pin PP."),
    click.option("--data-parallel-size", "-dp", type=click.IntRange(1), help="Pin DP."),
    click.option(
        "--enable-expert-parallel/--no-enable-expert-parallel",
        "-ep/",
        default=None,
        help="Pin expert parallelism.",
    ),
    click.option(
        "--kv-cache-dtype",
        type=click.Choice(["auto", "bfloat16", "fp8", "nvfp4"]),
        help="Pin the KV-cache type.",
    ),
    click.option("--max-model-len", type=click.IntRange(1), help="Pin the context length."),
    click.option("--max-num-seqs", type=click.IntRange(1), help="Pin the number of sequences."),
    click.option("--max-num-batched-tokens", type=click.IntRange(1), help="Pin the token budget of a step."),
    click.option(
        "--num-speculative-tokens", type=click.IntRange(0, 8), help="Pin MTP draft tokens; 0 is off."
    ),
    click.option("--gpu-memory-utilization", type=FloatRange(0.1, 1.0), help="Pin vLLM's share of the GPU."),
    click.option(
        "--enable-prefix-caching/--no-enable-prefix-caching", default=None, help="Pin prefix caching."
    ),
    click.option(
        "--language-model-only/--no-language-model-only",
        default=None,
        help="Leave the vision tower out, or keep it.",
    ),
    click.option(
        "--gdn-prefill-backend", type=click.Choice(["flashinfer", "triton"]), help="Pin the GDN kernel."
    ),
    click.option(
        "--mamba-ssm-cache-dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="Pin the type of the GDN state.",
    ),
    click.option(
        "--decode-context-parallel-size",
        "-dcp",
        type=click.IntRange(1),
        help="Ranks that hold different tokens instead of copies of a KV head.",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(1),
        help="Pin independent engines on the node, each with its own GPUs and port, behind a router.",
    ),
    click.option(
        "--prefix-match-unit",
        type=click.IntRange(1),
        help="Tokens at whose multiples prefix hits end; must divide the cache block.",
    ),
    click.option(
        "--available-kv-gib",
        type=FloatRange(0, min_open=True),
        help="Size the cache from a log's figure.",
    ),
)

lora_options = _stack(
    click.option("--max-loras", type=click.IntRange(1), help="LoRA adapters in one batch. [default: 1]"),
    click.option(
        "--max-lora-rank", type=click.IntRange(1), help="Highest rank. [default: that of the adapters, or 16]"
    ),
    click.option(
        "--lora-target-modules",
        multiple=True,
        metavar="NAME",
        help="Module that takes adapters, e.g. q_proj or experts; repeatable. [default: all]",
    ),
    click.option(
        "--lora-modules",
        multiple=True,
        metavar="NAME=DIR",
        help="Adapter folder and the name to serve it under; repeatable.",
    ),
)

price_options = _stack(
    click.option(
        "--gpu-price",
        type=FloatRange(0),
        metavar="USD",
        help="USD per GPU hour, instead of a listed one.",
    ),
    click.option(
        "--gpu-tier",
        default="on_demand",
        show_default=True,
        type=click.Choice(["on_demand", "hyperscaler", "reserved_1y", "spot", "community"]),
        help="Which listed GPU price.",
    ),
    click.option("--gpu-provider", help="Which provider's GPU price."),
)
