"""Base models whose hidden states grow beyond 65,504, the largest float16 number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from autopeft.methods.contract import ModelSpec

BEYOND = ("gemma3", "gemma3_text", "gemma3n", "gemma3n_text")
"""Model types with reports of this: huggingface/transformers issues 36822 and 39972 (Gemma 3), and Unsloth's list of
models that it never runs in float16 (also Gemma 3n)."""


def overflows(module: nn.Module, spec: ModelSpec) -> str:
    """Why a base model cannot be trained in float16, as far as its type shows; empty if nothing is known.

    transformers names the linear maps that it keeps in float32 when all others are in float16: `wo` of T5 and its
    relatives, whose products overflow (huggingface/transformers pull request 10956).
    """
    kinds = {str(getattr(getattr(part, "config", None), "model_type", "")) for part in module.modules()}
    if known := sorted(kinds.intersection(BEYOND)):
        return f"the hidden states of {known[0]} models exceed its range"
    kept = {
        name for part in module.modules() for name in getattr(type(part), "_keep_in_fp32_modules", None) or ()
    }  # from the classes: an instance adds what its loading asked for
    linears = {linear.name.rpartition(".")[2] for linear in spec.linears}
    if maps := sorted(kept & linears):
        return (
            f"the products of {spec.architecture}'s `{maps[0]}` overflow in it, and transformers itself keeps that map "
            "in float32"
        )
    return ""
