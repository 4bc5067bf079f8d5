"""The machine as a value: found by :mod:`qwenhost.discovery` or described as ``2xH200``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.files import decode_document, read_document

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from qwenhost.facts import GpuSpec


class GpuProcess(Value, frozen=True, kw_only=True):
    """A process that holds memory on a GPU."""

    pid: int
    name: str
    used_bytes: int | None
    """None where NVML may not say (containers, no rights)."""


class Gpu(Value, frozen=True, kw_only=True):
    """One GPU."""

    index: int
    name: str
    spec: str | None
    """Id of the GpuSpec it was matched to; None = unknown to the catalog."""
    uuid: str = ""
    pci_address: str = ""
    memory_total_bytes: int
    memory_used_bytes: int = 0
    compute_capability: float
    mig_enabled: bool = False
    power_limit_w: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    processes_hidden: bool = False
    """True where NVML may not list them: then an empty ``processes`` says nothing."""

    @property
    def memory_free_bytes(self) -> int:
        """Total less used."""
        return self.memory_total_bytes - self.memory_used_bytes


class Link(Value, frozen=True, kw_only=True):
    """The best path between two GPUs."""

    a: int
    b: int
    kind: Literal["nvlink", "pcie"]
    nvlinks: int = 0
    """Active NVLink links; through an NVSwitch, each GPU's own."""
    path: str = ""
    """NVML's topology level, e.g. ``PIX``, ``NODE``, ``SYS``."""
    peer_to_peer: bool | None = None
    """Whether the driver lets one read the other's memory; None where it does not say."""


class Host(Value, frozen=True, kw_only=True):
    """CPU, memory and disk."""

    hostname: str
    os: str
    cpu_model: str
    cpu_cores_physical: int
    cpu_cores_logical: int
    ram_total_bytes: int
    ram_available_bytes: int
    shm_total_bytes: int
    shm_free_bytes: int
    cache_path: str
    """Where model weights would go."""
    cache_free_bytes: int


NODE_SCHEMA = "qwenhost.node/1"
_WHAT: Final = "a node description"
_REMEDY: Final = "Make one on that machine with: qwenhost inspect --json > node.json"


class Node(Value, frozen=True, kw_only=True):
    """A machine, found or described."""

    schema: str = NODE_SCHEMA
    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...] = ()
    interconnect: Literal["nvlink", "pcie", "none"]
    """The slowest link between any two GPUs; ``none`` for one GPU."""
    host: Host | None = None
    """None for a described node."""
    driver_version: str | None = None
    cuda_version: str | None = None
    origin: Literal["nvml", "described"]
    description: str
    """E.g. ``2x NVIDIA H200``."""
    notes: tuple[str, ...] = ()
    """What a person should know about it: hidden GPUs, MIG, mixed models."""

    @property
    def gpu_count(self) -> int:
        """Number of GPUs."""
        return len(self.gpus)

    @property
    def is_uniform(self) -> bool:
        """Whether all GPUs are one product with one memory size."""
        return len({(gpu.spec, gpu.name, gpu.memory_total_bytes) for gpu in self.gpus}) <= 1


_COUNTED = re.compile(r"(?:(\d{1,9})\s*[xX*]\s*)?(.+)")


def normalise_gpu_name(text: str) -> str:
    """``"RTX PRO 6000"`` -> ``rtxpro6000``: how names are compared."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def parse_gpus(
    text: str,
    specs: Mapping[str, GpuSpec],
    *,
    interconnect: Literal["nvlink", "pcie"] | None = None,
) -> Node:
    """A node from ``2xH200``, ``8xH100-80GB``, ``2x RTX PRO 6000``; a bare name means one.

    Raises:
        BadInputError: count out of 1..1024, or a name the catalog does not know (near ones are listed).
    """
    match = _COUNTED.fullmatch(text.strip())
    if match is None:
        raise BadInputError(
            f"--gpus {text!r}: expected COUNTxNAME", remedy="Write for example --gpus 2xH200."
        )
    count = int(match.group(1) or 1)
    if not 1 <= count <= 1024:
        raise BadInputError(
            f"--gpus {text!r}: count {count} is not within 1 to 1024", remedy="Give a count from 1."
        )
    spec = find_gpu_spec(match.group(2), specs.values())
    gpus = tuple(
        Gpu(
            index=i,
            name=spec.name,
            spec=spec.id,
            memory_total_bytes=spec.memory_bytes,
            compute_capability=spec.compute_capability,
            power_limit_w=spec.power_w,
        )
        for i in range(count)
    )
    return Node(
        gpus=gpus,
        interconnect="none" if count == 1 else (interconnect or spec.link),
        origin="described",
        description=f"{count}x {spec.name}",
    )


def find_gpu_spec(name: str, specs: Iterable[GpuSpec]) -> GpuSpec:
    """The spec whose id, alias or NVML name is ``name``.

    Raises:
        BadInputError: nothing by that name; the remedy lists near ones.
    """
    wanted = normalise_gpu_name(name)
    known: dict[str, GpuSpec] = {}
    for spec in specs:
        for alias in (spec.id, spec.name, *spec.aliases):
            known.setdefault(normalise_gpu_name(alias), spec)
    if wanted in known:
        return known[wanted]
    raise BadInputError(
        f"--gpus: no GPU called {name.strip()!r} in the catalog",
        remedy=f"Did you mean {', '.join(_near(wanted, known))}? See: qwenhost profiles list gpus",
    )


def _near(wanted: str, known: Mapping[str, GpuSpec]) -> list[str]:
    import difflib  # noqa: PLC0415 - only on the error path

    ids = [known[n].id for n in difflib.get_close_matches(wanted, known, n=6, cutoff=0.4)]
    ids += [spec.id for n, spec in known.items() if wanted and (wanted in n or n in wanted)]
    return list(dict.fromkeys(ids))[:5] or sorted({spec.id for spec in known.values()})


def match_gpu_spec(
    name: str, memory_bytes: int, compute_capability: float, specs: Iterable[GpuSpec]
) -> GpuSpec | None:
    """The spec for what NVML reports: name pattern, memory within 5 %, and capability must agree."""
    for spec in specs:
        if (
            re.search(spec.nvml_pattern, name, re.IGNORECASE)
            and abs(spec.memory_bytes - memory_bytes) <= 0.05 * spec.memory_bytes
            and spec.compute_capability == compute_capability
        ):
            return spec
    return None


def node_from_json(data: bytes, *, name: str = "node") -> Node:
    """Decode a node saved by ``qwenhost inspect --json``.

    Raises:
        BadInputError: not such a document, or of another schema version; names the key.
    """
    return decode_document(data, Node, schema=NODE_SCHEMA, name=name, what=_WHAT, remedy=_REMEDY)


def load_node(path: Path) -> Node:
    """Read a node saved by ``qwenhost inspect --json``.

    Raises:
        BadInputError: missing, unreadable, or not such a document.
    """
    return read_document(path, Node, schema=NODE_SCHEMA, what=_WHAT, remedy=_REMEDY)
