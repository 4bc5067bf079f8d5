"""How each load generator is asked for the same load, and where it says what it saw.

Every client is a command: an open loop of ``rate`` requests a second at even distances, streamed chat
completions of ``tokens`` tokens, its own defaults else. Each is told not to warm up beforehand where
that can be told, and not to tokenize answers where the server's count will do.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests/e2e"))

import engine_env  # noqa: E402 - beside the engine's tests
import tiny_model  # noqa: E402

INPUT_TOKENS = 64
VENVS = Path(os.environ.get("QWENHOST_PEERS", "/tmp"))  # noqa: S108 - where the instructions put them


class Load(NamedTuple):
    """What to offer."""

    url: str
    """Of the server, without ``/v1``."""
    rate: float
    requests: int
    tokens: int
    out: Path
    """Folder for results."""
    tokenizer: str
    model: str = "tokens"


class Client(NamedTuple):
    """A load generator."""

    name: str
    program: str
    arguments: Callable[[Load], list[str]]
    ttft_ms: Callable[[Load], Mapping[str, float]]
    """Its own TTFT p50 and p99."""
    environment: Mapping[str, str] = {}


def clients() -> dict[str, Client]:
    """All that this benchmark knows."""
    vllm = str(engine_env.engine_dir() / "bin/vllm")
    guidellm, aiperf = str(VENVS / "peer-guidellm/bin/guidellm"), str(VENVS / "peer-aiperf/bin/aiperf")
    qwenhost = str(Path(sys.executable).with_name("qwenhost"))
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return {
        "qwenhost": Client("qwenhost probe", qwenhost, _qwenhost, _of_qwenhost),
        "vllm": Client("vllm bench serve", vllm, _vllm, _of_vllm, offline),
        "aiperf": Client("aiperf", aiperf, _aiperf, _of_aiperf),
        "guidellm": Client("guidellm", guidellm, _guidellm, _of_guidellm, offline),
    }


def tokenizer() -> str:
    """The tiny model's folder."""
    return str(tiny_model.tiny_model())


def _qwenhost(load: Load) -> list[str]:
    return [
        "probe", load.url, "--rate", str(load.rate), "--arrivals", "constant",
        "--requests", str(load.requests), "--warmup", "0",
        "--input-tokens", str(INPUT_TOKENS), "--output-tokens", str(load.tokens),
        "--records", str(load.out / "records.jsonl"), "--save", str(load.out / "qwenhost.json"),
    ]  # fmt: skip


def _of_qwenhost(load: Load) -> Mapping[str, float]:
    found: dict[str, Any] = json.loads((load.out / "qwenhost.json").read_text())
    return {
        "p50": found["ttft_ms"]["p50"], "p99": found["ttft_ms"]["p99"],
        "send_lag_p99": found["send_lag_ms"]["p99"], "void": found["void_reason"],
    }  # fmt: skip


def _vllm(load: Load) -> list[str]:
    return [
        "bench", "serve", "--backend", "openai-chat", "--base-url", load.url,
        "--endpoint", "/v1/chat/completions", "--model", load.model, "--tokenizer", load.tokenizer,
        "--dataset-name", "random", "--random-input-len", str(INPUT_TOKENS),
        "--random-output-len", str(load.tokens), "--num-prompts", str(load.requests),
        "--request-rate", str(load.rate), "--burstiness", "1000000", "--disable-tqdm",
        "--ready-check-timeout-sec", "0",
        "--save-result", "--result-dir", str(load.out), "--result-filename", "vllm.json",
    ]  # fmt: skip


def _of_vllm(load: Load) -> Mapping[str, float]:
    found = json.loads((load.out / "vllm.json").read_text())
    return {"p50": found["median_ttft_ms"], "p99": found["p99_ttft_ms"]}


def _aiperf(load: Load) -> list[str]:
    return [
        "profile", "--model", load.model, "--url", load.url, "--endpoint-type", "chat", "--streaming",
        "--tokenizer", load.tokenizer, "--use-server-token-count",
        "--request-rate", str(load.rate), "--arrival-pattern", "constant",
        "--request-count", str(load.requests), "--num-dataset-entries", "64",
        "--prompt-input-tokens-mean", str(INPUT_TOKENS), "--prompt-output-tokens-mean", str(load.tokens),
        "--ui-type", "none", "--output-artifact-dir", str(load.out / "aiperf"), "--random-seed", "1",
    ]  # fmt: skip


def _of_aiperf(load: Load) -> Mapping[str, float]:
    path = next((load.out / "aiperf").rglob("profile_export_aiperf.json"))
    found = json.loads(path.read_text())["time_to_first_token"]
    return {"p50": found["p50"], "p99": found["p99"]}


def _guidellm(load: Load) -> list[str]:
    return [
        "run",
        "--backend", f"kind=openai_http,target={load.url},model={load.model},validate_backend=false",
        "--profile", f"kind=constant,rate={load.rate}",
        "--constraint", f"kind=max_requests,count={load.requests}",
        "--tokenizer", f"kind=huggingface_auto,model={load.tokenizer}",
        "--data", f"kind=synthetic_text,prompt_tokens={INPUT_TOKENS},output_tokens={load.tokens}",
        "--output", f"kind=json,path={load.out / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _of_guidellm(load: Load) -> Mapping[str, float]:
    found = json.loads((load.out / "guidellm.json").read_text())
    told = found["benchmarks"][0]["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]
    return {"p50": told["p50"], "p99": told["p99"]}
