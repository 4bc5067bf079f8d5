"""vidur's run of a trace, in its own environment: the question as JSON on stdin, the answer on stdout.

Run by ``simulated_against_vidur.py``, never by hand. Its predictor's tables are filled with the step times
asked for, in place of those it would fetch and train on; everything after them is vidur's own.
"""

from __future__ import annotations

import importlib
import json
import logging
import resource
import sys
import time
from pathlib import Path
from typing import Any

TOKENS_ONLY = (
    "attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_act", "attn_rope", "attn_kv_cache_save",
    "input_layernorm", "post_attention_layernorm", "add", "all_reduce",
)  # fmt: skip


def tables(asked: dict[str, Any]) -> dict[str, dict[tuple[int, ...], float]]:
    """Milliseconds of one layer by operation: all that depends on tokens in one, attention in two."""
    layers = asked["layers"]
    tokens = {(int(n),): ms / layers for n, ms in asked["tokens_ms"]}
    nothing = dict.fromkeys(tokens, 0.0)
    return {
        **dict.fromkeys(TOKENS_ONLY, nothing),
        "mlp_down_proj": tokens,
        "attn_decode": {(b, kv): ms / layers for b, kv, ms in asked["decode_ms"]},
        "attn_prefill": {(kv, n): ms / layers for kv, n, ms in asked["prefill_ms"]},
    }


def configured(asked: dict[str, Any], config: Any) -> Any:
    """One replica, its metrics kept but no plots and no Chrome trace."""
    return config.SimulationConfig(
        cluster_config=config.ClusterConfig(
            replica_config=config.ReplicaConfig(
                model_name=asked["model"], num_pipeline_stages=1, tensor_parallel_size=asked["tp"],
                gpu_memory_utilization=0.9,
            ),
            cache_config=config.CacheConfig(num_blocks=asked["num_blocks"], block_size=asked["block_size"]),
            replica_scheduler_config=config.SarathiSchedulerConfig(
                batch_size_cap=asked["max_num_seqs"], chunk_size=asked["max_num_batched_tokens"]
            ),
        ),
        request_generator_config=config.TraceRequestGeneratorConfig(
            trace_file=asked["trace"], date="2026-01-01", prefill_scale_factor=1, decode_scale_factor=1,
            time_scale_factor=1, max_tokens=asked["max_tokens"],
        ),
        execution_time_predictor_config=config.RandomForrestExecutionTimePredictorConfig(
            prediction_max_batch_size=asked["max_num_seqs"],
            prediction_max_tokens_per_request=asked["max_tokens"],
            prediction_max_prefill_chunk_size=asked["max_num_batched_tokens"],
            attention_decode_batching_overhead_fraction=0.0, nccl_cpu_launch_overhead_ms=0.0,
            use_native_execution_time_predictor=asked["native"], cache_dir=asked["folder"],
        ),
        metrics_config=config.MetricsConfig(
            enable_chrome_trace=False, store_plots=False, output_dir=asked["folder"],
        ),
    )  # fmt: skip


def main() -> None:
    """Run, answer."""
    asked = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    config = importlib.import_module("vidur.config")  # not installed with us
    predictor = importlib.import_module("vidur.execution_time_predictor.sklearn_execution_time_predictor")
    generator = importlib.import_module("vidur.request_generator.trace_replay_request_generator")
    simulator = importlib.import_module("vidur.simulator").Simulator
    filled = tables(asked)
    predictor.SklearnExecutionTimePredictor._load_predictions_from_hf = lambda _self: filled  # noqa: SLF001 - its one door for given times
    sent: list[Any] = []
    own = generator.TraceReplayRequestGenerator.generate_requests

    def kept(self: Any) -> list[Any]:
        sent.extend(own(self))
        return sent

    generator.TraceReplayRequestGenerator.generate_requests = kept
    settings = configured(asked, config)
    ready = time.process_time()
    simulator(settings).run()
    ended = time.process_time()
    ttft = [r.prefill_completed_at - r.arrived_at for r in sent]
    tpot = [
        (r.completed_at - r.prefill_completed_at) / (r.num_decode_tokens - 1)
        for r in sent
        if r.num_decode_tokens > 1
    ]
    answer = {
        "cpu_s": ended - ready,
        "start_cpu_s": ready,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "completed": sum(r.completed for r in sent),
        "ttft_s": ttft,
        "tpot_s": tpot,
    }
    Path(asked["answer"]).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
