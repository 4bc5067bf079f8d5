"""Real documents, each made by its own command, small enough to be damaged at every place."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml
from cluster_kit import node, node_list
from fuzz_run import HOME, ran
from truth_process import Truth

from qwenhost.cli.main import run
from qwenhost.launcher.failures import Failure
from qwenhost.launcher.state import Change, Deviation, Expected, ServiceState
from qwenhost.plan import Estimate
from qwenhost.tuning import Trial, TuneState

TESTS: Final = Path(__file__).parents[1]
NODE: Final = ("--gpus", "2xH200")


def made(name: str, *argv: str) -> Any:
    """What a command writes to the file NAME of its words."""
    path = HOME / name
    ran(*(str(path) if word == "NAME" else word for word in argv))
    return json.loads(path.read_bytes())


def shortened(value: Any, most: int = 2) -> Any:
    """The same document with no list longer than that."""
    if isinstance(value, dict):
        return {key: shortened(one, most) for key, one in value.items()}
    return [shortened(one, most) for one in value[:most]] if isinstance(value, list) else value


@functools.cache
def plan() -> Any:
    """Two alternatives, rejections and fallbacks in place of dozens."""
    found = made("plan.json", "plan", *NODE, "--save", "NAME")
    return found | {key: found[key][:2] for key in ("alternatives", "rejections", "fallbacks")}


@functools.cache
def comparison() -> Any:
    found = made("comparison.json", "compare", *NODE, "--requests-per-day", "50000", "--save", "NAME")
    return shortened(found)


@functools.cache
def fleet() -> Any:
    return shortened(
        made("fleet.json", "simulate", *NODE, "--replicas", "2", "--days", "0.02", "--rate", "2",
             "--save", "NAME")
    )  # fmt: skip


@functools.cache
def probed() -> dict[str, Any]:
    """What a probe of a server with known answers writes: measurements, a sweep, and records as rows."""
    server = Truth()
    # Tokens apart in time: what arrives in one piece has no time per token.
    url = server.url("ttft=0.01,itl=0.003")
    small = ("--input-tokens", "20", "--output-tokens", "8", "--warmup", "0")
    files = {name: HOME / f"{name}.json" for name in ("measurements", "records", "sweep", "found")}
    try:
        code = run(["probe", url, *small, "--requests", "6", "--save", str(files["measurements"]),
                    "--records", str(files["records"]), "--slo-ttft-ms", "1000"])  # fmt: skip
        assert code in (0, 5), code
        code = run(["probe", url, *small, "--sweep", "concurrency=1,2", "--requests", "4",
                    "--save-sweep", str(files["sweep"]), "--save", str(files["found"])])  # fmt: skip
        assert code in (0, 5), code
    finally:
        server.stop()
    records = files["records"].read_bytes().replace(str(server.port).encode(), b"1")
    return {
        "measurements": json.loads(files["measurements"].read_bytes()) | {"void": False, "void_reason": None},
        "sweep": json.loads(files["sweep"].read_bytes()),
        "records": [_in_time(json.loads(line)) for line in records.splitlines()],
    }


def _in_time(row: dict[str, Any]) -> dict[str, Any]:
    """A busy machine sends late, and the run is void: no matter of the file's."""
    if "scheduled_s" in row:
        return row | {"sent_s": row["scheduled_s"]}
    return row | {"lag": dict.fromkeys(row["lag"], 0.0)} if "lag" in row else row


def measurements() -> Any:
    return probed()["measurements"]


def records() -> Any:
    """Head, records and tail as a list."""
    return probed()["records"]


@functools.cache
def calibration() -> Any:
    """The row that ``calibrate`` keeps among the user's profiles, as JSON, which is YAML."""
    (HOME / "c-plan.json").write_text(json.dumps(plan()))
    (HOME / "c-run.json").write_text(json.dumps(measurements()))
    ran("calibrate", "--plan", str(HOME / "c-plan.json"), str(HOME / "c-run.json"))
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "qwenhost" / "profiles"
    (kept,) = folder.glob("*.yaml")
    found = yaml.safe_load(kept.read_text())
    shutil.rmtree(folder.parent)
    return json.loads(json.dumps(found, default=str))


