"""Ask transformers and vLLM how many parameters a model has: JSON in, JSON out.

    PYTHONPATH=<vllm sources> <engine>/bin/python tests/e2e/param_oracle.py < requests.json

A request names a ``config`` and who is asked:

- ``"by": "transformers"``: the whole model of transformers' own class on the meta device; parameters
  by module group. It has no MTP layer.
- ``"by": "vllm"``: the model of a single GPU, built by vLLM's own classes on the stage of
  `gpu_stage`, MTP draft included. The embedding and the head that vLLM shares between target and
  draft (``maybe_share_target_embed``, ``_should_share``) count once.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gpu_stage

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

LINEAR_BIG = ("in_proj_qkv", "in_proj_qkvz", "in_proj_z", "out_proj")


def group_of(name: str, *, draft: bool) -> str:
    """Module group, in the words of ``qwenhost.facts.ModuleGroup``, of a parameter's name."""
    parts = name.split(".")
    group = _group_of(parts)
    if not draft or group in ("embed_tokens", "lm_head"):
        return f"mtp_{group}" if draft else group
    if "fc" in parts:
        return "mtp_fc"
    if group in ("self_attn", "qk_norm"):
        return "mtp_self_attn"
    return f"mtp_{group}" if group in ("routed_experts", "shared_expert") else "mtp_small"


def _group_of(parts: list[str]) -> str:
    if "visual" in parts:
        return "vision"
    if "linear_attn" in parts:
        return "linear_attn" if any(part in LINEAR_BIG for part in parts) else "linear_attn_small"
    if "self_attn" in parts:
        return "qk_norm" if "q_norm" in parts or "k_norm" in parts else "self_attn"
    for part in ("embed_tokens", "lm_head", "shared_expert_gate", "shared_expert"):
        if part in parts:
            return part
    if "experts" in parts:
        return "routed_experts"
    return "router" if "gate" in parts else "norms"


def ask_transformers(request: dict[str, Any]) -> dict[str, Any]:
    """Parameters by group of the whole model."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(model_directory(request))
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    return {"class": type(model).__name__, "parameters": count(model, draft=False)}


def ask_vllm(request: dict[str, Any]) -> dict[str, Any]:
    """Parameters by group of the whole model and its MTP layer."""
    target, draft = gpu_stage.build_rank(engine_config(request), 0)
    share(target, draft)
    known = {id(parameter) for parameter in target.parameters()}
    return {
        "class": type(target).__name__,
        "parameters": count(target, draft=False) | count(draft, draft=True, known=known),
    }


def count(model: Any, *, draft: bool, known: AbstractSet[int] = frozenset()) -> dict[str, int]:
    """Sum of parameters by group; what is ``known`` is left out."""
    totals: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if id(parameter) not in known:
            totals[group_of(name, draft=draft)] += parameter.numel()
    return dict(totals)


def share(target: Any, draft: Any) -> None:
    """As ``v1/worker/gpu/spec_decode/eagle/utils.py load_eagle_model`` does after loading."""
    from vllm.v1.worker.gpu.spec_decode.eagle import utils

    language_model = target.get_language_model()
    utils.maybe_share_target_embed(draft, draft.model, language_model.model)
    target_head = utils.get_target_lm_head(target, language_model)
    if target_head is not None and utils._should_share(draft, "has_own_lm_head", draft.lm_head, target_head):
        draft.lm_head = target_head


def engine_config(request: dict[str, Any]) -> Any:
    """Make vLLM's complete configuration for the request."""
    from vllm.engine.arg_utils import EngineArgs

    return EngineArgs(
        model=model_directory(request),
        skip_tokenizer_init=True,
        enforce_eager=True,
        compilation_config={"pass_config": {"fuse_allreduce_rms": False}},
        max_model_len=4096,
        max_num_seqs=8,
        speculative_config={"method": "mtp", "num_speculative_tokens": 1},
    ).create_engine_config()


def model_directory(request: dict[str, Any]) -> str:
    """A model directory with nothing but a ``config.json``; it lasts as long as the process."""
    directory = Path(tempfile.mkdtemp(prefix="vllm-stage-"))
    (directory / "config.json").write_text(Path(request["config"]).read_text())
    (directory / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return str(directory)


# vLLM reads the image normalisation from it.
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "processor_class": "Qwen3VLProcessor",
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def main() -> int:
    """Answer the requests on standard input."""
    requests = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # vLLM prints
    gpu_stage.raise_curtain()
    who = {"transformers": ask_transformers, "vllm": ask_vllm}
    json.dump([who[request["by"]](request) for request in requests], output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
