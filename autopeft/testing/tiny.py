"""Tiny sequence classifiers of many families, built from a config with random weights, and rows for them to learn."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import nn

from autopeft.data.encoded import Encoded, Field, token_fields
from autopeft.models.architecture import describe
from autopeft.models.base import BaseModel

VOCABULARY = 64
PAD, START, END, FIRST_WORD = 1, 2, 3, 4

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "electra": {"embedding_size": 16},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 4, "n_positions": 128},
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 64},
    "llama": {"num_key_value_heads": 2},
    "qwen2": {"num_key_value_heads": 2},
    "distilbert": {"dim": 32, "hidden_dim": 64, "n_heads": 4, "n_layers": 4},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "albert": {"embedding_size": 16},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8},
    "t5": {
        "num_hidden_layers": 2,
        "num_decoder_layers": 2,
        "d_kv": 8,
        "d_ff": 64,
        "initializer_factor": 0.3,  # its own weights are large enough
        "decoder_start_token_id": PAD,
    },
}
"""Model types, with what their configurations need besides `SIZES`, or call by another name."""

SIDE, PATCH = 16, 4
"""Pixels of a tiny image, and of a patch."""

IMAGE_FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {"image_size": SIDE, "patch_size": PATCH},
    "dinov2": {"image_size": SIDE, "patch_size": PATCH, "mlp_ratio": 2},
    "beit": {"image_size": SIDE, "patch_size": PATCH, "use_relative_position_bias": True},
}
"""The same for model types that read images."""

PAIR_FAMILIES: dict[str, dict[str, Any]] = {
    "vision-text-dual-encoder": {
        "vision_config": {"model_type": "dinov2", **SIZES, **IMAGE_FAMILIES["dinov2"], "num_attention_heads": 2},
        "text_config": {"model_type": "bert", **SIZES, "hidden_size": 48, "num_hidden_layers": 2},
        "projection_dim": 24,
    },
    "clip": {
        "vision_config": {**SIZES, **IMAGE_FAMILIES["vit"], "hidden_size": 48, "num_hidden_layers": 2},
        "text_config": {**SIZES, "bos_token_id": 2, "num_hidden_layers": 2},
        "projection_dim": 24,
    },
}
"""The same for model types with a tower for images and one for texts, of different width, heads and depth."""

TWO_STACKS: dict[str, Any] = {
    "num_hidden_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "decoder_attention_heads": 2,
    "decoder_start_token_id": PAD,
}
WRITING_FAMILIES: dict[str, dict[str, Any]] = {
    "t5": FAMILIES["t5"],
    "bart": TWO_STACKS,
    "marian": TWO_STACKS,
}
"""The same for model types that read one text and write another."""

ALL_FAMILIES = (*FAMILIES, *IMAGE_FAMILIES)
"""The families that methods are tested on."""


def tiny(model_type: str, num_labels: int = 3, seed: int = 0) -> nn.Module:
    """A classifier of that family: 4 layers in all, hidden size 32, 4 heads; frozen, its head included."""
    import transformers

    transformers.logging.set_verbosity_error()
    special = {"pad_token_id": PAD, "bos_token_id": START, "eos_token_id": END}
    special |= {"cls_token_id": START, "sep_token_id": END, "vocab_size": VOCABULARY}
    images = model_type in IMAGE_FAMILIES
    options = {**SIZES, **(IMAGE_FAMILIES[model_type] if images else {**special, **FAMILIES[model_type]})}
    config = transformers.AutoConfig.for_model(model_type, num_labels=num_labels, **options)
    kind = transformers.AutoModelForImageClassification if images else transformers.AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = kind.from_config(config)
    # Transformers draws such small heads that a tiny model's outputs barely differ; tests need differences.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    return model.requires_grad_(False).eval()


@functools.cache
def tiny_base(model_type: str) -> BaseModel:
    """`tiny(model_type)` as the host's base model, with no tokenizer; shared, since `attach` works on copies."""
    module = tiny(model_type)
    asked = ("image-classification", None) if model_type in IMAGE_FAMILIES else ("text-classification", "SEQ_CLS")
    return BaseModel(module, None, describe(module, *asked))


def batch(rows: int = 6, length: int = 12, num_labels: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows, right-padded to `length`: `input_ids` and `attention_mask` `[rows, length]`, `labels` `[rows]`."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(FIRST_WORD, VOCABULARY, (rows, length), generator=generator)
    lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=generator)
    input_ids.scatter_(1, lengths - 1, END)
    attention_mask = (torch.arange(length) < lengths).long()
    input_ids = input_ids.where(attention_mask.bool(), torch.tensor(PAD))
    labels = torch.randint(num_labels, (rows,), generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def learnable_rows(count: int = 48, seed: int = 0) -> Encoded:
    """Rows of 6 to 12 tokens whose label, one of three, says which of three words they hold."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    texts = [
        np.concatenate([[START], generator.integers(20, 60, generator.integers(1, 8)), [10 + label] * 3, [END]])
        for label in labels
    ]
    tokens, offsets = np.concatenate(texts).astype(np.int32), np.cumsum([0, *map(len, texts)])
    fields = {**token_fields({"input_ids": tokens}, offsets, PAD), "labels": Field(labels)}
    return Encoded(fields, labels, axis="input_ids")


def learnable_images(count: int = 48, seed: int = 0) -> Encoded:
    """Images of noise whose label, one of three, says which colour is strongest."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    pixels = generator.integers(0, 120, (count, 3, SIDE, SIDE), np.uint8)
    pixels[np.arange(count), labels] += np.uint8(100)
    scale = np.full((3, 1, 1), 1 / 128, np.float32)
    fields = {"pixel_values": Field(pixels, scale=scale, shift=-scale * 128), "labels": Field(labels)}
    return Encoded(fields, labels, places=(SIDE // PATCH) ** 2 + 1)


def rows_for(model_type: str) -> Encoded:
    """Rows that a model of that family can learn."""
    return learnable_images() if model_type in IMAGE_FAMILIES else learnable_rows()


def blank_rows(lengths: np.ndarray) -> Encoded:
    """Rows with these numbers of equal tokens, for uses where only lengths matter."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tokens, labels = np.full(int(offsets[-1]), FIRST_WORD, np.int32), np.zeros(len(lengths), np.int64)
    return Encoded(
        {**token_fields({"input_ids": tokens}, offsets, PAD), "labels": Field(labels)}, labels, axis="input_ids"
    )
