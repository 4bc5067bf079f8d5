"""The H200 campaign without an engine: what it would do, in which order, and what it keeps when cut off."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

H200 = Path(__file__).parents[2] / "benchmarks" / "h200"
MODULES = ("campaign", "counted_steps", "engine", "memory", "preflight", "schedule", "stage", "serving")


@pytest.fixture(scope="module")
def tools() -> Any:
    """The campaign's modules, which import each other by bare names as a script's do."""
    sys.path.insert(0, str(H200))
    import importlib

    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(H200))


@pytest.fixture
def stage(tools: Any, tmp_path: Path) -> Any:
    return tools.stage.h200(tmp_path / "out")


def campaign(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(H200 / "campaign.py"), *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("budget_s", [600, 1200, 1800, 3600])
def test_a_schedule_stays_within_the_lease_and_each_call_within_its_limit(tools: Any, budget_s: int) -> None:
    calls = list(tools.schedule.calls(budget_s, 6, tools.schedule.pieces()))
    assert tools.schedule.MACHINE_S + sum(call.seconds for call in calls) <= budget_s
    assert all(call.seconds <= 560 for call in calls)


def test_thirty_minutes_reach_both_checkpoints_step_times_and_memory(tools: Any) -> None:
    done = [
        piece.name for call in tools.schedule.calls(1800, 6, tools.schedule.pieces()) for piece in call.pieces
    ]
    assert done[:3] == ["preflight result", "step_times gptq-int4", "step_times fp8"]
    assert any(name.startswith("memory") for name in done)


def test_the_rest_of_a_lease_takes_what_still_fits(tools: Any) -> None:
    """Of 250 s, 120 go to the machine's start: a memory start of 125 s fits, none of step times does."""
    calls = list(tools.schedule.calls(250, 0, tools.schedule.pieces()[1:]))
    assert [piece.name for call in calls for piece in call.pieces] == ["memory int4-kv-fp8"]
    assert calls[0].title == "memory --fill"


def test_every_start_and_every_serving_pair_is_scheduled_once(tools: Any) -> None:
    names = [piece.name for piece in tools.schedule.pieces()]
    assert len(names) == len(set(names))
    assert {name.split()[1] for name in names if name.startswith("memory")} == set(tools.memory.STARTS)
    assert sum(name.startswith("serving") for name in names) == 9  # 3 presets x 3 sets of flags


