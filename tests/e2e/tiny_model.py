"""Make a tiny Qwen3.5-MoE checkpoint that real vLLM serves on two CPU cores.

The architecture is Qwen3.5-122B-A10B's (Gated DeltaNet and full attention 3:1, mixture of experts
with a shared one, one MTP layer, a vision tower), four layers deep, with random weights and a
byte-level BPE tokenizer trained on the spot. Needs torch and transformers, which the engine
environment has; `make_tiny_model` hands over to its Python where it is called from another one.

    <engine>/bin/python tests/e2e/tiny_model.py DIR
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __package__:
    from .engine_env import COMPLETE_MARKER, build, engine_dir, engine_python
else:  # run as a script
    from engine_env import COMPLETE_MARKER, build, engine_dir, engine_python

if TYPE_CHECKING:
    import torch

SEED = 0
HIDDEN_SIZE = 256
HEAD_DIM = 64
LINEAR_HEAD_DIM = 64  # vLLM's CPU kernel takes 64 and 128; 32 kills the engine at the first request.
MAX_MODEL_LEN = 32768
# Wide enough that one token stands out, as in a trained model: a greedy answer then survives the
# rounding differences between batch shapes.
LM_HEAD_STD = 0.25

# Qwen's order. True: special, left out of decoded text.
ADDED_TOKENS = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<|vision_start|>": True,
    "<|vision_end|>": True,
    "<|vision_pad|>": True,
    "<|image_pad|>": True,
    "<|video_pad|>": True,
    "<tool_call>": False,
    "</tool_call>": False,
    "<tool_response>": False,
    "</tool_response>": False,
    "<think>": False,
    "</think>": False,
}

# Trains the tokenizer: ordinary English, so that a prompt of words takes fewer tokens than letters.
CORPUS = """\
The model reads the prompt, then it writes the answer one token at a time. Each token that it has
read or written stays in the cache, so that the next token needs only one more step. A longer
prompt takes more time before the first token comes; a larger batch makes each step a little
slower, but the machine as a whole writes more tokens in the same time. When the cache is full,
the request that came last has to wait, and when it waits for too long the person who asked will
turn to another one. What should be done about it? Buy more memory, send shorter prompts, or keep
fewer of them in flight. The price of an hour is the same in every case, so the question is how
much work fits into the hour. Please count the requests of one day, write down how long they are,
and tell me which of the machines can serve them. Thank you for the help with this, said the user.
You are a helpful assistant. Answer in a few words, and explain how you know that it is true.
"""

# Speaks Qwen3.5's dialect: ChatML, <think> opened in the prompt, tool calls as <function=...>.
CHAT_TEMPLATE = r"""
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- else -%}
{%- for part in content or [] -%}
{%- if part.type in ('image', 'image_url') or 'image' in part -%}<|vision_start|><|image_pad|><|vision_end|>
{%- elif part.type == 'video' or 'video' in part -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part -%}{{ part.text }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set system = messages[0] if messages and messages[0].role == 'system' else none -%}
{%- if tools -%}
{{ '<|im_start|>system\n# Tools\n\nYou have access to the following functions:\n\n<tools>' }}
{%- for tool in tools -%}{{ '\n' }}{{ tool | tojson }}{%- endfor -%}
{{ '\n</tools>\n\nTo call one, reply in this format:\n\n<tool_call>\n<function=name>\n<parameter=name>\n'
   'value\n</parameter>\n</function>\n</tool_call>' }}
{%- if system -%}{{ '\n\n' + text(system.content) }}{%- endif -%}
{{ '<|im_end|>\n' }}
{%- elif system -%}
{{ '<|im_start|>system\n' + text(system.content) + '<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'user' -%}
{{ '<|im_start|>user\n' + text(message.content) + '<|im_end|>\n' }}
{%- elif message.role == 'assistant' -%}
{{ '<|im_start|>assistant\n' + text(message.content) }}
{%- for tool_call in message.tool_calls or [] -%}
{%- set function = tool_call.function or tool_call -%}
{{ '\n<tool_call>\n<function=' + function.name + '>\n' }}
{%- for name, value in function.arguments | items -%}
{{ '<parameter=' + name + '>\n' }}
{{- value if value is string else value | tojson }}
{{- '\n</parameter>\n' }}
{%- endfor -%}
{{ '</function>\n</tool_call>' }}
{%- endfor -%}
{{ '<|im_end|>\n' }}
{%- elif message.role == 'tool' -%}
{{ '<|im_start|>user\n<tool_response>\n' + text(message.content) + '\n</tool_response><|im_end|>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{ '<think>\n\n</think>\n\n' }}
{%- else -%}
{{ '<think>\n' }}
{%- endif -%}
{%- endif -%}
""".lstrip()


def tiny_model() -> Path:
    """Return the directory of the tiny model, made beside the engine at the first call."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    directory = engine_dir() / "models" / f"tiny-qwen3.5-moe-{digest}"
    if not directory.is_dir():
        make_tiny_model(directory)
    return directory


def make_tiny_model(directory: Path) -> Path:
    """Write the tiny model to ``directory``, which appears complete or not at all; return it.

    The same files come out each time. If ``directory`` exists by then, it is left as it is: somebody
    else was faster. Builds the engine if it is missing; raises `engine_env.EngineBuildError`, and
    `subprocess.CalledProcessError` if the engine's Python fails.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "model"
        if (Path(sys.prefix) / COMPLETE_MARKER).is_file():  # This is the engine's Python.
            _write_model(made)
        else:
            _write_with_engine(made)
        if not directory.is_dir():
            _move(made, directory)
    return directory


def _write_with_engine(directory: Path) -> None:
    build()
    command = [str(engine_python()), str(Path(__file__).resolve()), "--write", str(directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def _move(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:  # ENOTEMPTY or EEXIST: made in the meantime by another process.
        if not target.is_dir():
            raise


def _write_model(directory: Path) -> None:
    """Write all files of the checkpoint; runs in the engine's Python."""
    directory.mkdir()
    tokenizer = _write_tokenizer(directory)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    _write_json(directory / "config.json", _config(vocabulary))
    _write_json(directory / "generation_config.json", _generation_config(vocabulary))
    _write_json(directory / "preprocessor_config.json", _image_processor("Qwen2VLImageProcessorFast"))
    video = _image_processor("Qwen3VLVideoProcessor", kind="video_processor_type")
    _write_json(directory / "video_preprocessor_config.json", video)
    _write_weights(directory, vocabulary)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def _write_tokenizer(directory: Path) -> Any:
    """Train and write the tokenizer; return it as a `tokenizers.Tokenizer`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=1000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS.splitlines(), trainer)
    # Added after training, so that their ids come last, as in Qwen's tokenizer.
    tokenizer.add_tokens([AddedToken(t, special=s, normalized=False) for t, s in ADDED_TOKENS.items()])
    tokenizer.save(str(directory / "tokenizer.json"))
    _write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "model_max_length": MAX_MODEL_LEN,
        },
    )
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return tokenizer


def _config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3_5MoeForConditionalGeneration"],
        "model_type": "qwen3_5_moe",
        "dtype": "bfloat16",
        "image_token_id": vocabulary["<|image_pad|>"],
        "video_token_id": vocabulary["<|video_pad|>"],
        "vision_start_token_id": vocabulary["<|vision_start|>"],
        "vision_end_token_id": vocabulary["<|vision_end|>"],
        "tie_word_embeddings": False,
        "text_config": _text_config(vocabulary),
        "vision_config": {
            "model_type": "qwen3_5_moe",
            "depth": 2,
            "hidden_size": 64,
            "hidden_act": "gelu_pytorch_tanh",
            "intermediate_size": 128,
            "num_heads": 2,
            "in_channels": 3,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "num_position_embeddings": 256,
            "out_hidden_size": HIDDEN_SIZE,
            "deepstack_visual_indexes": [],
            "initializer_range": 0.02,
        },
    }


def _text_config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "model_type": "qwen3_5_moe_text",
        "dtype": "bfloat16",
        "vocab_size": len(vocabulary),
        "hidden_size": HIDDEN_SIZE,
        "num_hidden_layers": 4,
        "full_attention_interval": 4,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": HEAD_DIM,
        "attn_output_gate": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "linear_conv_kernel_dim": 4,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": LINEAR_HEAD_DIM,
        "linear_value_head_dim": LINEAR_HEAD_DIM,
        "mamba_ssm_dtype": "float32",
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 64,
        "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "initializer_range": 0.02,
        "max_position_embeddings": MAX_MODEL_LEN,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000000,
            "partial_rotary_factor": 0.25,
            "mrope_interleaved": True,
            "mrope_section": [3, 3, 2],  # Sums to half of the rotated part, 64 * 0.25 / 2.
        },
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": vocabulary["<|endoftext|>"],
    }


def _generation_config(vocabulary: dict[str, int]) -> dict[str, Any]:
    return {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 20,
        "top_p": 0.95,
        "eos_token_id": [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]],
        "pad_token_id": vocabulary["<|endoftext|>"],
    }


def _image_processor(name: str, *, kind: str = "image_processor_type") -> dict[str, Any]:
    return {
        kind: name,
        "processor_class": "Qwen3VLProcessor",
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "size": {"shortest_edge": 1024, "longest_edge": 65536},  # Pixels: 1 to 64 tokens an image.
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }


def _write_weights(directory: Path, vocabulary: dict[str, int]) -> None:
    """Write random weights under the names of the published checkpoints."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, Qwen3_5MoeForConditionalGeneration

    torch.manual_seed(SEED)
    config = AutoConfig.from_pretrained(directory)
    model = Qwen3_5MoeForConditionalGeneration(config).to(torch.bfloat16)
    weights = model.state_dict()
    weights |= _mtp_weights(weights)
    weights["lm_head.weight"] = _lm_head(weights["lm_head.weight"], vocabulary)
    contiguous = {name: tensor.contiguous() for name, tensor in sorted(weights.items())}
    save_file(contiguous, directory / "model.safetensors", metadata={"format": "pt"})


def _mtp_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the MTP layer, shaped like a full-attention layer; transformers has no class for it."""
    import torch

    template = "model.language_model.layers.3."
    layer = {
        name.replace(template, "mtp.layers.0."): torch.zeros_like(tensor).normal_(std=0.02)
        for name, tensor in weights.items()
        if name.startswith(template)
    }
    norm = weights["model.language_model.norm.weight"]
    norms = {
        f"mtp.{name}.weight": norm.clone() for name in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")
    }
    fc = torch.empty(HIDDEN_SIZE, 2 * HIDDEN_SIZE, dtype=norm.dtype).normal_(std=0.02)
    return layer | norms | {"mtp.fc.weight": fc}


def _lm_head(like: torch.Tensor, vocabulary: dict[str, int]) -> torch.Tensor:
    """Return an output layer that speaks in whole ASCII tokens and practically never stops.

    A zero row has logit 0, below the top 20 of the random others. Without this some random tokens
    would end an answer, and bytes that are half a character would reach the client late.
    """
    import torch

    rows = torch.empty_like(like).normal_(std=LM_HEAD_STD)
    # Byte-level BPE spells the space as U+0120; characters below 127 stand for themselves.
    mute = [
        token_id
        for token, token_id in vocabulary.items()
        if token in ADDED_TOKENS or not token.replace("\u0120", " ").isascii()
    ]
    rows[mute] = 0
    return rows


def main(arguments: list[str]) -> int:
    """Make the model in the directory that ``arguments`` names; return the exit status."""
    match arguments:
        case ["--write", directory]:  # The engine's half of `make_tiny_model`.
            _write_model(Path(directory))
        case [directory] if not directory.startswith("-"):
            sys.stdout.write(f"{make_tiny_model(Path(directory).absolute())}\n")
        case _:
            sys.stderr.write("usage: tiny_model.py DIR\n")
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
