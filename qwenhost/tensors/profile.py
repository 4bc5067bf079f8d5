"""A checkpoint's headers to a profile that the catalog accepts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml

from qwenhost.errors import BadInputError
from qwenhost.facts import MTP_GROUPS, Architecture, Checkpoint, Source, Value, WeightFormat
from qwenhost.hub import is_path
from qwenhost.tensors.config import architecture_of, known_architecture
from qwenhost.tensors.formats import GroupFormats
from qwenhost.tensors.loaded import Method, Stored, parts_of
from qwenhost.tensors.names import place_of
from qwenhost.tensors.source import read_checkpoint

if TYPE_CHECKING:
    import datetime as dt

    from qwenhost.facts import Catalog, ModuleGroup
    from qwenhost.tensors.source import CheckpointFiles

_METHODS: Final = {
    "fp8": "fp8", "gptq": "auto_gptq", "gptq_marlin": "auto_gptq", "awq": "auto_awq",
    "awq_marlin": "auto_awq", "auto-round": "inc", "intel/auto-round": "inc",
    "compressed-tensors": "compressed-tensors", "mxfp4": "mxfp4",
}  # fmt: skip
# vLLM 0.33 get_min_capability of each method, Marlin's 7.5 where it does the work; BF16 needs 8.0.
_MIN_CAPABILITY: Final = {"none": 8.0, "mxfp4": 8.0}
_IGNORED: Final = re.compile(r"rotary_emb\.inv_freq$")
TENSOR_PARALLEL_SIZES: Final = (16, 8, 4, 2, 1)
MARLIN_COLUMNS: Final = 64


class Imported(Value, frozen=True, kw_only=True):
    """A checkpoint profile and what it needs that the catalog has not."""

    checkpoint: Checkpoint
    formats: tuple[WeightFormat, ...]
    architectures: tuple[Architecture, ...]
    tensors: int
    """How many were read."""

    def to_yaml(self) -> str:
        """A profile file."""
        rows = {
            "architectures": self.architectures,
            "formats": self.formats,
            "checkpoints": (self.checkpoint,),
        }
        plain = {kind: [_plain(row) for row in found] for kind, found in rows.items() if found}
        text: str = yaml.dump(
            plain,
            Dumper=_WithoutAliases,
            sort_keys=False,
            allow_unicode=True,
            width=100,
            default_flow_style=None,
        )
        return text

    def into(self, catalog: Catalog) -> Catalog:
        """The catalog with these rows over it."""
        digest = hashlib.sha256(catalog.digest.encode() + self.to_yaml().encode()).hexdigest()
        return msgspec.structs.replace(
            catalog,
            architectures={**catalog.architectures, **{row.id: row for row in self.architectures}},
            formats={**catalog.formats, **{row.id: row for row in self.formats}},
            checkpoints={**catalog.checkpoints, self.checkpoint.id: self.checkpoint},
            digest=digest,
        )


def import_checkpoint(
    ref: str,
    catalog: Catalog,
    *,
    today: dt.date,
    name: str | None = None,
    revision: str | None = None,
    endpoint: str | None = None,
    offline: bool | None = None,
) -> Imported:
    """A profile from the true tensors of a folder or of a hub repository, no weights fetched.

    Args:
        ref: folder, or OWNER/NAME.
        catalog: whose architectures and formats are used where they match.
        today: date of the source.
        name: id of the profile; else that of the catalog's checkpoint of this repository, else from ``ref``.
        revision: commit or branch; the head if None.
        endpoint: of the hub or a mirror.
        offline: take what the hub's cache holds.

    Raises:
        BadInputError: not a checkpoint of this family, or damaged; names the file or tensor.
        UnavailableError: the hub was not reached or refuses.
    """
    files = read_checkpoint(ref, revision=revision, endpoint=endpoint, offline=offline)
    return profile_of(files, catalog, today=today, name=name)


def profile_of(
    files: CheckpointFiles, catalog: Catalog, *, today: dt.date, name: str | None = None
) -> Imported:
    """The profile of headers already read; see :func:`import_checkpoint`."""
    local = is_path(files.ref)
    where = files.ref if local else f"https://huggingface.co/{files.ref}"
    source = Source(where=where, as_of=today, note="Imported from config.json and safetensors headers.")
    own = next((row for row in catalog.checkpoints.values() if row.repo_id == files.ref), None)
    name = name or (own.id if own else _slug(files.ref))
    described = architecture_of(files.ref, files.config, name=name, source=source)
    known = known_architecture(described, catalog.architectures.values())
    architecture = known or described
    stored = _placed(files)
    method = _method(files)
    found = GroupFormats(catalog.formats, source)
    by_group = found.by_group(stored, method)
    made = {**catalog.formats, **found.made}
    checkpoint = Checkpoint(
        id=name,
        repo_id=files.ref,
        revision=files.revision,
        architecture=architecture.id,
        quantization=method.name,
        formats=_formats(by_group, made),
        mtp=any(one.place.group in MTP_GROUPS for one in stored),
        disk_bytes=files.file_bytes,
        disk_bytes_basis="measured",
        min_compute_capability=_MIN_CAPABILITY.get(method.name, 7.5),
        native_compute_capability=max(made[row].native_compute_capability for row in by_group.values()),
        max_tensor_parallel_size=_most_ranks(architecture, by_group, made),
        declared_kv_cache_dtype=_kv_cache_dtype(files.quantization),
        replicated_groups=("linear_attn_small",) if method.name in ("auto_gptq", "auto_awq", "inc") else (),
        weights=parts_of(stored, method, architecture),
        quality=own.quality if own else (),
        official=own.official if own else False,
        source=source,
    )
    return Imported(
        checkpoint=checkpoint,
        formats=tuple(row for row in found.made.values() if row.id in by_group.values()),
        architectures=() if known else (described,),
        tensors=len(files.tensors),
    )


def _placed(files: CheckpointFiles) -> list[Stored]:
    placed, unknown = [], []
    for tensor in files.tensors:
        place = place_of(tensor.name)
        if place is not None:
            placed.append(Stored(tensor, place))
        elif not _IGNORED.search(tensor.name):
            unknown.append(tensor.name)
    if unknown:
        raise BadInputError(
            f"{files.ref}: {len(unknown):,} of {len(files.tensors):,} tensors do not belong to a "
            f"Qwen3.5-MoE model, first {unknown[0]}",
            remedy="Name a checkpoint in the published layout; GGUF and merged formats are not read.",
        )
    return placed


def _method(files: CheckpointFiles) -> Method:
    """The quantization method under vLLM's name, and what decides about loading."""
    given = files.quantization
    if not given:
        return Method("none", symmetric=True, desc_act=False, bits=None)
    stated = str(given.get("quant_method") or ("modelopt" if "quant_algo" in given else "")).lower()
    if stated.startswith("modelopt"):
        stated = "modelopt_fp4" if "FP4" in str(given.get("quant_algo", "")).upper() else "modelopt"
    name = _METHODS.get(stated, stated)
    if not name:
        raise BadInputError(
            f"{files.ref}/config.json: quantization_config names no quant_method",
            remedy="Name a checkpoint whose quantization vLLM knows.",
        )
    bits = given.get("bits")
    groups = given.get("config_groups")
    if isinstance(groups, Mapping):
        weights = [row.get("weights") for row in groups.values() if isinstance(row, Mapping)]
        bits = next((row.get("num_bits") for row in weights if isinstance(row, Mapping)), bits)
    return Method(
        name,
        symmetric=bool(given.get("sym", name != "auto_awq")),
        desc_act=bool(given.get("desc_act", False)),
        bits=bits if isinstance(bits, int) and bits in (2, 3, 4, 8) else None,
    )


