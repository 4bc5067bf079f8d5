"""The files made from a plan, read back by what will read them."""

from __future__ import annotations

import configparser
import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import jsonschema
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from render_samples import CANDIDATE, REVISION, candidate, plan

from qwenhost.errors import BadInputError
from qwenhost.plan import Parallelism
from qwenhost.render import FORMATS, Target, render, vllm_argv

if TYPE_CHECKING:
    from pathlib import Path

    from qwenhost.plan import Plan

FLAGS = vllm_argv(CANDIDATE)[3:]
IN_CONTAINER = vllm_argv(CANDIDATE, host="0.0.0.0")[3:]


def on_gpus(indices: list[int]) -> Plan:
    """The sample plan as if NVML had found these GPUs."""
    node = plan().inputs.node
    gpus = tuple(msgspec.structs.replace(node.gpus[0], index=i) for i in indices)
    inputs = msgspec.structs.replace(
        plan().inputs, node=msgspec.structs.replace(node, gpus=gpus, origin="nvml")
    )
    return msgspec.structs.replace(plan(), inputs=inputs)


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_says_where_it_comes_from(fmt: str) -> None:
    """Schema, versions, catalog and revision stand in comments at the top."""
    comments = "\n".join(line for line in render(plan(), fmt).splitlines() if line.startswith("# "))
    for words in ("qwenhost.plan/1", "vLLM 0.33.0", "catalog abc123", REVISION, "2x NVIDIA H200"):
        assert words in comments
    assert render(plan(), fmt).startswith("# Made by qwenhost 0.1.0")


@pytest.mark.parametrize("fmt", FORMATS)
def test_no_format_holds_a_secret(fmt: str) -> None:
    """A plan into which somebody wrote a key is refused, whatever the format."""
    leaking = msgspec.structs.replace(CANDIDATE, vllm_env={"HF_TOKEN": "hf_secret"})
    if fmt == "systemd":  # the unit holds nothing of the environment at all
        assert "hf_secret" not in render(plan(leaking), fmt)
        return
    with pytest.raises(BadInputError, match="HF_TOKEN"):
        render(plan(leaking), fmt)


@pytest.mark.parametrize("fmt", FORMATS)
def test_formats_are_deterministic(fmt: str) -> None:
    """The same plan gives the same bytes."""
    assert render(plan(), fmt) == render(plan(), fmt)


def test_an_unknown_format() -> None:
    """The error lists the known ones."""
    with pytest.raises(BadInputError) as error:
        render(plan(), "dockre")
    assert "compose" in error.value.remedy


def test_a_line_break_cannot_leave_the_comment() -> None:
    """A name with a line break must not become a line of its own."""
    inputs = msgspec.structs.replace(plan().inputs, workload="chat\nPORT=1")
    text = render(msgspec.structs.replace(plan(), inputs=inputs), "env")
    assert [line for line in text.splitlines() if not line.startswith("#")] == ["VLLM_USE_DEEP_GEMM=0"]


def test_argv_is_one_line_for_a_shell() -> None:
    """A real shell splits it into the very argv, variables in front."""
    script = render(plan(), "argv").replace("env VLLM", "printf '%s\\0' VLLM")
    words = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout
    assert words.split("\0")[:-1] == ["VLLM_USE_DEEP_GEMM=0", *vllm_argv(CANDIDATE)]


def words_of_config(text: str) -> list[str]:
    """What vLLM makes of a config file (vllm.utils.argparse_utils.load_config_file), false switches apart."""
    words: list[str] = []
    for key, value in yaml.safe_load(text).items():
        assert value is not False, "vLLM drops these where --no-x goes by another name"
        words.append(f"--{key}")
        if isinstance(value, list):
            words += [str(item) for item in value]
        elif isinstance(value, dict):
            words.append(json.dumps(value, separators=(",", ":")))
        elif value is not True:
            words.append(str(value))
    return words


def test_config_gives_the_same_arguments() -> None:
    """Read as vLLM reads it, the file gives the command line."""
    words = words_of_config(render(plan(), "config"))
    assert words == ["--model", "Qwen/Qwen3.5-122B-A10B-FP8", *FLAGS]


