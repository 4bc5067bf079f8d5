"""Which layers a pipeline stage holds, as vLLM divides them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qwenhost.facts import Value

if TYPE_CHECKING:
    from qwenhost.facts import Architecture


class Stage(Value, frozen=True, kw_only=True):
    """One pipeline stage."""

    first_layer: int
    full_attention_layers: int
    linear_attention_layers: int
    is_first: bool
    is_last: bool

    @property
    def layers(self) -> int:
        """Decoder layers of either kind."""
        return self.full_attention_layers + self.linear_attention_layers


def stages(architecture: Architecture, pipeline_parallel_size: int) -> tuple[Stage, ...]:
    """Layers by stage; what does not divide goes to the stages before the last.

    Source: https://github.com/vllm-project/vllm/blob/v0.33.0/vllm/distributed/utils.py#L198
    """
    layers, interval = architecture.num_hidden_layers, architecture.full_attention_interval
    sizes = [layers // pipeline_parallel_size] * pipeline_parallel_size
    for i in range(2, layers % pipeline_parallel_size + 2):
        sizes[-i] += 1
    found, start = [], 0
    for index, size in enumerate(sizes):
        full = (start + size) // interval - start // interval
        found.append(
            Stage(
                first_layer=start,
                full_attention_layers=full,
                linear_attention_layers=size - full,
                is_first=index == 0,
                is_last=index == pipeline_parallel_size - 1,
            )
        )
        start += size
    return tuple(found)