def _formats(by_group: Mapping[ModuleGroup, str], known: Mapping[str, WeightFormat]) -> dict[str, str]:
    """Formats that differ from the default, which is BF16."""
    default = next(row.id for row in known.values() if row.bits == 16 and not row.scale_bits)
    return {"default": default} | {group: row for group, row in by_group.items() if row != default}


def _most_ranks(
    architecture: Architecture, by_group: Mapping[ModuleGroup, str], known: Mapping[str, WeightFormat]
) -> int:
    """Tensor parallel size up to which no scale block of experts or shared experts is cut."""
    sizes = {
        "routed_experts": architecture.moe_intermediate_size,
        "shared_expert": architecture.shared_expert_intermediate_size,
    }
    blocks = []
    for group, size in sizes.items():
        row = known[by_group[group]] if group in by_group else None  # type: ignore[index]
        if row is not None and row.scale_bits:
            by_block = row.scale_block[0] > 1 or row.scale_block[1] < size
            unit = row.group_size if by_block else 1
            blocks.append(
                (size, max(unit, MARLIN_COLUMNS) if row.bits < 8 and row.compute == "bf16" else unit)
            )
    return next(
        tp for tp in TENSOR_PARALLEL_SIZES if all(size % (tp * unit) == 0 for size, unit in blocks) or tp == 1
    )


def _kv_cache_dtype(quantization: Mapping[str, Any]) -> str | None:
    """FP8 where the checkpoint carries scales for it."""
    scheme = quantization.get("kv_cache_scheme")
    by_scheme = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8 and scheme.get("type") == "float"
    return "fp8" if by_scheme or quantization.get("kv_cache_quant_algo") == "FP8" else None


def _slug(ref: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", ref.rstrip("/").rpartition("/")[2].lower()).strip("-") or "imported"


def _default(field: msgspec.structs.FieldInfo) -> Any:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


class _WithoutAliases(yaml.SafeDumper):
    """Repeats equal values instead of pointing at the first."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _plain(value: Any) -> Any:
    """Builtins for YAML, without what equals its default."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(value)
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields
            if field.required or getattr(value, field.name) != _default(field)
        }
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
