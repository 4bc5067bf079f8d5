"""Every file that a command reads: missing, damaged or of another kind it is refused by name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from cli_kit import Cli

PLAN = "qwenhost plan --save plan.json"
PROBE = "qwenhost probe URL --save"
# Command with {} where the file stands, and what the remedy must name.
READERS: dict[str, tuple[list[str], str]] = {
    "render": (["render", "{}"], PLAN),
    "serve": (["serve", "{}", "--engine", "simulated"], PLAN),
    "doctor": (["doctor", "{}"], PLAN),
    "simulate --plan": (["simulate", "--plan", "{}"], PLAN),
    "simulate --pool": (["simulate", "--pool", "{}", "--rate", "1"], PLAN),
    "simulate --trace": (["simulate", "--gpus", "2xH200", "--trace", "{}"], "arrival_s"),
    "compare --plan": (["compare", "--plan", "{}"], PLAN),
    "compare --measurements": (["compare", "--gpus", "2xH200", "--measurements", "{}"], PROBE),
    "compare --usage": (["compare", "--gpus", "2xH200", "--usage", "{}"], "prompt_tokens"),
    "compare --token-counts": (["compare", "--gpus", "2xH200", "--token-counts", "{}"], "count-tokens"),
    "advise --plan": (["advise", "--plan", "{}"], PLAN),
    "advise --measurements": (["advise", "--gpus", "2xH200", "--measurements", "{}"], PROBE),
    "cost --usage": (["cost", "--usage", "{}"], "prompt_tokens"),
    "report": (["report", "{}"], "qwenhost compare --gpus 2xH200 --save comparison.json"),
    "calibrate": (["calibrate", "{}"], PROBE),
    "calibrate --plan": (["calibrate", "run.json", "--plan", "{}"], PLAN),
    "probe --from-records": (["probe", "--from-records", "{}"], "qwenhost probe URL --records run.jsonl"),
    "probe --resume": (["probe", "--resume", "{}"], "qwenhost probe URL --records run.jsonl"),
    "probe --tools": (["probe", "http://127.0.0.1:9", "--tools", "{}"], "It holds a list"),
    "k8s plan": (["k8s", "plan", "{}"], "kubectl get nodes -o json > nodes.json"),
    "k8s init": (
        ["k8s", "init", "--request", "{}", "--output", "o.yaml", "--termination-log", "t.txt"],
        "The chart",
    ),
    "_simulated-engine": (["_simulated-engine", "--plan", "{}"], PLAN),
}  # fmt: skip
WRONG = ("empty", "binary", "list", "null", "another schema", "cut off", "deep", "missing", "a folder")
# An empty list of tools is a list; what a pool names is GPUs where it is no file.
FINE = {("probe --tools", "list"), ("simulate --pool", "a folder")}
CASES = [(reader, wrong) for reader in READERS for wrong in WRONG if (reader, wrong) not in FINE]


@pytest.mark.parametrize(("reader", "wrong"), CASES)
def test_a_file_that_is_none_is_named(
    cli: Cli,
    reader: str,
    wrong: str,
    damaged: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Exit 2, one sentence with the file's name, a remedy, nothing on stdout, nothing written."""
    words, remedy = READERS[reader]
    path = damaged[wrong]
    before = sorted(tmp_path.rglob("*"))
    done = cli(*(word.format(path) for word in words))
    done.refused(str(path))
    assert remedy in done.err or "is a directory" in done.err
    left = {found.name for found in tmp_path.rglob("*")} - {found.name for found in before}
    assert left <= {"t.txt"}, "k8s init leaves its termination message, nobody leaves anything else"


def test_a_plan_of_another_day_is_told_by_its_schema(cli: Cli, tmp_path: Path) -> None:
    """The found and the expected version stand in the sentence."""
    path = tmp_path / "plan.json"
    path.write_text('{"schema": "qwenhost.plan/0"}')
    cli("render", path).refused("schema is 'qwenhost.plan/0', expected 'qwenhost.plan/1'")


@pytest.mark.parametrize(
    ("at", "value", "says"),
    [
        (("chosen", "engine_args", "max_num_seqs"), "many", "Expected `int`, got `str` - at `$.chosen."),
        (("chosen", "parallelism", "tensor_parallel_size"), None, "parallelism.tensor_parallel_size"),
        (("inputs", "vllm_version"), 33, "$.inputs.vllm_version"),
        (("inputs", "node", "gpus"), {}, "$.inputs.node.gpus"),
        (("chosen", "estimate", "ttft_ms", "basis"), "guessed", "$.chosen.estimate.ttft_ms.basis"),
    ],
)  # fmt: skip
def test_a_plan_changed_by_hand_names_the_key(
    *, cli: Cli, saved: Path, tmp_path: Path, at: tuple[str, ...], value: Any, says: str
) -> None:
    """Each with the path of the key inside the file."""
    document = json.loads(saved.read_bytes())
    inner = document
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    cli("render", path).refused(str(path), says)


