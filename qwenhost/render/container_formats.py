"""Formats for containers: a docker command, a compose file, values for the chart.

The image is vLLM's own, https://docs.vllm.ai/en/stable/deployment/docker/; ``ipc: host`` is what it
asks for, since the workers of tensor parallelism talk through shared memory.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any, Final

from qwenhost.errors import BadInputError
from qwenhost.render.argv import argv_of
from qwenhost.render.chart_values import pinned_values
from qwenhost.render.flags import DEFAULT_PORT, environment, vllm_flags
from qwenhost.render.header import header
from qwenhost.render.host_formats import dump
from qwenhost.render.target import ENV_FILE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qwenhost.plan import Plan
    from qwenhost.render.target import Target

EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - inside the container; the published address limits it
WEIGHTS: Final = "/root/.cache/huggingface"
COMPILED: Final = "/root/.cache/vllm"
# A first start fetches weights and compiles kernels; failing checks do not count until then.
START_PERIOD: Final = "1h"
_SECRETS_NOTE: Final = (
    f"First write VLLM_API_KEY=... and, where the hub asks for it, HF_TOKEN=... to {ENV_FILE} (mode 600).",
    (
        "vLLM's key guards /v1 alone; /invocations, /tokenize and others stay open: "
        "keep the port on loopback or behind a proxy."
    ),
)
_CHECK: Final = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{DEFAULT_PORT}/health', timeout=10)"


def docker_run(plan: Plan, target: Target) -> str:
    """A ``docker run`` command, one option a line."""
    options = [
        "docker run --detach",
        "--name qwenhost",
        f"--gpus {shlex.quote(_docker_gpus(plan))}",
        "--ipc host",
        f"--publish {shlex.quote(target.published)}",
        f"--env-file {ENV_FILE}",
        *(f"--env {shlex.quote(f'{k}={v}')}" for k, v in environment(plan.chosen).items()),
        f'--volume "${{HF_HOME:-$HOME/.cache/huggingface}}:{WEIGHTS}"',
        f"--volume qwenhost-compiled:{COMPILED}",
        *(f"--volume {shlex.quote(f'{m}:{m}:ro')}" for m in _models(target)),
        "--security-opt no-new-privileges",
        "--restart unless-stopped",
        "--entrypoint vllm",
        shlex.quote(target.image_for(plan)),
        f"serve {shlex.join(_arguments(plan, target))}",
    ]
    return header(plan, *_SECRETS_NOTE) + " \\\n  ".join(options) + "\n"


def compose_file(plan: Plan, target: Target) -> str:
    """A compose file with a service for each engine."""
    engines = plan.chosen.parallelism.replicas
    services = {"vllm": _service(plan, target, 0)}
    notes: tuple[str, ...] = _SECRETS_NOTE
    if engines > 1:
        services = {f"vllm-{i}": _service(plan, target, i) for i in range(engines)}
        ports = f"{target.port} to {target.port + engines - 1}"
        notes += (
            f"{engines} engines that know nothing of one another, on ports {ports}: put a router before them",
            "that sends a conversation to the engine that has its prefix cached, else to the least busy one.",
        )
    return header(plan, *notes) + dump(
        {"name": "qwenhost", "services": services, "volumes": {"compiled": {}}}
    )


def _service(plan: Plan, target: Target, engine: int) -> dict[str, Any]:
    service: dict[str, Any] = {
        "image": _compose_text(target.image_for(plan)),
        "entrypoint": ["vllm", "serve"],
        "command": [_compose_text(word) for word in _arguments(plan, target)],
        "ports": [_compose_text(target.published_of(engine))],
        "env_file": [ENV_FILE],
        "environment": {name: _compose_text(value) for name, value in environment(plan.chosen).items()},
        "volumes": [
            f"${{HF_HOME:-${{HOME}}/.cache/huggingface}}:{WEIGHTS}",
            f"compiled:{COMPILED}",
            *(_compose_text(f"{model}:{model}:ro") for model in _models(target)),
        ],
        "ipc": "host",
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "deploy": {"resources": {"reservations": {"devices": [_compose_gpus(plan, engine)]}}},
        "healthcheck": {
            "test": ["CMD", "python3", "-c", _CHECK],
            "interval": "30s",
            "timeout": "15s",
            "retries": 5,
            "start_period": START_PERIOD,
        },
    }
    if not service["environment"]:
        del service["environment"]
    return service


def helm_values(plan: Plan, target: Target) -> str:
    """Values of the chart with the plan pinned."""
    return header(plan, _CHART_NOTE) + dump(pinned_values(plan, target))


_CHART_NOTE: Final = "Use: helm install qwen k8s/chart -f FILE"


def _arguments(plan: Plan, target: Target) -> list[str]:
    """What follows ``vllm serve`` inside the container."""
    return argv_of(vllm_flags(plan.chosen, model=target.model, host=EVERYWHERE, port=DEFAULT_PORT))


def _models(target: Target) -> list[str]:
    """Folders to mount.

    Raises:
        BadInputError: docker would cut the path in two.
    """
    model = target.local_model
    if model is not None and ":" in model:
        raise BadInputError(
            f"--model {model}: a container cannot mount a folder with a colon in its name",
            remedy="Rename the folder, or link to it by another name.",
        )
    return [model] if model else []


def _device_ids(plan: Plan, engine: int = 0) -> list[str] | None:
    """The GPUs by number where an engine uses some of the machine's; None for any that are free."""
    node, layout = plan.inputs.node, plan.chosen.parallelism
    wanted = layout.world_size
    if layout.replicas > 1:
        first = engine * layout.engine_gpus
        return [str(gpu.index) for gpu in node.gpus[first : first + layout.engine_gpus]]
    if node.origin != "nvml" or (wanted == node.gpu_count and not _some_hidden(plan)):
        return None
    return [str(gpu.index) for gpu in node.gpus[:wanted]]


def _some_hidden(plan: Plan) -> bool:
    """Whether the machine has GPUs that the plan was not shown, as far as numbers tell."""
    return [gpu.index for gpu in plan.inputs.node.gpus] != list(range(plan.inputs.node.gpu_count))


def _docker_gpus(plan: Plan) -> str:
    ids = _device_ids(plan)
    # The inner quotes are docker's: its option is a comma-separated list of its own.
    return f'"device={",".join(ids)}"' if ids else str(plan.chosen.parallelism.world_size)


def _compose_gpus(plan: Plan, engine: int) -> Mapping[str, Any]:
    ids = _device_ids(plan, engine)
    which = {"device_ids": ids} if ids else {"count": plan.chosen.parallelism.world_size}
    return {"driver": "nvidia", **which, "capabilities": ["gpu"]}


def _compose_text(text: str) -> str:
    """``$`` would be taken for a variable."""
    return text.replace("$", "$$")
