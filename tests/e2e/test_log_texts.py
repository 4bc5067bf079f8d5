"""The texts that the launcher looks for are those in vLLM's own sources, of both versions at hand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from e2e import engine_env, vllm_sources

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

# Constant pieces of vLLM's messages, as qwenhost.launcher.failures and .phases match them.
TEXTS = (
    # failures
    "To serve at least one request with the model's max seq len (",
    "the estimated maximum model length is ",
    "No available memory for the cache blocks",
    "Cannot auto-fit max_model_len",
    ") exceeds available Mamba cache blocks (",
    "Free memory on device ",
    " GiB) on startup is less",
    "Error in memory profiling. Initial free memory",
    "warming up sampler with ",
    "not enough GPU memory",
    "is not supported for the current GPU",
    "No valid attention backend found",
    " is not valid for this configuration",
    "is not divisible by weight quantization block",
    "Weight output_size_per_partition = ",
    "Weight input_size_per_partition = ",
    "Total number of attention heads (",
    " must be divisible by tensor parallel size (",
    "is larger than the number of available GPUs",
    "--enable-auto-tool-choice requires --tool-call-parser",
    "is greater than the derived max_model_len",
    "Cannot find any model weights with",
    " are not supported for now",
    " failed to be inspected",
    "Failed to infer device type",
    "Timed out waiting for engine core processes to start",
    "died unexpectedly",
    "EngineCore encountered an issue",
    "EngineCore encountered a fatal error",
    "Engine core initialization failed",
    "WorkerProc initialization failed",
    # phases and figures
    "non-default args: ",
    "Resolved architecture: ",
    "Using max model len ",
    "Initializing a V1 LLM engine",
    "Time spent downloading weights",
    "Starting to load model ",
    "Loading model from scratch",
    "Loading safetensors checkpoint shards",
    "Loading weights took %.2f seconds",
    "Model loading took %s GiB",
    "Checkpoint size: %.2f GiB",
    "Setting attention block size to %d tokens",
    "Encoder cache will be initialized",
    "Dynamo bytecode transform time",
    "torch.compile took %.2f s",
    "Available KV cache memory: %s GiB",
    " KV cache size: %s tokens",
    "Maximum concurrency for %s tokens per request: ",
    "Capturing CUDA graphs",
    "Compile and warming up model for size",
    "Graph capturing finished in %.0f secs, took %.2f GiB",
    "init engine (profile, create kv cache, warmup model) took ",
    "Supported tasks: ",
    "Starting vLLM server on ",
)
_BETWEEN = re.compile(r'(?:"\s*\n\s*[fr]?")|(?:\'\s*\n\s*[fr]?\')')


def engine_sources(vllm_bin: str) -> Path:
    """Of the engine that the tests start."""
    return next(Path(vllm_bin).parents[1].glob("lib/python3.*/site-packages/vllm"))


def joined_sources(root: Path) -> str:
    """All sources, adjacent string literals joined as Python joins them."""
    return "\0".join(_BETWEEN.sub("", path.read_text(errors="replace")) for path in root.rglob("*.py"))


@pytest.fixture(scope="module", params=[engine_env.VLLM_VERSION, vllm_sources.VLLM_VERSION])
def everything_said(request: pytest.FixtureRequest, vllm_bin: str) -> str:
    """The sources of one version in one string."""
    if request.param == engine_env.VLLM_VERSION:
        root = engine_sources(vllm_bin)
    else:
        root = vllm_sources.build() / "vllm"
    assert root.is_dir()
    return joined_sources(root)


@pytest.mark.parametrize("text", TEXTS)
def test_vllm_still_says_it(everything_said: str, text: str) -> None:
    """A text that a version changes would go unnoticed in every log."""
    assert text in everything_said
