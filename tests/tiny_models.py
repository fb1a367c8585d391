"""Tiny sequence classifiers of the families autopeft must work on: built from a config, random weights, no download."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, logging

from autopeft.architecture import describe
from autopeft.model import BaseModel

VOCABULARY = 64
PAD, FIRST_WORD = 1, 4

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
}
"""Model types, with what their configs call by another name or need besides `SIZES`."""


def tiny(model_type: str, num_labels: int = 3, seed: int = 0) -> nn.Module:
    """A sequence classifier of that family: 4 layers, hidden size 32, 4 heads, frozen, its head included."""
    logging.set_verbosity_error()
    special = {"pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
    options = {"vocab_size": VOCABULARY, **special, **SIZES, **FAMILIES[model_type]}
    config = AutoConfig.for_model(model_type, num_labels=num_labels, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config)
    # Transformers draws so small a head that a tiny model's outputs barely differ; tests need them to.
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    return model.requires_grad_(False).eval()


def batch(rows: int = 6, length: int = 12, num_labels: int = 3, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows, right-padded to `length`: `input_ids` and `attention_mask` `[rows, length]`, `labels` `[rows]`."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(FIRST_WORD, VOCABULARY, (rows, length), generator=generator)
    lengths = torch.randint(length // 2, length + 1, (rows, 1), generator=generator)
    attention_mask = (torch.arange(length) < lengths).long()
    input_ids = input_ids.where(attention_mask.bool(), torch.tensor(PAD))
    labels = torch.randint(num_labels, (rows,), generator=generator)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


@functools.cache
def tiny_base(model_type: str) -> BaseModel:
    """`tiny(model_type)` as the host holds it, with no tokenizer; shared, since `attach` works on private copies."""
    module = tiny(model_type)
    return BaseModel(module, None, describe(module, "text-classification", "SEQ_CLS"))
