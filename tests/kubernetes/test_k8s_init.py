"""``qwenhost k8s init`` on GPUs that a stub of NVML reports: the init container's command, run for real."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent / "stub_nvml"))

from build_stub import GPU_IS_LOST, StubGpu, build, environment, h200, rtx_pro_6000

from qwenhost.errors import BadInputError
from qwenhost.kubernetes import env_text, option_words, read_request

FP8 = {
    "id": "fp8",
    "repoId": "Qwen/Qwen3.5-122B-A10B-FP8",
    "revision": "a099dee70ccfcd8d5dda56aaa0b60cb8ecadabc9",
    "weightsBytes": 127_150_000_000,
    "path": "/weights/fp8",
}
INT4 = {"repoId": "Qwen/Qwen3.5-122B-A10B-GPTQ-Int4", "path": "/weights/int4"}
FLAGS = frozenset((Path(__file__).parent.parent / "data/vllm-serve-flags-0.33.txt").read_text().split())


@pytest.fixture(scope="module")
def stub_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library: Path = build(tmp_path_factory.mktemp("nvml"))
    return library


class Pod:
    """What the init container left behind."""

    def __init__(self, folder: Path, done: subprocess.CompletedProcess[str]) -> None:
        self.folder, self.code, self.stdout, self.stderr = folder, done.returncode, done.stdout, done.stderr

    @property
    def config(self) -> Any:
        return yaml.safe_load((self.folder / "vllm.yaml").read_text())

    def text(self, name: str) -> str:
        return (self.folder / name).read_text()

    @property
    def message(self) -> str:
        """The termination message."""
        return self.text("termination-log")


Init = Callable[..., Pod]


@pytest.fixture
def init(stub_library: Path, tmp_path: Path) -> Init:
    def run(gpus: list[StubGpu], *arguments: str, request: Any = None, **fields: Any) -> Pod:
        asked = {"checkpoints": [FP8], "servedNames": ["qwen"], "workload": "chat", "nodes": 1} | fields
        (tmp_path / "init.yaml").write_text(yaml.safe_dump(asked if request is None else request))
        command = ["--request", f"{tmp_path}/init.yaml", "--output", f"{tmp_path}/vllm.yaml"]
        log = ["--termination-log", f"{tmp_path}/termination-log"]
        done = subprocess.run(
            [sys.executable, "-m", "qwenhost.cli.main", "k8s", "init", *command, *log, *arguments],
            check=False, capture_output=True, text=True,
            env=environment(stub_library, gpus, config=tmp_path / "machine.txt"),
        )  # fmt: skip
        return Pod(tmp_path, done)

    return run


def test_the_engine_gets_a_config_for_the_gpus_that_are_there(init: Init) -> None:
    """Two H200: tensor parallelism of two, the mounted folder, the names, and no address or secret."""
    pod = init([h200(0), h200(1)])
    assert pod.code == 0, pod.stderr
    assert pod.config["model"] == "/weights/fp8"
    assert pod.config["served-model-name"] == ["qwen"]
    assert pod.config["tensor-parallel-size"] * pod.config["data-parallel-size"] == 2
    assert pod.config["max-model-len"] == 262_144
    assert not {"host", "port", "revision", "api-key"} & pod.config.keys()
    flags = {f"--{name.removeprefix('no-')}" for name in pod.config}
    assert flags - {"--model"} <= FLAGS, "vLLM knows every one"
    tensor_parallel = pod.config["tensor-parallel-size"]
    assert pod.text("cache-key") == f"vllm0.33.0-sm90-tp{tensor_parallel}\n"
    assert "Memory of one GPU" in pod.stdout, "the pod's log keeps the reasons"
    assert not (pod.folder / "termination-log").exists()


def test_the_limits_are_those_of_plan(init: Init) -> None:
    """Flags of qwenhost plan, switches too."""
    pod = init([h200(0), h200(1)], limits={"max-model-len": 65_536, "language-model-only": True})
    assert (pod.config["max-model-len"], pod.config["language-model-only"]) == (65_536, True)


def test_of_several_weights_those_are_chosen_that_serve_best(init: Init) -> None:
    """127 GB do not fit on one H200 next to a long context; on two they serve as planned without limits."""
    both = [FP8, INT4]
    assert init([rtx_pro_6000(0)], checkpoints=both).config["model"] == "/weights/int4"
    assert init([h200(0), h200(1)], checkpoints=both).config["model"] == "/weights/fp8"


def test_a_group_of_nodes_is_planned_as_one(init: Init) -> None:
    """A node with one H200 each: a pipeline over two of them."""
    pod = init([h200(0)], nodes=2, checkpoints=[FP8])
    layout = (pod.config["tensor-parallel-size"], pod.config["pipeline-parallel-size"])
    assert (pod.code, layout) == (0, (1, 2))


def test_json_is_the_plan(init: Init) -> None:
    """For those who keep it."""
    plan = json.loads(init([h200(0), h200(1)], "--json").stdout)
    assert plan["schema"] == "qwenhost.plan/1"
    assert plan["inputs"]["node"]["origin"] == "nvml"


REFUSALS: dict[str, tuple[list[StubGpu], dict[str, Any], int, str]] = {
    "too small": ([rtx_pro_6000(0)], {}, 3, "Nothing fits 1x NVIDIA RTX PRO 6000"),
    "MIG": ([h200(0, mig=True)], {}, 3, "MIG is on for GPU 0"),
    "unequal": ([h200(0), rtx_pro_6000(1)], {}, 3, "unequal GPUs"),
    "unknown": ([h200(0, name="NVIDIA H999")], {}, 3, "The catalog does not know NVIDIA H999"),
    "no GPU": ([], {}, 4, "The container needs GPUs"),
    "lost": (
        [h200(0, errors={"nvmlDeviceGetName": GPU_IS_LOST})], {}, 4, "fallen off the bus",
    ),
    "limit": ([h200(0)], {"limits": {"max-model-length": 1}}, 2, "No such option '--max-model-length'"),
    "limit's value": ([h200(0)], {"limits": {"max-model-len": "long"}}, 2, "'long' is not a valid integer"),
    "checkpoint": (
        [h200(0)], {"checkpoints": [{"repoId": "me/mine", "path": "/w"}]}, 2,
        "'me/mine' is not in the catalog",
    ),
    "workload": ([h200(0)], {"workload": "none"}, 2, "no such preset"),
    "key": ([h200(0)], {"modell": 1}, 2, "unknown field `modell`"),
    "no checkpoint": ([h200(0)], {"checkpoints": []}, 2, "checkpoints is empty"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_is_one_sentence_in_the_termination_message(init: Init, case: str) -> None:
    """It is what kubectl describe shows; the engine never starts, since there is no config."""
    gpus, fields, code, sentence = REFUSALS[case]
    pod = init(gpus, **fields)
    assert pod.code == code, pod.stderr
    assert sentence in pod.message
    assert "\n" not in pod.message
    assert sentence in pod.stderr
    assert not (pod.folder / "vllm.yaml").exists()


def test_without_a_termination_log_the_refusal_is_still_told(init: Init) -> None:
    """As on a developer's machine."""
    pod = init([], "--termination-log", "/nowhere/termination-log")
    assert (pod.code, "needs GPUs" in pod.stderr) == (4, True)


def test_a_shell_reads_the_variables() -> None:
    """The engine's start script sources them."""
    text = env_text({"A": "1", "B": "two words", "C": "$HOME'"})
    assert [shlex.split(line) for line in text.splitlines()] == [["A=1"], ["B=two words"], ["C=$HOME'"]]
    assert text.startswith("A=1\n")


def test_switches_and_values_become_words() -> None:
    """As they stand on a command line."""
    limits = {"max-model-len": 4096, "enable-prefix-caching": False, "language-model-only": True}
    assert option_words(limits) == [
        "--max-model-len", "4096", "--no-enable-prefix-caching", "--language-model-only",
    ]  # fmt: skip


def test_a_request_that_is_no_yaml_is_refused() -> None:
    """With the file's name."""
    with pytest.raises(BadInputError, match=r"init\.yaml: "):
        read_request(b"a: [", "init.yaml")
