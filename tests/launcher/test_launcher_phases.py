"""vLLM's log as phases and figures: real logs of 0.32, and lines that multi-GPU runs published."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwenhost.launcher.phases import Phase, StartProgress, read_log, split_line

LOGS = Path(__file__).parent.parent / "logs"

# Lines of a two-GPU start as published; the second rank loads a little more and has a little less left.
TWO_GPUS = """\
(APIServer pid=1) INFO 11-23 10:00:00 [api_utils.py:347]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.33.0
(APIServer pid=1) INFO 11-23 10:00:01 [m.py:1] Resolved architecture: Qwen3_5MoeForConditionalGeneration
(APIServer pid=1) INFO 11-23 10:00:01 [x.py:1] Chunked prefill is enabled with max_num_batched_tokens=8192.
(EngineCore pid=2) INFO 11-23 10:00:09 [core.py:133] Initializing a V1 LLM engine (v0.33.0) with config: x
(Worker_TP0 pid=3) INFO 11-23 10:00:20 [x.py:1] world_size=2 rank=0 local_rank=0 backend=nccl
(Worker_TP0 pid=3) INFO 11-23 10:00:21 [x.py:1] Loading model from scratch...
Fetching 39 files:  10%|#         | 4/39 [00:10<01:10]
Loading safetensors checkpoint shards:  33% Completed | 13/39 [00:03<00:07,  3.51s/it]
(Worker_TP0 pid=3) INFO 11-23 10:05:00 [x.py:1] Model loading took 36.73 GiB memory and 684.785983 seconds
(Worker_TP1 pid=4) INFO 11-23 10:05:01 [x.py:1] Model loading took 36.81 GiB memory and 684.9 seconds
(Worker_TP0 pid=3) INFO 11-23 10:05:02 [x.py:1] Setting attention block size to 1056 tokens to ensure that
(Worker_TP0 pid=3) INFO 11-23 10:05:03 [x.py:1] Encoder cache will be initialized with a budget of 16384
(Worker_TP0 pid=3) INFO 11-23 10:05:20 [x.py:1] torch.compile took 41.20 s in total
(Worker_TP0 pid=3) INFO 11-23 10:06:00 [x.py:1] Available KV cache memory: 1.80 GiB
(Worker_TP1 pid=4) INFO 11-23 10:06:00 [x.py:1] Available KV cache memory: 1.73 GiB
(EngineCore pid=2) INFO 11-23 10:06:01 [x.py:1] GPU KV cache size: 75,168 tokens
(EngineCore pid=2) INFO 11-23 10:06:01 [x.py:1] Maximum concurrency for 131,072 tokens per request: 1.89x
Capturing CUDA graphs (FULL):  50%|#####     | 17/35 [00:02<00:02]
(Worker_TP0 pid=3) INFO 11-23 10:06:30 [x.py:1] Graph capturing finished in 12 secs, took 0.61 GiB
(APIServer pid=1) INFO 11-23 10:06:31 [x.py:1] Starting vLLM server on http://127.0.0.1:8000
"""


def test_a_line_comes_apart_into_process_level_and_text() -> None:
    """Prefix, time and source file go; the words stay."""
    line = split_line("(Worker_TP1 pid=843) INFO 11-23 13:06:52 [a.py:1] Using max model len 2048")
    assert (line.process, line.level, line.text) == ("Worker_TP1", "INFO", "Using max model len 2048")


@pytest.mark.parametrize("raw", ["", "INFO:     Application startup complete.", '  File "x.py", line 1'])
def test_a_line_without_prefix_is_kept_whole(raw: str) -> None:
    """uvicorn's, tqdm's and traceback lines have no vLLM prefix."""
    line = split_line(raw)
    assert (line.process, line.level, line.text) == ("", "", raw)


def test_colour_is_taken_off() -> None:
    """VLLM colours its prefix on some terminals."""
    assert (
        split_line("\x1b[0;36m(EngineCore pid=2)\x1b[0;0m INFO 11-23 10:00:00 [a.py:1] x").process
        == "EngineCore"
    )


def test_a_real_cpu_start_passes_through_its_phases_in_order() -> None:
    """The phases of vLLM 0.32's log on CPU, each once."""
    progress, seen = StartProgress(), []
    for raw in (LOGS / "vllm-0.32-cpu-start.log").read_text().splitlines():
        after = progress.after(split_line(raw))
        if after.phase is not progress.phase:
            seen.append(after.phase)
        progress = after
    assert seen == [
        Phase.PARSE, Phase.CONFIG, Phase.ENGINE, Phase.WORKERS,
        Phase.WEIGHTS, Phase.KV, Phase.GRAPHS, Phase.API,
    ]  # fmt: skip


def test_a_real_cpu_start_gives_its_figures() -> None:
    """Read off the log by eye."""
    figures = read_log((LOGS / "vllm-0.32-cpu-start.log").read_text()).figures
    assert figures.vllm_version == "0.32.0"
    assert figures.max_model_len == 2048
    assert figures.block_size == 256
    assert figures.available_kv_gib == 1.0
    assert figures.kv_cache_tokens == 1_198_372
    assert figures.concurrency_at_max_model_len == 585.14
    assert figures.init_engine_s == 0.57


def test_the_draft_models_length_does_not_replace_the_targets() -> None:
    """With MTP the log names 2048 for the model, then 8192 for its draft."""
    assert read_log((LOGS / "vllm-0.32-cpu-engine-death.log").read_text()).figures.max_model_len == 2048


def test_compiling_is_told_from_disabling_it() -> None:
    """'disabling torch.compile' is a line of the configuration; a compiled start does compile."""
    eager = read_log(
        "(APIServer pid=1) WARNING 11-23 10:00:00 [v.py:1] Enforce eager set, disabling torch.compile"
    )
    assert eager.phase is Phase.SPAWN
    compiled = StartProgress()
    phases = set()
    for raw in (LOGS / "vllm-0.32-cpu-compiled-start.log").read_text().splitlines():
        compiled = compiled.after(split_line(raw))
        phases.add(compiled.phase)
    assert Phase.COMPILE in phases


def test_of_several_ranks_the_tightest_figure_counts() -> None:
    """Most weights, least cache; the older two-line form of the cache size is read too."""
    figures = read_log(TWO_GPUS).figures
    assert figures.model_loading_gib == 36.81
    assert figures.available_kv_gib == 1.73
    assert figures.kv_cache_tokens == 75_168
    assert figures.concurrency_at_max_model_len == 1.89
    assert figures.max_num_batched_tokens == 8192
    assert figures.cudagraph_gib == 0.61
    assert figures.compile_s == 41.2
    assert figures.block_size == 1056


def test_shards_and_graphs_are_counted() -> None:
    """13 of 39 shards while loading; 17 of 35 graphs while capturing."""
    head, _, tail = TWO_GPUS.partition("(Worker_TP0 pid=3) INFO 11-23 10:05:00")
    loading = read_log(head)
    assert (loading.phase, loading.label) == (Phase.WEIGHTS, "loading weights 13/39")
    capturing = read_log(head + tail.partition("(Worker_TP0 pid=3) INFO 11-23 10:06:30")[0])
    assert (capturing.phase, capturing.done, capturing.total) == (Phase.GRAPHS, 17, 35)


def test_a_phase_never_goes_back() -> None:
    """Workers write late lines of earlier phases."""
    progress = read_log(
        TWO_GPUS + "(Worker_TP1 pid=4) INFO 11-23 10:06:40 [x.py:1] Loading weights took 3 seconds\n"
    )
    assert progress.phase is Phase.API
