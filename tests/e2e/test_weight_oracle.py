"""True tensors, shared out by our rules, are byte for byte what vLLM's layers of that rank allocate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from tensors import header_files

from e2e import oracles
from qwenhost.plan import Parallelism
from qwenhost.planner.weights import WeightSizes
from qwenhost.profiles import load_catalog
from qwenhost.tensors import import_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

CONFIG = header_files.CONFIGS / "qwen3.5-122b-a10b.json"
# Allocated for loading only: scales of the KV cache and biases that files without them drop
# (auto_gptq.py process_weights_after_loading).
DROPPED = re.compile(r"\.attn\.(q|k|v|prob)_scale$|routed_experts\.w(13|2)_bias$")
# The draft's copies, which it shares with the target after loading.
SHARED = re.compile(r"^(model\.embed_tokens|lm_head)\.")
CAPABILITY = {"nvfp4": "10.0"}
LAYOUTS = [
    {"tensor_parallel_size": tp, "enable_expert_parallel": ep}
    for tp, ep in ((1, False), (2, False), (4, False), (8, False), (2, True), (8, True))
]


def ask_vllm(scheme: str) -> list[int]:
    """Bytes of one rank by layout, MTP layer and vision tower included."""
    cases = [
        {
            "config": str(CONFIG),
            "quantization_config": header_files.QUANTIZATION[scheme],
            "compute_capability": CAPABILITY.get(scheme, "9.0"),
            "num_speculative_tokens": 1,
            **layout,
        }
        for layout in LAYOUTS
    ]
    return [held(answer) for answer in oracles.ask("weight_oracle.py", cases)]


def held(answer: dict[str, Any]) -> int:
    """What stays of the parameters."""
    target = sum(size for name, size in answer["target"].items() if not DROPPED.search(name))
    draft = sum(
        size for name, size in answer["draft"].items() if not DROPPED.search(name) and not SHARED.match(name)
    )
    return int(target + draft)


@pytest.mark.parametrize("scheme", ["bf16", "fp8", "gptq", "nvfp4"])
def test_true_tensors_per_rank_equal_vllm(scheme: str, tmp_path: Path) -> None:
    """TP 1, 2, 4 and 8, and two with expert parallelism: the same number of bytes."""
    catalog = load_catalog()
    folder = header_files.write_checkpoint(tmp_path / scheme, scheme)
    found = import_checkpoint(str(folder), catalog, today=header_files.TODAY)
    known = found.into(catalog)
    sizes = WeightSizes(known.architectures[found.checkpoint.architecture], found.checkpoint, known.formats)
    ours = [sizes.per_rank(Parallelism(**layout), vision=True, mtp=True).total_bytes for layout in LAYOUTS]
    assert ours == ask_vllm(scheme)
