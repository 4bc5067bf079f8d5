"""Strangers' throughput rows as questions to the speed model; shared by the speed benchmarks.

Which rows are taken is decided here, by what a row says of itself and never by how far a prediction
lies from it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
from strangers import Record, records

from qwenhost.node import parse_gpus
from qwenhost.plan import Parallelism, StepShape
from qwenhost.planner.constants import Constants
from qwenhost.planner.performance import StepModel, StepOptions
from qwenhost.planner.service import Demand, Load, closed_loop, open_loop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qwenhost.facts import Calibration

MOST_SEQUENCES = 1024  # vLLM's default where max_num_seqs is not given
UNKNOWN_CONTEXT_TOKENS = 1024  # where neither prompt nor answer length is given
WINDOW_S = 30.0  # of llm_decode_bench; its answers have at most 8,192 tokens
WINDOW_ANSWER_TOKENS = 8192
# Longer first tokens than a tenth of its window leave too little of it for decoding.
LONGEST_FIRST_TOKEN_S = 0.1 * WINDOW_S
# Users who all hold one prompt write alike and meet in fewer experts: their rows' skew over that of diverse
# prompts. Fitted beside the constants (fit_speed.py), and no part of the model.
ONE_PROMPT = "rows/one_prompt_skew"
ONE_PROMPT_SKEW = 1.27
SKEW = "common/expert_skew_decay"
WIDEST_RANGE = 0.15  # a range is taken at its middle up to this half width

REASON_NOT_VLLM = "not vLLM"
REASON_NOT_NVIDIA = "not an NVIDIA GPU"
REASON_DENSE = "dense model: the speed model is of the family with experts"
REASON_GPU_UNNAMED = "the GPU is not named"
REASON_NO_CALIBRATION = "a fork for V100: neither its kernels nor the GPU are calibrated"
REASON_PATCHED = "patched engine (INT8 lm_head, FP8 shared experts): not the checkpoint nor the engine"
REASON_NO_CONCURRENCY = "neither requests in flight nor a rate given"
REASON_NO_LENGTH = "prompt length is a range of 4 to 16 thousand tokens"
REASON_WINDOW = "first token after more than 3 s of a 30 s window: the source calls such cells window-limited"
REASON_WIDE = "a range wider than 15 % either way"
REASON_TITLE = "no figure compared here"

BY_RECORD = {
    "122b-awq4-tp2-ada-fp8kv-131k": REASON_GPU_UNNAMED,
    "qwen36-27b-nvfp4-nvidia-nomtp-util070": REASON_GPU_UNNAMED,
    "397b-awq-8xv100-tp8": REASON_NO_CALIBRATION,
    "122b-int4-hybrid-spark-mtp2-262k": REASON_PATCHED,
}


@dataclass(frozen=True)
class Point:
    """One row: what ran, under which load, and what was measured."""

    record: Record
    row: int
    source: str
    kind: str
    """``decode``: tokens per second while decoding; ``loop``: closed loop with prompts; ``prefill``: lone
    prompts; ``open``: prompts at a rate, latencies compared."""
    concurrency: int
    input_tokens: float
    output_tokens: float
    output_tok_s: float | None = None
    tpot_s: float | None = None
    ttft_s: float | None = None
    rate: float | None = None
    """Requests per second of an open loop, as completed."""
    one_prompt: bool = False
    """All users hold the same prompt: the cache use in two of the sources shows it stored once."""

    @property
    def label(self) -> str:
        """Load in words."""
        if self.rate:
            return f"{self.rate:.3f}/s x {self.input_tokens:,.0f}+{self.output_tokens:,.0f}"
        return f"{self.concurrency} x {self.input_tokens:,.0f}+{self.output_tokens:,.0f}"

    @property
    def in_fit(self) -> bool:
        """Lone prompts timed with the prefix cache on are shown, not fitted: a part may have been found.

        Between 16k and 64k the time they add would take 650 TFLOP/s of attention, on a GPU of 504. Nor are
        open loops, whose latencies hang on how near their rate is to what the engine can carry.
        """
        return self.kind != "open" and not self.may_be_cached

    @property
    def may_be_cached(self) -> bool:
        """A lone prompt, timed with the prefix cache on."""
        return self.kind == "prefill" and self.one_prompt

    @property
    def drafts(self) -> int:
        """MTP draft tokens."""
        return int(self.record.flags.get("mtp_tokens") or 0)

    @property
    def group(self) -> str:
        """Architecture of the GPU, as the tables group."""
        spec = self.record.catalog.gpus[self.record.setup["gpu"]]
        return spec.name if spec.id == "gb10" else spec.architecture


@dataclass(frozen=True)
class Prediction:
    """The same three figures from the model."""

    output_tok_s: float | None
    tpot_s: float | None
    ttft_s: float | None


def points() -> tuple[list[Point], list[tuple[str, int, str]]]:
    """Rows to compare, and (record, row, reason) of those left out."""
    taken: list[Point] = []
    left_out: list[tuple[str, int, str]] = []
    for record in records():
        for number, row in enumerate(_rows(record), start=1):
            reason = _reason(record, row)
            point = None if reason else _point(record, number, row)
            if point is None:
                left_out.append((record.id, number, reason or REASON_TITLE))
            else:
                taken.append(point)
    return taken, left_out


def predict(point: Point, overrides: Mapping[str, float] | None = None) -> Prediction:
    """The model's figures, with constants replaced (``row/constant``, ``row/kernel.field``)."""
    model = step_model(point.record, _of_its_prompts(point, overrides or {}))
    flags = point.record.flags
    demand = Demand(point.input_tokens, 0.0, max(1.0, point.output_tokens))
    batch = _batch(point.record)
    if point.kind == "decode":
        users = min(point.concurrency, int(flags.get("max_num_seqs") or 10**6))
        step = model.seconds(
            StepShape(decode_sequences=users, decode_context_tokens=round(_context(point, users)))
        )
        rate = users * model.tokens_per_step / step
        return Prediction(rate, step / model.tokens_per_step, None)
    if point.kind == "prefill":
        alone = closed_loop(model, demand._replace(output_tokens=1.0), Load(1, batch))
        return Prediction(None, None, alone.ttft_s)
    if point.rate is not None:
        service = open_loop(
            model, demand, Load(int(flags.get("max_num_seqs") or MOST_SEQUENCES), batch), point.rate
        )
        return Prediction(None, service.tpot_s, service.ttft_s)
    service = closed_loop(model, demand, Load(point.concurrency, batch))
    ttft_s = service.ttft_s if point.ttft_s is not None else None
    return Prediction(service.requests_per_s * point.output_tokens, service.tpot_s, ttft_s)