@pytest.mark.parametrize("command", ["render {}", "simulate --plan {}", "compare --plan {}"])
@pytest.mark.parametrize(
    "option",
    [
        ("--gpus", "2xH200"), ("--interconnect", "pcie"), ("--checkpoint", "bf16"), ("-tp", "1"),
        ("--kv-cache-dtype", "fp8"), ("--max-model-len", "4096"), ("--no-enable-prefix-caching",),
        ("--language-model-only",), ("--available-kv-gib", "9"), ("--num-speculative-tokens", "0"),
    ],
    ids=lambda option: option[0],
)  # fmt: skip
def test_what_a_saved_plan_has_decided_cannot_be_asked_for(
    cli: Cli, saved: Path, command: str, option: tuple[str, ...]
) -> None:
    """It would have no effect, and the user would believe that it had one."""
    long = {"-tp": "--tensor-parallel-size", "--no-enable-prefix-caching": "--enable-prefix-caching"}
    done = cli(*command.format(saved).split(), *option)
    done.refused(f"{long.get(option[0], option[0])}: {saved} has decided that", "leave the plan out")


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["render", "{}", "--workload", "chat"], "--workload"),
        (["render", "{}", "--slo-ttft-ms", "9"], "--slo-ttft-ms"),
        (["render", "{}", "--rate", "1"], "--rate"),
        (["serve", "{}", "--engine", "simulated", "--workload", "chat"], "--workload"),
        (["serve", "{}", "--engine", "simulated", "--gpus", "1xH200"], "--gpus"),
        (["compare", "--plan", "{}", "--objective", "latency"], "--objective"),
        (["compare", "--plan", "{}", "--concurrency", "4"], "--concurrency"),
        (["advise", "--plan", "{}", "--rate", "2"], "--rate"),
        (["advise", "--plan", "{}", "--max-num-seqs", "2"], "--max-num-seqs"),
    ],
)
def test_nor_can_the_requests_it_was_made_for(cli: Cli, saved: Path, words: list[str], flag: str) -> None:
    cli(*(word.format(saved) for word in words)).refused(f"{flag}: {saved} has decided that")


@pytest.mark.parametrize(
    ("flag", "command"),
    [
        ("--api-key-file", ["top", "--once"]),
        ("--api-key-file", ["probe", "http://127.0.0.1:9"]),
        ("--api-key-file", ["serve", "{plan}", "--engine", "simulated"]),
    ],
)
@pytest.mark.parametrize("wrong", ["empty", "binary", "missing", "a folder"])
def test_a_key_file_that_holds_no_key(
    *,
    cli: Cli,
    saved: Path,
    damaged: dict[str, Path],
    flag: str,
    command: list[str],
    wrong: str,
) -> None:
    """The flag, the file, and what it should hold."""
    path = damaged[wrong]
    if path.is_file():
        path.chmod(0o600)
    cli(*(word.format(plan=saved) for word in command), flag, path).refused(flag, str(path))


def test_a_key_file_that_others_may_read_is_refused(cli: Cli, tmp_path: Path) -> None:
    """With the command that mends it; the key itself is not shown."""
    path = tmp_path / "key"
    path.write_text("sk-not-to-be-seen")
    path.chmod(0o644)
    done = cli("probe", "http://127.0.0.1:9", "--api-key-file", path)
    done.refused(f"others may read it (mode 644) Run: chmod 600 {path}")
    assert "sk-not-to-be-seen" not in done.err


@pytest.mark.parametrize("kind", ["a-file", "missing"])
@pytest.mark.parametrize("command", [["plan", "--gpus", "2xH200"], ["profiles", "list"], ["cost"]])
def test_profiles_must_be_a_folder(cli: Cli, tmp_path: Path, kind: str, command: list[str]) -> None:
    path = tmp_path / kind
    if kind == "a-file":
        path.write_text("gpus: []\n")
    cli("--profiles", path, *command).refused(f"{path}: no such folder of profiles", "QWENHOST_PROFILES")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["plan", "--gpus", "2xH200", "--checkpoint", "{}"], "no such folder"),
        (["profiles", "import", "{}"], "no such folder"),
        (["fetch", "{}"], "no such folder"),
    ],
)
def test_a_checkpoint_folder_that_is_not_there(
    cli: Cli, tmp_path: Path, command: list[str], says: str
) -> None:
    path = tmp_path / "weights"
    cli(*(word.format(path) for word in command)).refused(f"{path}: {says}")


@pytest.mark.parametrize(
    "command",
    [["plan", "--gpus", "2xH200", "--checkpoint", "{}"], ["profiles", "import", "{}"], ["fetch", "{}"]],
)
def test_a_folder_without_a_configuration_is_no_checkpoint(
    cli: Cli, tmp_path: Path, command: list[str]
) -> None:
    cli(*(word.format(tmp_path) for word in command)).refused(str(tmp_path), "config.json")