def test_a_dry_run_prints_the_schedule_starts_nothing_and_knows_what_is_done(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = campaign("all", "--out", str(out), "--dry-run", "--budget-s", "1800")
    assert first.returncode == 0
    assert "call 7: all" in first.stdout
    assert not out.exists()
    (out / "results").mkdir(parents=True)
    (out / "results" / "preflight.result.json").write_text("{}")
    again = campaign("all", "--out", str(out), "--dry-run")
    assert "preflight" not in again.stdout


def test_no_piece_begins_that_could_not_end_in_the_call(tmp_path: Path) -> None:
    ended = campaign("memory", "--out", str(tmp_path / "out"), "--seconds", "20")
    assert ended.returncode == 75
    assert ended.stdout == "12 left\n"  # The 12 starts, none of 125 s begun within 20.


@pytest.mark.parametrize(
    ("kind", "batch", "context", "expected"),
    [
        # Int4's cache: blocks of 2096 tokens, 3 for the states of a sequence beside its tokens'.
        ("prefill", 1, 1024, 3 + 1),
        ("decode", 1, 1024, 3 + 1),  # 192 + 1 output tokens: 1217 in all
        ("decode", 256, 1024, 256 * (3 + 1)),  # 192 + 32: 1248
        ("decode", 8, 32768, 8 * (3 + 16)),  # 192 + 32: 32992 = 15.7 blocks
    ],
)
def test_a_load_takes_blocks_for_states_and_for_tokens(
    tools: Any, stage: Any, *, kind: str, batch: int, context: int, expected: int
) -> None:
    cache = {"state_blocks_per_sequence": 3, "block_size": 2096}
    assert tools.counted_steps.blocks(stage, kind, batch, context, cache) == expected


def test_all_sequences_still_decode_when_the_last_prompt_is_done(tools: Any, stage: Any) -> None:
    # 64 prompts of 8192 take 64 steps of 8192 tokens, in which the first one decodes.
    assert tools.counted_steps.output_tokens(stage, 64, 8192) == 192 + 64


@pytest.mark.parametrize("checkpoint", ["gptq-int4", "fp8"])
def test_the_step_times_plan_of_each_checkpoint_exists_and_fits(
    tools: Any, stage: Any, checkpoint: str
) -> None:
    """256 sequences at once do not fit FP8 on one H200: fewer are planned instead of giving up."""
    top, plan = tools.counted_steps.widest(stage, checkpoint)
    assert top in stage.batches
    assert plan["chosen"]["vllm_argv"][plan["chosen"]["vllm_argv"].index("--max-num-seqs") + 1] == str(top)


@pytest.mark.parametrize("name", ["int4", "fp8-mtp2", "int4-32k"])
def test_each_memory_start_has_a_plan_for_the_version_of_the_bundle(
    tools: Any, stage: Any, name: str
) -> None:
    checkpoint, options = tools.memory.STARTS[name]
    plan = stage.plan(checkpoint, *options)
    assert (
        plan["inputs"]["options"]["vllm_version"] == "0.26.0"
        if "options" in plan["inputs"]
        else plan["chosen"]
    )


def test_a_command_that_fails_or_hangs_is_named(stage: Any, tools: Any) -> None:
    with pytest.raises(tools.stage.StepFailedError, match="ended with 7: why"):
        stage.call(sys.executable, "-c", "import sys; print('why', file=sys.stderr); sys.exit(7)")
    hurried = replace(stage, deadline=time.monotonic())
    with pytest.raises(tools.stage.StepFailedError, match="not done after 1 s"):
        hurried.call(sys.executable, "-c", "import time; time.sleep(60)")


def test_a_failed_piece_is_a_result_and_repeated_only_when_asked(
    tools: Any, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    piece = tools.schedule.pieces()[1]

    def fail(*_: object) -> None:
        raise tools.stage.StepFailedError("no plan")

    monkeypatch.setattr(tools.counted_steps, "run", fail)
    result = tools.campaign.measured(stage, piece)
    assert result["failed"] == "StepFailedError: no plan"
    stage.keep(piece.step, piece.key, result)
    assert tools.campaign.done(stage, piece, again=False)
    assert not tools.campaign.done(stage, piece, again=True)


def test_each_result_is_in_the_archive_at_once(stage: Any, tmp_path: Path) -> None:
    packing = replace(stage, pack=tmp_path / "results.tar.gz")
    for number in (1, 2):
        packing.keep("memory", f"start-{number}", {"number": number})
        with tarfile.open(packing.pack) as archive:
            names = {name for name in archive.getnames() if name.endswith(".json")}
        assert names == {f"results/memory.start-{done}.json" for done in range(1, number + 1)}


@pytest.mark.parametrize(
    ("failed", "env", "flags"),
    [
        ((), {}, []),
        (("gdn_prefill",), {}, ["--gdn-prefill-backend", "triton"]),
        (("sampler", "deep_gemm"), {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_USE_DEEP_GEMM": "0"}, []),
        (("gpu", "nvcc"), {}, []),
    ],
)
def test_what_cannot_be_built_there_is_gone_without(
    tools: Any, stage: Any, failed: tuple[str, ...], env: dict[str, str], flags: list[str]
) -> None:
    names = [*tools.preflight.PYTHON_CHECKS, *tools.preflight.COMMAND_CHECKS]
    found = tools.preflight.fall_backs({name: {"ok": name not in failed} for name in names})
    assert found == {"env": env, "flags": flags}
    stage.keep("preflight", "result", found)
    assert env.items() <= stage.environment().items()


def test_the_engine_finds_compilers_caches_and_the_folder_that_a_pth_file_names(
    tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dsl = tmp_path / "site" / "nvidia_cutlass_dsl" / "dsl_packages"
    dsl.mkdir(parents=True)
    for name in ("cuda/bin/nvcc", "cuda/include/cuda_runtime.h"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    headers = tmp_path / "site" / "nvidia" / "cu13" / "include"
    headers.mkdir(parents=True)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "cuda"))
    env = tools.stage.h200_env(tmp_path / "out")
    assert env["PYTHONPATH"].split(os.pathsep)[1:] == [str(tmp_path / "site"), str(dsl)]
    assert f"{tmp_path}/cuda/bin" in env["PATH"].split(os.pathsep)
    assert env["CUDA_HOME"] == str(tmp_path / "cuda")
    assert str(headers) in env["CPATH"].split(os.pathsep)
    assert env["HF_HUB_OFFLINE"] == "1"


def test_an_engine_that_a_killed_call_left_is_ended_and_a_stranger_is_not(tools: Any, tmp_path: Path) -> None:
    note = tmp_path / "engine.pid"
    for title, survives in (("vllm serve", False), ("someone else", True)):
        process = subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)", title], start_new_session=True
        )
        note.write_text(f"{process.pid}\n")
        tools.engine.end_left_behind(note)
        assert (process.poll() is None) == survives
        assert not note.exists()
        process.kill()
        process.wait()


def test_what_found_no_rate_or_was_not_measured_is_left_out_of_the_verdict(tools: Any, stage: Any) -> None:
    stage.keep("serving", "chat-plan", {})
    made = tools.campaign.verdict.run(stage)["presets"]
    assert made["chat"] == {"left_out": "no rate kept the service level"}
    assert made["tool_agent"] == {"left_out": "not measured"}


def test_the_linker_finds_the_driver_by_its_short_name(tools: Any, tmp_path: Path) -> None:
    assert tools.stage.link_driver(tmp_path / "out", (str(tmp_path),)) is None
    driver = tmp_path / "libcuda.so.1"
    driver.touch()
    for _ in ("first", "again"):
        assert tools.stage.link_driver(tmp_path / "out", (str(tmp_path / "none"), str(tmp_path))) == str(
            driver
        )
    assert (tmp_path / "out" / "lib" / "libcuda.so").resolve() == driver
    assert str(tmp_path / "out" / "lib") in tools.stage.h200_env(tmp_path / "out")["LIBRARY_PATH"]
