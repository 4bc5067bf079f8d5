"""Adapters are read from disk, and what vLLM would refuse at start is refused before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from qwenhost.errors import BadInputError
from qwenhost.plan import LoraOptions
from qwenhost.tensors import lora_options, read_adapter

if TYPE_CHECKING:
    from pathlib import Path


def adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 12, "bias": "none", "target_modules": ["q_proj"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def options(**given: Any) -> LoraOptions:
    empty: dict[str, Any] = {
        "modules": (), "target_modules": (), "max_loras": None, "max_lora_rank": None,
    }  # fmt: skip
    return lora_options(**{**empty, **given})


def test_the_rank_of_a_slot_holds_every_adapter(tmp_path: Path) -> None:
    """Ranks 12 and, by pattern, 40 need vLLM's next: 64."""
    small = adapter(tmp_path / "small")
    large = adapter(tmp_path / "large", rank_pattern={"o_proj": 40})
    found = options(modules=(f"a={small}", f"b={large}"), target_modules=("q_proj,o_proj", "experts"))
    assert found.max_lora_rank == 64
    assert found.lora_modules == {"a": str(small), "b": str(large)}
    assert found.lora_target_modules == ("q_proj", "o_proj", "experts")


def test_defaults_are_those_of_vllm() -> None:
    """One slot of rank 16."""
    assert options(max_loras=1) == LoraOptions(max_loras=1, max_lora_rank=16)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"peft_type": "IA3"}, "is not LORA"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "with bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"r": 0}, "above 0"),
        ({"r": "8"}, "above 0"),
        ({"r": True}, "above 0"),
        ({"rank_pattern": [8]}, "above 0"),
    ],
)
def test_adapters_vllm_would_not_load(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    """The file is named, with what is wrong and what to do."""
    with pytest.raises(BadInputError) as caught:
        read_adapter(adapter(tmp_path / "a", **changes))
    assert what in caught.value.message
    assert "adapter_config.json" in caught.value.message
    assert caught.value.remedy


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    """No pair, no folder, not JSON, a rank too low, an unknown module."""
    folder = adapter(tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "adapter_config.json").write_text("{")
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"modules": ("sql",)}, "not NAME=DIR"),
        ({"modules": (f"sql={tmp_path / 'none'}",)}, "No such file"),
        ({"modules": (f"sql={tmp_path / 'b'}",)}, "not JSON"),
        ({"modules": (f"sql={folder}",), "max_lora_rank": 8}, "rank 12 is above"),
        ({"target_modules": ("q_porj",)}, "no such module"),
    ]
    for given, what in mistakes:
        with pytest.raises(BadInputError) as caught:
            options(**given)
        assert what in caught.value.message