@functools.cache
def token_counts() -> Any:
    def count(model: str, tokens: int) -> dict[str, Any]:
        return {"model": model, "name": "file", "requests": 12, "input_tokens": tokens,
                "output_tokens": tokens // 5, "basis": "measured", "date": "2026-11-23"}  # fmt: skip

    ratio = {"value": 1.2, "low": 1.1, "high": 1.3, "interval": "bootstrap", "requests": 12}
    return {
        "schema": "qwenhost.token_counts/1", "sample": "sample.jsonl", "qwen": count("qwen", 1000),
        "sonnet": count("claude-sonnet-4-6", 1200), "input_ratio": ratio, "output_ratio": ratio,
        "warnings": ["few"],
    }  # fmt: skip


@functools.cache
def service() -> Any:
    state = ServiceState(
        name="fuzzed", status="ready", engine="vllm", target="gpu", base_url="http://127.0.0.1:1",
        model="qwen", label="fp8 TP2", supervisor_pid=1, engine_pid=1, started_at="2026-11-23T10:00:00Z",
        ready_at="2026-11-23T10:05:00Z", ready_s=300.0, updated_at="2026-11-23T10:06:00Z", restarts=1,
        expected=Expected(ready_s=300.0, low_s=200.0, high_s=400.0, basis="measured", source="last start"),
        fallbacks=(Change(trigger="out_of_memory", change="less", cause="OOM", at="2026-11-23T10:01:00Z"),),
        deviations=(Deviation(name="kv_cache_tokens", planned=100.0, observed=90.0, unit="tokens"),),
        failure=Failure(kind="killed", cause="signal 9", remedy="Look."),
        failure_counts={"killed": 1}, argv=("vllm", "serve"), labels={"gpus": "2xH200"},
    )  # fmt: skip
    return json.loads(msgspec.json.encode(state))


@functools.cache
def tuning() -> Any:
    trial = Trial(
        id="trial-1", label="fp8 TP2", status="measured", measurements="trial-1.measurements.json",
        predicted_output_tokens_per_s=Estimate(value=100.0, low=80.0, high=120.0, basis="modelled"),
        output_tokens_per_s=90.0, goodput_tokens_per_s=80.0, ttft_ms=100.0, tpot_ms=20.0, answer_s=4.0,
    )  # fmt: skip
    state = TuneState(
        question="q", asked="chat", objective="cost", machine="2x H200", simulated=True,
        trials=(trial, msgspec.structs.replace(trial, id="trial-2", status="failed", error="gone")),
        started_at="2026-11-23T10:00:00Z", updated_at="2026-11-23T10:06:00Z",
    )  # fmt: skip
    return json.loads(msgspec.json.encode(state))


@functools.cache
def nodes() -> Any:
    return json.loads(node_list(node("a", "h200", 8), node("b", "l40s", 4, cordoned=True)))


@functools.cache
def manifests() -> Any:
    """Every object of the sample application."""
    return list(yaml.safe_load_all((TESTS / "kubernetes" / "application.yaml").read_text()))


def init_request() -> Any:
    return {
        "checkpoints": [{"id": "fp8", "repoId": "Qwen/Qwen3.5-122B-A10B-FP8", "revision": "a099",
                         "weightsBytes": 127_150_000_000, "path": "/weights/fp8"}],
        "servedNames": ["qwen"], "workload": "chat", "nodes": 1, "vllmVersion": "0.33.0",
        "limits": {"max-model-len": 4096, "enable-prefix-caching": True},
    }  # fmt: skip


def profiles() -> Any:
    """One row of most kinds, as JSON."""
    folder = Path(__file__).parents[2] / "profiles"
    rows: dict[str, list[Any]] = {}
    for file in sorted(folder.rglob("*.yaml")):
        for kind, found in yaml.safe_load(file.read_bytes()).items():
            if isinstance(found, list) and kind not in rows:
                rows[kind] = json.loads(json.dumps(found[:1], default=str))
    return rows


def adapter() -> Any:
    return {
        "peft_type": "LORA", "r": 16, "lora_alpha": 32, "target_modules": ["q_proj", "o_proj"],
        "base_model_name_or_path": "Qwen/Qwen3.5-122B-A10B", "bias": "none", "use_dora": False,
        "rank_pattern": {}, "modules_to_save": None,
    }  # fmt: skip


def model_config() -> Any:
    return json.loads((TESTS / "data" / "configs" / "qwen3.5-122b-a10b.json").read_bytes())
