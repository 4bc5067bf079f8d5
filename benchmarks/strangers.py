"""Strangers' records as starts that the planner can be asked about; shared by the memory benchmarks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from qwenhost.node import parse_gpus
from qwenhost.plan import Parallelism
from qwenhost.planner.check import Launch, Start
from qwenhost.profiles import load_catalog
from qwenhost.units import GIB

if TYPE_CHECKING:
    from qwenhost.facts import Catalog

DATA = Path(__file__).parent / "data"
FILES = ("strangers_measurements.yaml", "more_measurements.yaml")
UNKNOWN_VERSION = "0.33.0"
VERSION = re.compile(r"^(0\.\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Record:
    """One record and how it is asked of the planner."""

    id: str
    fields: dict[str, Any]
    setup: dict[str, Any]
    catalog: Catalog

    @cached_property
    def flags(self) -> dict[str, Any]:
        """The record's fields, corrected by its setup."""
        return self.fields | self.setup.get("with", {})

    @property
    def observed(self) -> dict[str, Any]:
        """What the source printed."""
        return self.fields.get("observed") or {}

    @property
    def started(self) -> bool:
        """Whether the engine came up with the memory it was given."""
        return "failure" not in self.fields

    def skipped(self, group: str) -> str | None:
        """Why this record is no part of a comparison."""
        reasons = self.setup.get("skip", {})
        return reasons.get("all") or reasons.get(group)

    @property
    def version(self) -> str | None:
        """The release its arithmetic follows, e.g. 0.19.2."""
        match = VERSION.match(str(self.flags.get("engine_version") or ""))
        return match.group(1) if match and match.group(1) != "0.1" else None

    @property
    def gpu_count(self) -> int:
        """GPUs of the record; one where it does not say."""
        return int(self.flags.get("gpu_count") or self.flags.get("tp") or 1)

    @cached_property
    def start(self) -> Start:
        """The planner's view of this start."""
        flags = self.flags
        given = {
            name: flags[name]
            for name in (
                "gpu_memory_utilization", "max_model_len", "max_num_seqs", "max_num_batched_tokens",
                "language_model_only", "skip_mm_profiling", "enforce_eager", "mamba_ssm_cache_dtype",
            )
            if flags.get(name) is not None
        }  # fmt: skip
        dtype = str(flags.get("kv_cache_dtype") or "auto")
        launch = Launch(
            checkpoint=self.setup["checkpoint"],
            parallelism=Parallelism(
                tensor_parallel_size=int(flags.get("tp") or self.gpu_count),
                data_parallel_size=int(flags.get("dp") or 1),
                enable_expert_parallel=bool(flags.get("ep")),
            ),
            vllm_version=self.version or UNKNOWN_VERSION,
            kv_cache_dtype="fp8" if dtype.startswith("fp8") else dtype,
            num_speculative_tokens=int(flags.get("mtp_tokens") or 0),
            enable_prefix_caching=flags.get("prefix_caching") is not False,
            loaded_bytes=round(flags["loaded_gib"] * GIB) if "loaded_gib" in flags else None,
            **given,
        )
        node = parse_gpus(f"{self.gpu_count}x{self.setup['gpu']}", self.catalog.gpus)
        return Start(launch, node, self.catalog)


def records() -> list[Record]:
    """All of them, in the order of the file."""
    catalog = load_catalog([DATA / "profiles"])
    setups = yaml.safe_load((DATA / "strangers_setup.yaml").read_text())
    rows = [row for name in FILES for row in yaml.safe_load((DATA / name).read_text())]
    return [Record(id=row["id"], fields=row, setup=setups[row["id"]], catalog=catalog) for row in rows]


def blocks_of(record: Record) -> int:
    """Cache blocks where a source gives their number: from an error's text, or all but vLLM's null block."""
    observed = record.observed
    usable = observed.get("kv_usable_blocks_derived")
    return int(observed.get("mamba_cache_blocks") or (usable + 1 if usable else 0))