@given(
    st.dictionaries(
        st.sampled_from(["seed", "block_size", "generation_config", "limit_mm_per_prompt", "lora_modules"]),
        st.integers()
        | st.booleans()
        | st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)
        | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9))
        | st.lists(st.integers(0, 9), min_size=1),
    )
)
def test_config_gives_the_same_arguments_whatever_they_are(extra: dict[str, Any]) -> None:
    """Numbers, texts that look like numbers, mappings and lists survive YAML."""
    chosen = candidate(extra=extra)
    joined = [
        part
        for word in vllm_argv(chosen)[3:]
        for part in (word.split("=", 1) if word.startswith("--") and "=" in word else [word])
    ]
    assert words_of_config(render(plan(chosen), "config"))[2:] == joined


def test_yaml_of_other_readers_sees_texts() -> None:
    """``1e5`` and ``0.33.0`` are quoted: YAML 1.2 readers would take the first for a number."""
    revision = "1234567890123456789012345678901234567e10"
    chosen = msgspec.structs.replace(
        CANDIDATE, checkpoint=msgspec.structs.replace(CANDIDATE.checkpoint, revision=revision)
    )
    assert f"revision: '{revision}'" in render(plan(chosen), "config")
    assert "vllmVersion: '0.33.0'" in render(plan(), "helm")


def test_env_file_has_one_variable_a_line() -> None:
    """A value with a line break cannot be written to such a file."""
    chosen = msgspec.structs.replace(CANDIDATE, vllm_env={"B": "2", "A": "x y"})
    assert render(plan(chosen), "env").splitlines()[-2:] == ["A=x y", "B=2"]
    with pytest.raises(BadInputError, match="line break"):
        render(plan(msgspec.structs.replace(CANDIDATE, vllm_env={"A": "1\nB=2"})), "env")


def docker_words(made: Plan, target: Target | None = None) -> list[str]:
    """The docker command as a shell hands it over."""
    script = "docker() { printf '%s\\0' docker \"$@\"; }\n" + render(made, "docker", target)
    done = subprocess.run(
        ["sh", "-euc", script], capture_output=True, text=True, check=True, env={"HF_HOME": "/my hf"}
    )
    return done.stdout.split("\0")[:-1]


def test_docker_runs_the_pinned_image_with_the_plans_flags() -> None:
    """Image, GPUs, loopback port, key file, cache and every flag are there."""
    words = docker_words(plan())
    image = words.index("vllm/vllm-openai:v0.33.0")
    assert words[image + 1 :] == ["serve", "Qwen/Qwen3.5-122B-A10B-FP8", *IN_CONTAINER]
    options = words[:image]
    for name, value in {
        "--gpus": "2",
        "--ipc": "host",
        "--publish": "127.0.0.1:8000:8000",
        "--env-file": "qwenhost.env",
        "--env": "VLLM_USE_DEEP_GEMM=0",
        "--entrypoint": "vllm",
    }.items():
        assert options[options.index(name) + 1] == value
    assert "/my hf:/root/.cache/huggingface" in options


def test_docker_takes_the_gpus_that_the_plan_was_made_for() -> None:
    """All of a machine's by count; some of them, or hidden ones, by number."""
    assert docker_words(on_gpus([0, 1]))[5:7] == ["--gpus", "2"]
    assert docker_words(on_gpus([0, 1, 2, 3]))[5:7] == ["--gpus", '"device=0,1"']
    assert docker_words(on_gpus([2, 3]))[5:7] == ["--gpus", '"device=2,3"']


def test_docker_mounts_a_local_model_read_only() -> None:
    """A folder with a blank in its name arrives whole."""
    words = docker_words(plan(), Target(model="/my models/q", host="::1", port=9000, image="mirror/vllm:1"))
    assert "/my models/q:/my models/q:ro" in words
    assert "[::1]:9000:8000" in words
    assert words[words.index("mirror/vllm:1") + 1 :][:2] == ["serve", "/my models/q"]


