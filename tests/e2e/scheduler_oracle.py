"""Ask vLLM's own scheduler what it does with a load: cases in, its decisions step by step out, both JSON.

    PYTHONPATH=<vllm sources> <engine>/bin/python tests/e2e/scheduler_oracle.py < cases.json > results.json

``Scheduler`` and ``AsyncScheduler`` run as in ``EngineCore.step`` and ``step_with_batch_queue``, without a
model: which tokens a step samples is given with the case. The cache has the groups of a hybrid model (Gated
DeltaNet states, then full attention) with blocks small enough that a short load fills them. The configuration
is a real one, of a Qwen3.5 model on the stage of `gpu_stage`, with the case's limits written into it.
"""

from __future__ import annotations

import copy
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import gpu_stage
import kv_oracle

CONFIG = Path(__file__).parents[1] / "data" / "configs" / "qwen3.5-35b-a3b.json"
LONGEST_RUN = 20_000


class Drive:
    """One scheduler and a load."""

    hash_ahead = 0

    def __init__(self, case: dict[str, Any], base: Any) -> None:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler
        from vllm.v1.core.sched.scheduler import Scheduler
        from vllm.v1.structured_output import StructuredOutputManager

        vllm_config, cache = configure(case, base), cache_config(case)
        # Where nothing is cached, a state block spans the context (``resolve_kv_cache_block_sizes``).
        span = case["block_size"] if case["enable_prefix_caching"] else case["max_model_len"]
        kind = AsyncScheduler if case["async_scheduling"] else Scheduler
        self.scheduler = kind(
            vllm_config=vllm_config,
            kv_cache_config=cache,
            structured_output_manager=StructuredOutputManager(vllm_config),
            block_size=span,
            hash_block_size=span,
            log_stats=True,
        )
        self.case = case
        self.block_size = case["block_size"]
        self.requests = case["requests"]
        self.left = deque(sorted(range(len(self.requests)), key=lambda i: self.requests[i]["after"]))
        self.sampled = [0] * len(self.requests)
        self.steps: list[dict[str, Any]] = []
        self.hits = self.queries = self.processed = 0
        self.preempted: list[int] = []

    def run(self) -> list[dict[str, Any]]:
        """All decisions until nothing is left to do."""
        in_flight: deque[tuple[Any, dict[str, Any]]] = deque()
        depth = 2 if self.case["async_scheduling"] else 1
        for _ in range(LONGEST_RUN):
            self._arrive(busy=bool(in_flight))
            if not self.scheduler.has_requests() and not in_flight:
                return self.steps
            output = self.scheduler.schedule()
            step = self._seen(output)
            if output.total_num_scheduled_tokens:
                self.steps.append(step)
                self.preempted = []
                in_flight.append((output, step))
                if len(in_flight) < depth:
                    step["used_blocks"] = self._used()
                    continue
            if in_flight:
                done, _ = in_flight.popleft()
                self.scheduler.update_from_output(done, self._sample(done))
                self._draft(done)
                self.processed += 1
            if in_flight:
                in_flight[-1][1]["used_blocks"] = self._used()
        raise RuntimeError("the load does not end")

    def _arrive(self, *, busy: bool) -> None:
        """A request comes while its step runs, and is known once that step's outcome is."""
        known = self.processed
        if self.left and not busy and not self.scheduler.requests:
            known = max(known, self.requests[self.left[0]]["after"])
        while self.left and self.requests[self.left[0]]["after"] <= known:
            index = self.left.popleft()
            self.scheduler.add_request(new_request(index, self.requests[index], self.block_size))

    def _seen(self, output: Any) -> dict[str, Any]:
        stats = self.scheduler.kv_cache_manager.make_prefix_cache_stats()
        self.preempted += map(int, output.preempted_req_ids or ())
        self.hits += stats.hits
        self.queries += stats.queries
        return {
            "scheduled": {
                int(name): tokens - len(output.scheduled_spec_decode_tokens.get(name, ()))
                for name, tokens in output.num_scheduled_tokens.items()
            },
            "preempted": sorted(self.preempted),
            "used_blocks": self._used(),
            "hits": self.hits,
            "queries": self.queries,
        }

    def _used(self) -> int:
        pool = self.scheduler.kv_cache_manager.block_pool
        return int(pool.num_gpu_blocks - 1 - pool.get_num_free_blocks())

    def _sample(self, output: Any) -> Any:
        """The case's next tokens of every sequence that this step computed up to its end."""
        from vllm.v1.outputs import ModelRunnerOutput

        names = list(output.num_scheduled_tokens)
        tokens: list[list[int]] = []
        for name in names:
            request, index = self.scheduler.requests.get(name), int(name)
            done = output.computed_after[name] >= output.known[name]
            gains = self.requests[index]["gains"]
            if not done or request is None or self.sampled[index] >= len(gains):
                tokens.append([0] if done else [])
                continue
            most = 1 + len(output.scheduled_spec_decode_tokens.get(name, ()))
            gain = min(gains[self.sampled[index]], most)
            start = sum(gains[: self.sampled[index]])
            self.sampled[index] += 1
            tokens.append(self.requests[index]["output"][start : start + gain])
        return ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: index for index, name in enumerate(names)},
            sampled_token_ids=tokens,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=[],
        )

    def _draft(self, output: Any) -> None:
        """Drafts for the next step; an asynchronous scheduler has placed them already."""
        from vllm.v1.outputs import DraftTokenIds

        drafts = self.case["num_speculative_tokens"]
        if drafts and not self.case["async_scheduling"]:
            names = list(output.num_scheduled_tokens)
            self.scheduler.update_draft_token_ids(DraftTokenIds(names, [[0] * drafts for _ in names]))


