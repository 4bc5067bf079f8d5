"""Ask vLLM's own LoRA layers what they allocate on one rank: cases in, bytes by module out, both JSON.

    PYTHONPATH=<vllm sources> <engine>/bin/python tests/e2e/lora_oracle.py < cases.json > results.json

On the stage of `gpu_stage` vLLM's ``LoRAModelManager`` wraps the model of a rank on PyTorch's meta
device. Kernels are missing there, so the Punica wrapper and the check of the experts' kernel are left
out; buffers are created by vLLM's ``create_lora_weights``.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import gpu_stage
import weight_oracle

BUFFERS = (
    "w13_lora_a_stacked",
    "w13_lora_b_stacked",
    "w2_lora_a_stacked",
    "w2_lora_b_stacked",
)


def answer(case: dict[str, Any]) -> dict[str, int]:
    """Bytes of the slots, by the last word of a module's name."""
    from vllm.config import set_current_vllm_config
    from vllm.lora.model_manager import LoRAModelManager

    gpu_stage.set_gpu(case.get("compute_capability", "9.0"))
    config = weight_oracle.engine_config(case)
    target, _ = gpu_stage.build_rank(config, case.get("pipeline_rank", 0))
    import torch

    with set_current_vllm_config(config):
        manager = LoRAModelManager(target, 8, 2048, 248320, config.lora_config, torch.device("meta"), config)
    found: dict[str, int] = {}
    for name, module in manager.modules.items():
        last = name.rpartition(".")[2]
        found[last] = found.get(last, 0) + sum(map(n_bytes, buffers(module)))
    return found


def buffers(module: Any) -> list[Any]:
    """Its A and B, whether one tensor or a tuple."""
    names = BUFFERS if hasattr(module, BUFFERS[0]) else ("lora_a_stacked", "lora_b_stacked")
    stacked = [getattr(module, name) for name in names]
    return [tensor for one in stacked for tensor in (one if isinstance(one, tuple) else (one,))]


def n_bytes(tensor: Any) -> int:
    """Bytes of a tensor."""
    size: int = tensor.numel() * tensor.element_size()
    return size


def without_kernels() -> None:
    """Replace what only a GPU has; nothing of it computes a size."""
    import torch
    from vllm.lora import model_manager
    from vllm.lora.layers import fused_moe

    def init(self: Any, base_layer: Any) -> None:
        torch.nn.Module.__init__(self)
        self.base_layer = base_layer
        self._shared_experts = base_layer._shared_experts
        self.moe_config = base_layer.moe_config
        self._ep_check()
        self.tp_size = self.moe_config.moe_parallel_config.tp_size
        self.tp_rank = self.moe_config.moe_parallel_config.tp_rank
        self.device = torch.device("meta")
        self._w13_slices = 2
        self.enable_moe_shared_loras = False
        self.n_slices = self.local_num_experts * (self._w13_slices + 1)

    fused_moe.FusedMoEWithLoRA.__init__ = init
    fused_moe.FusedMoEWithLoRA.set_mapping = lambda *_: None
    model_manager.get_punica_wrapper = lambda *_, **__: object()


if __name__ == "__main__":
    cases = json.load(sys.stdin)
    output, sys.stdout = sys.stdout, sys.stderr  # vLLM prints
    gpu_stage.raise_curtain()
    without_kernels()
    json.dump([answer(case) for case in cases], output)