# The part of the compose specification that we write (github.com/compose-spec/compose-spec).
TEXTS = {"type": "array", "items": {"type": "string"}}
SERVICE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["image", "command", "ports", "deploy"],
    "properties": {
        "image": {"type": "string"},
        "entrypoint": TEXTS,
        "command": TEXTS,
        "ports": {"type": "array", "items": {"type": "string", "pattern": r"^(\S+:)?\d+:\d+$"}},
        "env_file": TEXTS,
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "volumes": {"type": "array", "items": {"type": "string", "pattern": ":/"}},
        "ipc": {"const": "host"},
        "security_opt": TEXTS,
        "restart": {"enum": ["no", "always", "on-failure", "unless-stopped"]},
        "deploy": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "resources": {
                    "properties": {
                        "reservations": {
                            "properties": {
                                "devices": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "additionalProperties": False,
                                        "required": ["capabilities"],
                                        "properties": {
                                            "capabilities": TEXTS,
                                            "count": {"type": "integer"},
                                            "device_ids": TEXTS,
                                            "driver": {"const": "nvidia"},
                                        },
                                        "oneOf": [{"required": ["count"]}, {"required": ["device_ids"]}],
                                    },
                                }
                            }
                        }
                    }
                }
            },
        },
        "healthcheck": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "test": TEXTS,
                "interval": {"pattern": r"^\d+[smh]$"},
                "timeout": {"pattern": r"^\d+[smh]$"},
                "start_period": {"pattern": r"^\d+[smh]$"},
                "retries": {"type": "integer"},
            },
        },
    },
}
COMPOSE = {
    "type": "object",
    "additionalProperties": False,
    "required": ["services"],
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]*$"},
        "services": {"type": "object", "additionalProperties": SERVICE},
        "volumes": {"type": "object"},
    },
}


def compose_service(made: Plan, target: Target | None = None) -> dict[str, Any]:
    """The compose file's service, after a check of the whole file."""
    document = yaml.safe_load(render(made, "compose", target))
    jsonschema.validate(document, COMPOSE)
    for volume in document["services"]["vllm"]["volumes"]:
        name = volume.split(":")[0]
        assert name.startswith(("$", "/")) or name in document["volumes"]
    service: dict[str, Any] = document["services"]["vllm"]
    return service


def test_compose_runs_the_same_thing() -> None:
    """The service has the plan's flags, its GPUs, and publishes on loopback."""
    service = compose_service(plan())
    assert service["command"] == ["Qwen/Qwen3.5-122B-A10B-FP8", *IN_CONTAINER]
    assert service["ports"] == ["127.0.0.1:8000:8000"]
    assert service["environment"] == {"VLLM_USE_DEEP_GEMM": "0"}
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 2, "capabilities": ["gpu"]}


def test_compose_takes_gpus_by_number() -> None:
    """Two of four GPUs are named, so that the other two stay free."""
    service = compose_service(on_gpus([4, 5, 6, 7]))
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["device_ids"] == ["4", "5"]


def several_engines() -> Plan:
    """Two engines of TP2 on four GPUs."""
    layout = Parallelism(tensor_parallel_size=2, replicas=2)
    chosen = msgspec.structs.replace(CANDIDATE, parallelism=layout)
    return msgspec.structs.replace(on_gpus([0, 1, 2, 3]), chosen=chosen)


def test_several_engines_get_gpus_and_ports_of_their_own() -> None:
    """Two services of the same command, on GPUs 0,1 and 2,3, ports 9000 and 9001; the chart gets replicas."""
    text = render(several_engines(), "compose", Target(port=9000))
    services = yaml.safe_load(text)["services"]
    assert list(services) == ["vllm-0", "vllm-1"]
    assert services["vllm-0"]["command"] == services["vllm-1"]["command"]
    devices = [one["deploy"]["resources"]["reservations"]["devices"][0] for one in services.values()]
    assert [one["device_ids"] for one in devices] == [["0", "1"], ["2", "3"]]
    assert [one["ports"] for one in services.values()] == [["127.0.0.1:9000:8000"], ["127.0.0.1:9001:8000"]]
    assert "put a router before them" in text
    (pool,) = yaml.safe_load(render(several_engines(), "helm"))["pools"]
    assert (pool["replicas"], pool["gpusPerNode"]) == (2, 2)


@pytest.mark.parametrize("fmt", ["argv", "config", "env", "docker", "systemd"])
def test_formats_of_one_engine_refuse_several(fmt: str) -> None:
    """Instead of writing one of them as if it were all."""
    with pytest.raises(BadInputError, match="runs one engine") as caught:
        render(several_engines(), fmt)
    assert "compose or helm" in caught.value.remedy


def test_compose_does_not_interpolate_the_plans_texts() -> None:
    """A dollar sign in a flag is not the name of a variable."""
    assert "$${x}" in compose_service(plan(candidate(extra={"chat_template": "${x}"})))["command"]