def _of_its_prompts(point: Point, overrides: Mapping[str, float]) -> dict[str, float]:
    constants = {name: value for name, value in overrides.items() if name != ONE_PROMPT}
    if point.one_prompt:
        shipped = point.record.catalog.calibrations["common"].constants["expert_skew_decay"]
        constants[SKEW] = constants.get(SKEW, shipped) * overrides.get(ONE_PROMPT, ONE_PROMPT_SKEW)
    return constants


def step_model(record: Record, overrides: Mapping[str, float] | None = None) -> StepModel:
    """The speed model of a record's engine."""
    catalog, flags = record.catalog, record.flags
    spec, checkpoint = catalog.gpus[record.setup["gpu"]], catalog.checkpoints[record.setup["checkpoint"]]
    architecture = catalog.architectures[checkpoint.architecture]
    constants = Constants(spec, _replaced(catalog.calibrations, overrides or {}))
    parameters, formats = _counted(record.setup["checkpoint"])
    count = record.gpu_count
    node = parse_gpus(f"{count}x{record.setup['gpu']}", catalog.gpus)
    dtype = str(flags.get("kv_cache_dtype") or "auto")
    return StepModel(
        architecture=architecture,
        checkpoint=checkpoint,
        parameters=parameters,
        formats=formats,
        parallelism=Parallelism(
            tensor_parallel_size=int(flags.get("tp") or count),
            data_parallel_size=int(flags.get("dp") or 1),
            enable_expert_parallel=bool(flags.get("ep")),
        ),
        options=StepOptions(
            kv_cache_dtype="fp8" if dtype.startswith("fp8") else "auto",
            num_speculative_tokens=int(flags.get("mtp_tokens") or 0),
            enforce_eager=bool(flags.get("enforce_eager")),
        ),
        spec=spec,
        constants=constants,
        interconnect=node.interconnect,
    )


def _replaced(rows: Mapping[str, Calibration], overrides: Mapping[str, float]) -> dict[str, Calibration]:
    """Calibrations with some values replaced: ``row/constant`` or ``row/kernel.field``."""
    found = dict(rows)
    for path, value in overrides.items():
        row_id, name = path.split("/")
        row = found[row_id]
        kernel, _, field = name.partition(".")
        if field:
            changed = {kernel: msgspec.structs.replace(row.kernels[kernel], **{field: value})}
            found[row_id] = msgspec.structs.replace(row, kernels={**row.kernels, **changed})
        else:
            found[row_id] = msgspec.structs.replace(row, constants={**row.constants, name: value})
    return found


@lru_cache(maxsize=64)
def _counted(checkpoint_id: str) -> tuple[Any, Any]:
    catalog = _catalog()
    checkpoint = catalog.checkpoints[checkpoint_id]
    parameters = catalog.architectures[checkpoint.architecture].parameters
    return parameters, {group: catalog.formats[checkpoint.format_of(group)] for group in parameters}


@lru_cache(maxsize=1)
def _catalog() -> Any:
    return records()[0].catalog


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    """Throughput rows, then single prompts timed by themselves."""
    yield from record.fields.get("throughput") or []
    for tokens, measured in (record.fields.get("prefill_measured") or {}).items():
        yield {
            "workload": {
                "input_tokens": int(tokens), "concurrency": 1, "alone": True, "dataset": "llm_decode_bench",
            },
            "ttft_ms": {"mean": 1000 * measured["ttft_s"]},
        }  # fmt: skip


