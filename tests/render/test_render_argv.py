"""The command line made from a candidate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from render_samples import CANDIDATE, REVISION, candidate

from qwenhost.errors import BadInputError
from qwenhost.plan import EngineArgs, SpeculativeConfig
from qwenhost.render import vllm_argv
from qwenhost.render.flags import environment

KNOWN_FLAGS = frozenset((Path(__file__).parent.parent / "data/vllm-serve-flags-0.33.txt").read_text().split())


def test_the_whole_command_line() -> None:
    """Every choice of the plan is on the command line, in one order, and nothing else."""
    assert vllm_argv(CANDIDATE) == [
        "vllm", "serve", "Qwen/Qwen3.5-122B-A10B-FP8",
        "--revision", REVISION,
        "--served-model-name", "Qwen/Qwen3.5-122B-A10B-FP8",
        "--host", "127.0.0.1",
        "--port", "8000",
        "--tensor-parallel-size", "2",
        "--pipeline-parallel-size", "1",
        "--data-parallel-size", "1",
        "--no-enable-expert-parallel",
        "--max-model-len", "262144",
        "--max-num-seqs", "128",
        "--max-num-batched-tokens", "8192",
        "--gpu-memory-utilization", "0.92",
        "--no-enable-prefix-caching",
        "--no-language-model-only",
        "--no-enforce-eager",
        "--speculative-config", '{"method":"mtp","num_speculative_tokens":1}',
        "--reasoning-parser", "qwen3",
        "--enable-auto-tool-choice",
        "--tool-call-parser", "qwen3_coder",
    ]  # fmt: skip


def test_a_local_folder_has_no_revision() -> None:
    """A folder is served under the checkpoint's name, and a hub commit means nothing for it."""
    argv = vllm_argv(CANDIDATE, model="/models/qwen", host="0.0.0.0", port=9000)
    assert argv[2] == "/models/qwen"
    assert "--revision" not in argv
    assert argv[argv.index("--served-model-name") + 1] == "Qwen/Qwen3.5-122B-A10B-FP8"
    assert argv[argv.index("--host") + 1] == "0.0.0.0"
    assert argv[argv.index("--port") + 1] == "9000"


def test_what_is_left_to_vllm_is_left_out() -> None:
    """``auto`` and None are vLLM's to decide."""
    argv = vllm_argv(candidate(reasoning_parser=None, tool_call_parser=None, speculative_config=None))
    absent = {
        "--kv-cache-dtype", "--mamba-ssm-cache-dtype", "--gdn-prefill-backend", "--moe-backend",
        "--reasoning-parser", "--tool-call-parser", "--enable-auto-tool-choice", "--speculative-config",
    }  # fmt: skip
    assert absent.isdisjoint(argv)


def test_extra_flags_take_the_form_of_their_value() -> None:
    """True and False become switches, a mapping JSON, a list several words, a leading dash an equals sign."""
    extra = {
        "skip_mm_profiling": True,
        "trust_remote_code": False,
        "limit_mm_per_prompt": {"image": 4},
        "cudagraph_capture_sizes": [1, 2, 4],
        "generation_config": "vllm",
        "seed": -1,
        "hf_overrides": None,
    }
    argv = vllm_argv(candidate(extra=extra))
    tail = argv[argv.index("qwen3_coder") + 1 :]
    assert tail == [
        "--skip-mm-profiling",
        "--no-trust-remote-code",
        "--limit-mm-per-prompt", '{"image":4}',
        "--cudagraph-capture-sizes", "1", "2", "4",
        "--generation-config", "vllm",
        "--seed=-1",
    ]  # fmt: skip


def test_aliases_replace_the_served_name() -> None:
    """The only named flag that ``extra`` may give is the list of names the model answers to."""
    argv = vllm_argv(candidate(extra={"served_model_name": ["claude-sonnet-4-6", "qwen"]}))
    start = argv.index("--served-model-name")
    assert argv[start : start + 4] == ["--served-model-name", "claude-sonnet-4-6", "qwen", "--host"]
    assert argv.count("--served-model-name") == 1


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ({"api_key": "k"}, "carries no secrets"),
        ({"hf_token": "k"}, "carries no secrets"),
        ({"max_num_seqs": 4}, "repeats max_num_seqs"),
        ({"--seed": 4}, "not the name of a flag"),
    ],
)
def test_extra_flags_that_are_refused(extra: dict[str, Any], says: str) -> None:
    """Secrets, repetitions and things that are no flag's name do not reach a command line."""
    with pytest.raises(BadInputError, match=says):
        vllm_argv(candidate(extra=extra))


