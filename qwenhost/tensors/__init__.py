"""True tensors: the headers of a checkpoint's safetensors files, on disk or on the hub, and what follows.

Nothing but headers is read, from the hub by HTTP range requests. The result is a checkpoint profile
with the exact bytes that vLLM holds, by module group and way of sharding.
"""

from __future__ import annotations

from qwenhost.tensors.adapters import Adapter, lora_options, read_adapter
from qwenhost.tensors.header import Tensor, parse_header
from qwenhost.tensors.profile import Imported, import_checkpoint
from qwenhost.tensors.source import CheckpointFiles, read_checkpoint

__all__ = [
    "Adapter",
    "CheckpointFiles",
    "Imported",
    "Tensor",
    "import_checkpoint",
    "lora_options",
    "parse_header",
    "read_adapter",
    "read_checkpoint",
]