def _reason(record: Record, row: dict[str, Any]) -> str | None:
    """Why a row is left out; None where it is compared."""
    return _record_reason(record) or _row_reason(row)


def _record_reason(record: Record) -> str | None:
    if record.fields.get("engine") != "vllm":
        return REASON_NOT_VLLM
    if "checkpoint" not in record.setup:
        return str(record.setup.get("skip", {}).get("all", REASON_TITLE))
    spec = record.catalog.gpus[record.setup["gpu"]]
    checkpoint = record.catalog.checkpoints[record.setup["checkpoint"]]
    if spec.architecture.startswith(("cdna", "rdna")):
        return REASON_NOT_NVIDIA
    dense = record.catalog.architectures[checkpoint.architecture].num_experts == 0
    return BY_RECORD.get(record.id) or (REASON_DENSE if dense else None)


def _row_reason(row: dict[str, Any]) -> str | None:
    work = row["workload"]
    low_high = row.get("output_tok_s_range") or (1, 1)
    window = "llm_decode_bench" in str(work.get("dataset", "")) and not work.get("alone")
    rules = (
        (not work.get("concurrency") and not row.get("req_s"), REASON_NO_CONCURRENCY),
        ("RAG 4-16K" in str(work.get("note", "")), REASON_NO_LENGTH),
        (window and (_milliseconds(row.get("ttft_ms")) or 0) > LONGEST_FIRST_TOKEN_S, REASON_WINDOW),
        ((low_high[1] - low_high[0]) / (low_high[1] + low_high[0]) > WIDEST_RANGE, REASON_WIDE),
    )
    return next((reason for applies, reason in rules if applies), None)


def _point(record: Record, number: int, row: dict[str, Any]) -> Point | None:
    work, name = row["workload"], str(row["workload"].get("dataset", ""))
    users, tokens = int(work.get("concurrency") or 0), float(work.get("input_tokens") or 0)
    window = "llm_decode_bench" in name
    rate, per_user = row.get("output_tok_s"), row.get("output_tok_s_per_user")
    if row.get("output_tok_s_range"):
        rate = sum(row["output_tok_s_range"]) / 2
    tpot, ttft = _milliseconds(row.get("tpot_ms")), _milliseconds(row.get("ttft_ms"))
    decoding = window or "llama-benchy" in name or (users == 1 and bool(rate) and not tokens)
    if rate is None and per_user:
        tpot = 1 / per_user
    if not users:
        kind, rate = "open", None
    elif rate is None and tpot is None:
        kind = "prefill"
        ttft = tokens / row["prefill_tok_s"] if row.get("prefill_tok_s") else ttft
        if not ttft or not tokens:
            return None
    else:
        kind = "decode" if decoding else "loop"
    if kind == "decode":
        # Sizes are not all given, or prompts were repeated and found in the prefix cache.
        tpot, ttft = users / rate if rate else tpot, None
    return Point(
        record=record,
        row=number,
        source=_repository(re.sub(r"\s.*", "", str(record.fields["source"])).rstrip("/")),
        kind=kind,
        concurrency=users,
        input_tokens=tokens,
        output_tokens=WINDOW_ANSWER_TOKENS if window else float(work.get("output_tokens") or 0),
        output_tok_s=rate,
        tpot_s=tpot,
        ttft_s=ttft,
        one_prompt=window,
        rate=float(row["req_s"]) if not users else None,
    )


def _repository(source: str) -> str:
    """github.com/owner/name, or what stands for it: one source per author and suite."""
    found = re.match(r"(?:github\.com/)?([^/#]+/[^/#]+)", source)
    return found.group(1) if found else source


def _context(point: Point, users: int) -> float:
    """Context tokens read in a step. Where all users hold one prompt, it is stored and read once."""
    if not point.input_tokens and not point.output_tokens:
        return users * UNKNOWN_CONTEXT_TOKENS
    if point.one_prompt:
        answer = min(point.output_tokens, WINDOW_S * (point.output_tok_s or 0.0) / point.concurrency)
        return point.input_tokens + users * answer / 2
    return users * (point.input_tokens + point.output_tokens / 2)


@lru_cache(maxsize=64)
def _batch_of(record_id: str) -> int:
    record = next(one for one in records() if one.id == record_id)
    return record.start.figures().max_num_batched_tokens


def _batch(record: Record) -> int:
    """max_num_batched_tokens, vLLM's default where not given."""
    return int(record.flags.get("max_num_batched_tokens") or 0) or _batch_of(record.id)


def _milliseconds(value: Any) -> float | None:
    """Seconds from a number or a mean, in milliseconds."""
    if isinstance(value, dict):
        value = value.get("mean")
    return float(value) / 1000 if value else None
