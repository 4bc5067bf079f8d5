"""Model folders without weights: the real configuration, a made-up tokenizer of the real size.

vLLM's ``--load-format dummy`` fills the real shapes with random numbers, so memory, step times and
scheduling are the real model's. Text, MTP acceptance and router skew are not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("tests/tensors", "tests/e2e", ".")]

from header_files import CONFIGS, QUANTIZATION  # noqa: E402
from tiny_model import (  # noqa: E402
    ADDED_TOKENS,
    CHAT_TEMPLATE,
    CORPUS,
    _image_processor,
    _write_json,
)

SCHEMES = {"bf16": "bf16", "fp8": "fp8", "gptq-int4": "gptq"}
"""Checkpoint ids of profiles/checkpoints, and the quantization config of each."""
ORDER = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>",
    "<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<tool_response>",
    "</tool_response>", "<think>", "</think>",
]  # fmt: skip
"""From the first special id on, so that ids named in config.json mean what they should."""


def make(checkpoint: str, folder: Path) -> Path:
    """Write config, tokenizer and processor files of a checkpoint of the 122B to ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((CONFIGS / "qwen3.5-122b-a10b.json").read_text())
    if quantization := QUANTIZATION[SCHEMES[checkpoint]]:
        config["quantization_config"] = quantization
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {
            "do_sample": True,
            "temperature": 0.6,
            "top_k": 20,
            "top_p": 0.95,
            "eos_token_id": [_id("<|im_end|>", config)],
        },
    )
    _write_json(folder / "preprocessor_config.json", _image_processor("Qwen2VLImageProcessorFast"))
    video = _image_processor("Qwen3VLVideoProcessor", kind="video_processor_type")
    _write_json(folder / "video_preprocessor_config.json", video)
    _write_tokenizer(folder, config)
    return folder


def _id(token: str, config: dict[str, Any]) -> int:
    first: int = config["text_config"]["eos_token_id"]
    return first + ORDER.index(token)


def _write_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    """Every id decodes to a word, so that a token is a chunk of the stream, whatever is drawn."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415 - of the engine's Python alone

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    trained.train_from_iterator(CORPUS.splitlines(), trainer)
    model = json.loads(trained.to_str())["model"]
    vocabulary, merges = dict(model["vocab"]), [tuple(merge) for merge in model["merges"]]
    first: int = config["text_config"]["eos_token_id"]
    for number in range(len(vocabulary), first):
        vocabulary[f"\u0120w{number}"] = number  # " w12345" in the byte-level alphabet; no merge makes it.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    size: int = config["text_config"]["vocab_size"]
    added = ORDER + [f" extra{number}" for number in range(first + len(ORDER), size)]
    tokenizer.add_tokens(
        [
            AddedToken(token, special=ADDED_TOKENS.get(token, token.startswith("<|")), normalized=False)
            for token in added
        ]
    )
    for token in ("<|image_pad|>", "<|vision_start|>"):
        named = config[
            {"<|image_pad|>": "image_token_id", "<|vision_start|>": "vision_start_token_id"}[token]
        ]
        if tokenizer.token_to_id(token) != named:
            raise SystemExit(f"{token} became {tokenizer.token_to_id(token)}, config.json says {named}")
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "clean_up_tokenization_spaces": False,
            "model_max_length": config["text_config"]["max_position_embeddings"],
        },
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


if __name__ == "__main__":
    print(make(sys.argv[1], Path(sys.argv[2])))