def configure(case: dict[str, Any], base: Any) -> Any:
    """The base configuration with the case's limits."""
    made = copy.copy(base)
    made.scheduler_config = copy.copy(base.scheduler_config)
    made.cache_config = copy.copy(base.cache_config)
    made.model_config = copy.copy(base.model_config)
    made.scheduler_config.max_num_seqs = case["max_num_seqs"]
    made.scheduler_config.max_num_batched_tokens = case["max_num_batched_tokens"]
    made.scheduler_config.max_num_scheduled_tokens = None
    made.scheduler_config.async_scheduling = case["async_scheduling"]
    made.model_config.max_model_len = case["max_model_len"]
    cached = case["enable_prefix_caching"]
    made.cache_config.block_size = case["block_size"]
    made.cache_config.num_gpu_blocks = case["num_blocks"]
    made.cache_config.enable_prefix_caching = cached
    made.cache_config.mamba_cache_mode = "align" if cached and case["state_groups"] else "none"
    return made


def cache_config(case: dict[str, Any]) -> Any:
    """Groups of a hybrid model as vLLM's start-up makes them, states first."""
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, MambaSpec

    size, drafts = case["block_size"], case["num_speculative_tokens"]
    cached, exports = case["enable_prefix_caching"], case["exports_states"]
    mode = "align" if cached else "none"
    attention = FullAttentionSpec(block_size=size, num_kv_heads=1, head_size=16, dtype=torch.float16)
    state = MambaSpec(
        block_size=size if cached else case["max_model_len"],
        shapes=((16, 1),),
        dtypes=(torch.float16,),
        mamba_cache_mode=mode,
        num_speculative_blocks=drafts,
        num_prefill_checkpoint_blocks=int(exports),
        prefill_checkpoint_alignment=size if exports else None,
    )
    groups = [KVCacheGroupSpec([f"state.{index}"], state) for index in range(case["state_groups"])]
    full = KVCacheGroupSpec(["attention"], attention)
    full.is_eagle_group = drafts > 0
    return KVCacheConfig(
        num_blocks=case["num_blocks"],
        kv_cache_tensors=[],
        kv_cache_groups=[*groups, full],
        prefix_cache_retention_interval=0 if cached else None,
    )


def new_request(index: int, given: dict[str, Any], block_size: int) -> Any:
    """A request that goes on to its last token whatever is sampled."""
    from vllm.sampling_params import SamplingParams
    from vllm.utils.hashing import sha256
    from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
    from vllm.v1.request import Request

    init_none_hash(sha256)
    ahead = Drive.hash_ahead
    hasher = (
        get_request_block_hasher(block_size, sha256, ahead)
        if ahead
        else get_request_block_hasher(block_size, sha256)
    )
    return Request(
        request_id=str(index),
        prompt_token_ids=given["prompt"],
        sampling_params=SamplingParams(max_tokens=len(given["output"]), ignore_eos=True),
        pooling_params=None,
        block_hasher=hasher,
    )


def base_config(drafts: int) -> Any:
    """A real configuration of a model on one H100."""
    case = {
        "config": str(CONFIG),
        "max_model_len": 32768,
        "num_speculative_tokens": drafts,
        "enable_prefix_caching": True,
    }
    return kv_oracle.engine_config(case)


def note_progress(scheduler_class: Any) -> None:
    """Write into each step's output how far it takes every sequence and how long each is known to be."""
    original = scheduler_class._update_after_schedule

    def noting(self: Any, output: Any) -> None:
        before = {name: self.requests[name].num_computed_tokens for name in output.num_scheduled_tokens}
        output.known = {name: self.requests[name].num_tokens for name in before}
        output.computed_after = {
            name: before[name] + tokens for name, tokens in output.num_scheduled_tokens.items()
        }
        original(self, output)

    scheduler_class._update_after_schedule = noting


def main() -> int:
    """Answer the cases on standard input."""
    cases = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # vLLM prints
    gpu_stage.raise_curtain()
    gpu_stage.set_gpu("9.0")
    from vllm.v1.core.sched.scheduler import Scheduler

    note_progress(Scheduler)
    bases: dict[int, Any] = {}
    answers = []
    for case in cases:
        drafts = case["num_speculative_tokens"]
        if drafts not in bases:
            bases[drafts] = base_config(drafts)
        on = case["enable_prefix_caching"]
        Drive.hash_ahead = getattr(bases[drafts], "num_hash_lookahead_tokens", 0) if on else 0
        answers.append(Drive(case, bases[drafts]).run())
    json.dump(answers, output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