def unit_of(text: str) -> configparser.ConfigParser:
    """A unit file's sections."""
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_systemd_runs_qwenhost_serve() -> None:
    """The unit starts our supervisor with the plan, not vLLM, and does not restart what cannot work."""
    unit = unit_of(render(plan(), "systemd", Target(plan_path="/srv/plan.json", executable="/opt/qwenhost")))
    service = unit["Service"]
    assert service["ExecStart"] == "/opt/qwenhost serve /srv/plan.json --host 127.0.0.1 --port 8000"
    assert service["Type"] == "notify"
    assert service["NotifyAccess"] == "main"
    assert int(service["WatchdogSec"]) == 60
    assert service["TimeoutStartSec"] == "infinity", "qwenhost bounds the start itself, with --ready-timeout"
    assert service["RestartPreventExitStatus"] == "2 3"
    assert "LoadCredential" not in service


def test_systemd_needs_a_key_off_loopback() -> None:
    """An address that others can reach takes a key, from a file that only root may read."""
    service = unit_of(render(plan(), "systemd", Target(host="0.0.0.0")))["Service"]
    assert service["LoadCredential"] == "api-key:/etc/qwenhost/api-key"
    assert service["ExecStart"].endswith("--host 0.0.0.0 --port 8000 --api-key-file %d/api-key")


def test_systemd_quotes_paths() -> None:
    """Blanks, per cent and dollar signs in a path arrive as they are."""
    unit = unit_of(render(plan(), "systemd", Target(plan_path="/a b/100%$x.json", executable="/q")))
    assert unit["Service"]["ExecStart"].startswith('/q serve "/a b/100%%$$x.json" --host')


def test_helm_values_pin_the_plan() -> None:
    """One pool of two H200, the checkpoint at its commit, every engine flag, no address or key."""
    values = yaml.safe_load(render(plan(), "helm"))
    assert values["model"] == {
        "repoId": "Qwen/Qwen3.5-122B-A10B-FP8", "revision": REVISION, "weightsBytes": 127 * 10**9,
    }  # fmt: skip
    assert values["plan"] == {"mode": "pinned", "vllmVersion": "0.33.0"}
    assert "image" not in values, "the chart's own image has what its engine needs"
    (pool,) = values["pools"]
    assert (pool["name"], pool["replicas"], pool["nodes"], pool["gpusPerNode"]) == ("h200", 1, 1, 2)
    assert pool["accelerator"]["products"] == ["NVIDIA-H200"]
    assert pool["accelerator"]["minMemoryMiB"] == 143_360 - 1000
    config = pool["engine"]["config"]
    assert (config["tensor-parallel-size"], config["max-num-seqs"]) == (2, 128)
    assert config["no-enable-prefix-caching"] is True
    assert pool["engine"]["env"] == {"VLLM_USE_DEEP_GEMM": "0"}
    assert not {"model", "revision", "served-model-name", "host", "port", "api-key"} & set(config)


def test_helm_values_take_another_model() -> None:
    """Another repository is at no commit of the plan's; a folder is on the nodes."""
    other = yaml.safe_load(render(plan(), "helm", Target(model="me/mine")))["model"]
    assert other == {"repoId": "me/mine", "weightsBytes": 127 * 10**9}
    folder = yaml.safe_load(render(plan(), "helm", Target(model="/srv/qwen")))["model"]
    assert folder["source"] == {"type": "hostPath", "hostPath": {"path": "/srv/qwen"}}
    assert not {"repoId", "revision"} & set(folder)


@pytest.mark.parametrize(
    ("image", "parts"),
    [
        ("registry:5000/vllm:v1", {"repository": "registry:5000/vllm", "tag": "v1"}),
        ("registry:5000/vllm", {"repository": "registry:5000/vllm"}),
        ("vllm@sha256:abc", {"repository": "vllm", "digest": "sha256:abc"}),
        ("vllm:v1@sha256:abc", {"repository": "vllm", "tag": "v1", "digest": "sha256:abc"}),
    ],
)
def test_helm_image(image: str, parts: dict[str, str]) -> None:
    """A registry's port is not a tag, and a digest is kept apart."""
    assert yaml.safe_load(render(plan(), "helm", Target(image=image)))["image"] == parts


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_systemd_accepts_the_unit(tmp_path: Path, host: str) -> None:
    """Systemd's own check finds nothing to say."""
    unit = tmp_path / "qwenhost.service"
    unit.write_text(render(plan(), "systemd", Target(host=host, executable=sys.executable)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if "qwenhost.service" in line]
    assert ours == []
