"""What the chart asks the planner in a pod, and the files it gets."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from qwenhost.errors import BadInputError, InfeasibleError
from qwenhost.facts import Value
from qwenhost.files import NOT_JSON
from qwenhost.plan import DEFAULT_VLLM_VERSION

if TYPE_CHECKING:
    from qwenhost.facts import Catalog
    from qwenhost.node import Node
    from qwenhost.plan import Plan


class InitCheckpoint(Value, frozen=True, kw_only=True):
    """Weights that are mounted."""

    path: str
    """Folder in the container."""
    id: str = ""
    """In the catalog; else it is found by the repository."""
    repoId: str = ""  # noqa: N815 - the chart's key
    revision: str = ""
    weightsBytes: int = 0  # noqa: N815


class InitRequest(Value, frozen=True, kw_only=True):
    """``init.yaml``, in the chart's words."""

    checkpoints: tuple[InitCheckpoint, ...]
    servedNames: tuple[str, ...] = ()  # noqa: N815
    workload: str = "chat"
    limits: Mapping[str, Any] = {}
    """Options of ``qwenhost plan`` without their dashes."""
    nodes: int = 1
    """Of one replica, each with as many GPUs as this one."""
    vllmVersion: str = DEFAULT_VLLM_VERSION  # noqa: N815


def read_request(data: bytes, name: str) -> InitRequest:
    """Decode an ``init.yaml``.

    Raises:
        BadInputError: not such a document; names the key.
    """
    try:
        request = msgspec.yaml.decode(data, type=InitRequest)
    except NOT_JSON as error:
        raise BadInputError(
            f"{name}: {error}", remedy="The chart writes it; see plan in its values."
        ) from error
    if not request.checkpoints:
        raise BadInputError(f"{name}: checkpoints is empty", remedy="Name the weights that are mounted.")
    return request


def option_words(limits: Mapping[str, Any]) -> list[str]:
    """``{"max-model-len": 4096}`` as the words of a command line."""
    words: list[str] = []
    for name, value in limits.items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name}")
        else:
            words += [f"--{name}", str(value)]
    return words


def mounted_catalog(request: InitRequest, known: Catalog) -> tuple[Catalog, dict[str, InitCheckpoint]]:
    """The catalog with no checkpoint but those mounted, and where each lies.

    Raises:
        BadInputError: one of them is not in the catalog.
    """
    by_repository = {one.repo_id: one for one in known.checkpoints.values()}
    kept, places = {}, {}
    for mounted in request.checkpoints:
        found = known.checkpoints.get(mounted.id) or by_repository.get(mounted.repoId)
        if found is None:
            raise BadInputError(
                f"the checkpoint {mounted.id or mounted.repoId or mounted.path!r} is not in the catalog",
                remedy=f"Known: {', '.join(sorted(known.checkpoints))}. Or pin the plan: qwenhost k8s plan.",
            )
        kept[found.id] = msgspec.structs.replace(
            found, recommended=True, revision=mounted.revision or found.revision
        )
        places[found.id] = mounted
    return msgspec.structs.replace(known, checkpoints=kept), places


def whole_machine(node: Node, nodes: int) -> Node:
    """The GPUs of all nodes of a replica, this one's being as the others'.

    Raises:
        InfeasibleError: MIG slices, unequal GPUs, or one that the catalog does not know.
    """
    sliced = [str(gpu.index) for gpu in node.gpus if gpu.mig_enabled]
    if sliced:
        raise InfeasibleError(
            f"MIG is on for GPU {', '.join(sliced)} of {node.description}: an engine needs whole GPUs.",
            remedy="Turn MIG off on the node, or choose another one.",
        )
    if not node.is_uniform:
        raise InfeasibleError(
            f"The pod was given unequal GPUs ({node.description}).",
            remedy="Ask for one product: accelerator.products of the pool, or dra.sameProduct.",
        )
    if node.gpus[0].spec is None:
        raise InfeasibleError(
            f"The catalog does not know {node.gpus[0].name}.",
            remedy="See qwenhost profiles list gpus; add a profile of your own, or pin the plan.",
        )
    if nodes == 1:
        return node
    gpus = tuple(
        msgspec.structs.replace(gpu, index=part * node.gpu_count + gpu.index)
        for part in range(nodes)
        for gpu in node.gpus
    )
    return msgspec.structs.replace(
        node, gpus=gpus, links=(), description=f"{nodes} nodes of {node.description}"
    )


def env_text(variables: Mapping[str, str]) -> str:
    """Lines ``NAME=value`` that a shell can read."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in variables.items())


def cache_key(plan: Plan) -> str:
    """Names the folder of compiled kernels: they hold for one vLLM, one kind of GPU and one TP."""
    capability = plan.inputs.node.gpus[0].compute_capability
    ranks = plan.chosen.parallelism.tensor_parallel_size
    return f"vllm{plan.inputs.vllm_version}-sm{round(capability * 10)}-tp{ranks}"
