"""The decision, and how it is kept in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from qwenhost.facts import AtLeastOne, Positive, Slo, Value, Workload
from qwenhost.files import decode_document, encode_document, read_document
from qwenhost.node import Node
from qwenhost.plan.engine import CheckpointRef, EngineArgs, LoraOptions, Parallelism
from qwenhost.plan.estimates import KvCache, MemoryBreakdown, SpeedEstimate
from qwenhost.plan.request import GpuPriceRef, Objective, Pins

if TYPE_CHECKING:
    from pathlib import Path


SCHEMA = "qwenhost.plan/1"
_NEW_PLAN = "Make a plan with: qwenhost plan --save plan.json"


class Candidate(Value, frozen=True, kw_only=True):
    """One way to run the model on the node, sized, timed and priced."""

    checkpoint: CheckpointRef
    parallelism: Parallelism
    engine_args: EngineArgs
    vllm_argv: tuple[str, ...] = ()
    """Filled by the renderer; ready to execute."""
    vllm_env: Mapping[str, str] = {}
    memory_per_gpu: MemoryBreakdown
    kv_cache: KvCache
    estimate: SpeedEstimate
    usd_per_hour: float | None
    """Of the whole node; None where no price is known."""
    usd_per_mtok_output: float | None
    """All rent charged to output tokens."""
    usd_per_mtok_blended: float | None
    """Rent over input and output tokens together."""
    concurrency_at_workload: int
    """Requests of the workload's size in flight, whole node."""
    concurrency_at_max_model_len: float
    notes: tuple[str, ...] = ()
    """Stated trade-offs, e.g. an uncalibrated FP8 cache."""
    formula: SpeedEstimate | None = None
    """The closed formula's figures, where ``estimate`` is the simulated engine's."""

    @property
    def label(self) -> str:
        """E.g. ``fp8 TP2, 262144 ctx, kv auto``."""
        args = self.engine_args
        mtp = f", MTP {args.num_speculative_tokens}" if args.num_speculative_tokens else ""
        layout = f"{self.checkpoint.id} {self.parallelism.label}"
        return f"{layout}, {args.max_model_len} ctx, kv {args.kv_cache_dtype}{mtp}"


class Rejection(Value, frozen=True, kw_only=True):
    """A combination that was not taken, and the rule that excluded it."""

    checkpoint: str
    parallelism: str
    rule: str
    """Short stable name, e.g. ``weights_do_not_fit``, ``tp_cuts_group``."""
    need_bytes: int | None = None
    have_bytes: int | None = None
    message: str
    link: str = ""


class Fallback(Value, frozen=True, kw_only=True):
    """A smaller configuration, sized in advance, for a start that fails in a known way."""

    trigger: Literal[
        "out_of_memory", "kv_cache_too_small", "state_blocks_too_few", "cudagraph_failure", "kernel_failure"
    ]
    candidate: Candidate
    change: str
    """What differs, for people."""


class PlanInputs(Value, frozen=True, kw_only=True):
    """What the plan was made from."""

    node: Node
    workload: str
    workload_detail: Workload
    slo: Slo
    objective: Objective
    pins: Pins
    concurrency: AtLeastOne | None
    rate: Positive | None
    gpu_price: GpuPriceRef | None
    catalog_digest: str
    newest_fact: str
    vllm_version: str
    qwenhost_version: str
    lora: LoraOptions | None = None
    method: Literal["formula", "simulate"] = "formula"
    """What ``estimate`` of the leading candidates comes from."""


class Plan(Value, frozen=True, kw_only=True):
    """The decision."""

    schema: str = SCHEMA
    inputs: PlanInputs
    chosen: Candidate
    alternatives: tuple[Candidate, ...]
    """Best first, the chosen one not repeated."""
    rejections: tuple[Rejection, ...]
    fallbacks: tuple[Fallback, ...] = ()


def plan_to_json(plan: Plan) -> bytes:
    """Indented JSON, deterministic."""
    return encode_document(plan)


def plan_from_json(data: bytes, *, name: str = "plan") -> Plan:
    """Decode a plan.

    Raises:
        BadInputError: not JSON, another schema version, or a wrong type; names the key.
    """
    return decode_document(data, Plan, schema=SCHEMA, name=name, what="a plan", remedy=_NEW_PLAN)


def load_plan(path: Path) -> Plan:
    """Read a saved plan.

    Raises:
        BadInputError: missing, unreadable or not a plan.
    """
    return read_document(path, Plan, schema=SCHEMA, what="a plan", remedy=_NEW_PLAN)