@pytest.mark.parametrize("name", ["HF_TOKEN", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY"])
def test_environment_carries_no_secret(name: str) -> None:
    """A secret in the plan's environment is refused by name."""
    with pytest.raises(BadInputError, match=name):
        environment(msgspec.structs.replace(CANDIDATE, vllm_env={name: "x"}))


def is_known(flag: str) -> bool:
    """Listed by vLLM 0.33; its list shows ``--no-enable-x`` under the alias ``--disable-x``."""
    return flag in KNOWN_FLAGS or flag.replace("--no-enable-", "--disable-") in KNOWN_FLAGS


def test_the_list_of_flags_is_read() -> None:
    """The check below would notice a flag that vLLM does not have."""
    assert len(KNOWN_FLAGS) > 400
    assert not is_known("--max-num-sequences")
    assert is_known("--no-enable-prefix-caching")


engine_args = st.builds(
    EngineArgs,
    max_model_len=st.integers(1, 2**20),
    max_num_seqs=st.integers(1, 4096),
    max_num_batched_tokens=st.integers(1, 2**17),
    gpu_memory_utilization=st.floats(0.01, 1.0),
    kv_cache_dtype=st.sampled_from(["auto", "bfloat16", "fp8"]),
    enable_prefix_caching=st.booleans(),
    language_model_only=st.booleans(),
    speculative_config=st.none()
    | st.builds(
        SpeculativeConfig,
        num_speculative_tokens=st.integers(1, 8),
        moe_backend=st.none() | st.just("triton"),
    ),
    mamba_ssm_cache_dtype=st.sampled_from(["auto", "float32", "bfloat16"]),
    gdn_prefill_backend=st.sampled_from([None, "flashinfer", "triton"]),
    moe_backend=st.sampled_from([None, "marlin"]),
    reasoning_parser=st.sampled_from([None, "qwen3"]),
    tool_call_parser=st.sampled_from([None, "qwen3_coder"]),
    enforce_eager=st.booleans(),
    extra=st.fixed_dictionaries(
        {},
        optional={
            "limit_mm_per_prompt": st.dictionaries(st.sampled_from(["image", "video"]), st.integers(0, 8)),
            "generation_config": st.text(min_size=1),
            "seed": st.integers(),
            "skip_mm_profiling": st.booleans(),
            "cudagraph_capture_sizes": st.lists(st.integers(1, 512), min_size=1),
        },
    ),
)


def parse(argv: list[str]) -> dict[str, Any]:
    """The plainest reading of a command line: ``--no-x`` is False, words after a flag are its values."""
    values: dict[str, Any] = {}
    name = ""
    for word in argv[3:]:
        if word.startswith("--"):
            flag, equals, rest = word.partition("=")
            negated = flag.startswith("--no-")
            name = flag.removeprefix("--no-" if negated else "--").replace("-", "_")
            assert name not in values, f"{name} given twice"
            values[name] = rest if equals else not negated
        else:
            old = values[name]
            values[name] = word if old is True else [*(old if isinstance(old, list) else [old]), word]
    return values


@given(engine_args)
def test_every_engine_argument_survives_the_command_line(args: EngineArgs) -> None:
    """Reading the command line back gives the values it was made from, and vLLM 0.33 knows every flag."""
    argv = vllm_argv(msgspec.structs.replace(CANDIDATE, engine_args=args))
    assert [w for w in argv[3:] if w.startswith("--") and not is_known(w.partition("=")[0])] == []
    got = parse(argv)
    assert got["enable_auto_tool_choice"] if args.tool_call_parser else "tool_call_parser" not in got
    given_values = msgspec.structs.asdict(args)
    given_values |= given_values.pop("extra")
    for name, want in given_values.items():
        if want in (None, "auto"):
            assert name not in got
        elif name == "speculative_config":
            assert msgspec.convert(json.loads(got[name]), SpeculativeConfig) == want
        elif isinstance(want, dict):
            assert json.loads(got[name]) == want
        elif isinstance(want, list):
            words = got[name] if isinstance(got[name], list) else [got[name]]
            assert [int(word) for word in words] == want
        elif isinstance(want, bool):
            assert got[name] is want
        else:
            assert type(want)(got[name]) == want
