"""LoRA adapters on disk: what ``adapter_config.json`` asks of vLLM.

Source of what is refused: vLLM 0.33 ``lora/peft_helper.py`` ``validate_legal``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qwenhost.errors import BadInputError
from qwenhost.facts import Value
from qwenhost.plan import LORA_MODULES, LORA_RANKS, LoraOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_RANK: Final = 16
TARGETS: Final = tuple(name for module, merged in LORA_MODULES.items() for name in (module, *merged))
# Initialisations that leave a plain LoRA behind; others change the base model when PEFT loads it.
PLAIN_INITS: Final = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")


class Adapter(Value, frozen=True, kw_only=True):
    """A LoRA adapter."""

    path: str
    rank: int
    """The highest of its modules."""


def lora_options(
    *,
    modules: Sequence[str],
    target_modules: Sequence[str],
    max_loras: int | None,
    max_lora_rank: int | None,
) -> LoraOptions:
    """What to plan for: given figures, else those the adapters need.

    Args:
        modules: ``NAME=DIR`` of each adapter.
        target_modules: names of modules, one or several to a string, separated by commas.
        max_loras: adapters in one batch; 1 if None.
        max_lora_rank: the rank of a slot; the least of vLLM's that holds every adapter if None.

    Raises:
        BadInputError: not NAME=DIR, an unknown module, or an adapter vLLM would not load.
    """
    named = dict(_pair(text) for text in modules)
    adapters = {name: read_adapter(Path(path).expanduser()) for name, path in named.items()}
    needed = max((adapter.rank for adapter in adapters.values()), default=DEFAULT_RANK)
    rank = max_lora_rank or next((one for one in LORA_RANKS if one >= needed), needed)
    for name, adapter in adapters.items():
        if adapter.rank > rank:
            raise BadInputError(
                f"--lora-modules {name}: rank {adapter.rank} is above --max-lora-rank {rank}",
                remedy=f"Give --max-lora-rank, one of {', '.join(map(str, LORA_RANKS))}.",
            )
    targets = tuple(name.strip() for text in target_modules for name in text.split(",") if name.strip())
    unknown = [name for name in targets if name not in TARGETS]
    if unknown:
        raise BadInputError(
            f"--lora-target-modules {unknown[0]}: this model has no such module",
            remedy=f"Choose from: {', '.join(TARGETS)}.",
        )
    return LoraOptions(
        max_loras=max_loras or 1,
        max_lora_rank=rank,
        lora_target_modules=targets,
        lora_modules={name: adapter.path for name, adapter in adapters.items()},
    )


def read_adapter(folder: Path) -> Adapter:
    """An adapter's rank, if vLLM would load it.

    Raises:
        BadInputError: no adapter there, or one with what vLLM does not support; names the file.
    """
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_bytes())
    except OSError as error:
        raise BadInputError(
            f"{file}: {error.strerror}", remedy="Name a folder with a PEFT adapter."
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"{file}: not JSON: {error}", remedy="Save the adapter again.") from error
    if not isinstance(config, dict):
        raise BadInputError(f"{file}: not a JSON object", remedy="Save the adapter again.")
    _check(file, config)
    pattern = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(pattern.values() if isinstance(pattern, dict) else [None])]
    if not all(isinstance(rank, int) and not isinstance(rank, bool) and rank > 0 for rank in ranks):
        raise BadInputError(
            f"{file}: r and rank_pattern must be ranks above 0", remedy="Save the adapter again."
        )
    return Adapter(path=str(folder.absolute()), rank=max(ranks))


def _check(file: Path, config: dict[str, Any]) -> None:
    if config.get("peft_type", "LORA") != "LORA":
        raise BadInputError(
            f"{file}: peft_type {config['peft_type']!r} is not LORA", remedy="Merge it into the weights."
        )
    for key, refused in (("use_dora", True), ("lora_bias", True)):
        if config.get(key) is refused:
            raise BadInputError(
                f"{file}: vLLM does not load adapters with {key}", remedy="Merge it into the weights."
            )
    if config.get("bias", "none") != "none":
        raise BadInputError(
            f"{file}: vLLM does not load adapters with bias", remedy="Merge it into the weights."
        )
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower() not in PLAIN_INITS:
        raise BadInputError(
            f"{file}: vLLM does not load adapters with init_lora_weights {init!r}",
            remedy="Convert it with PEFT's path_initial_model_for_weight_conversion.",
        )
    if config.get("modules_to_save"):
        raise BadInputError(
            f"{file}: vLLM does not load modules_to_save ({config['modules_to_save']})",
            remedy="Merge it into the weights.",
        )


def _pair(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise BadInputError(
            f"--lora-modules {text!r}: not NAME=DIR", remedy="Write for example sql=./my-adapter."
        )
    return name, path
