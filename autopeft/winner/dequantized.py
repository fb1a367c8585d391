"""A winner on a quantized base model, moved to that model's weights in float32, so that it can be merged."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from autopeft.models import quantization
from autopeft.winner import winner as artifact
from autopeft.winner.method import method_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from autopeft.winner.winner import Winner

TOKENS = (4, 12)
"""Token ids to compare models that write: the first that are ordinary tokens in most vocabularies."""


def dequantized(winner: Winner) -> Winner:
    """The same winner, its base model's quantized weights expanded to float32: it predicts the same, up to rounding.

    With 8 bits the rounding is larger than with 4, since the inputs of products are rounded to 8 bits too (LLM.int8).

    peft's `merge` rounds the add-on with the packed weights to 4 bits; here nothing is packed again. On the original
    weights the winner would predict something else, since it was not trained on them.

    Raises:
        UserInputError: as `winner.load`.
    """
    method, whole = method_of(winner.card), replace(winner.card, quantization=quantization.NONE)
    with tempfile.TemporaryDirectory() as folder:
        artifact.save(winner.module, method, winner.reader, whole, Path(folder))
        found = artifact.load(folder, trust_remote_code=winner.card.trust_remote_code)
    for name, packed in winner.module.named_modules():
        if quantization.is_quantized(packed) and "weight" in packed._parameters:
            weight = found.module.get_submodule(name).get_parameter("weight")
            expanded = quantization.expanded(packed).to(weight.device)
            weight.data = expanded.T.contiguous() if _transposed(found, name) else expanded
    return found


def _transposed(winner: Winner, name: str) -> bool:
    """Whether a map keeps its weight `[in, out]`, as in GPT-2; packed weights are all `[out, in]`."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(winner.module.get_submodule(name), Conv1D)


@torch.no_grad()
def difference(winner: Winner, other: Winner) -> tuple[float, float]:
    """The largest difference between two winners' outputs for one input, and the first one's largest output."""
    found = [_outputs(each) for each in (winner, other)]
    return float((found[0] - found[1]).abs().max()), float(found[0].abs().max())


def _outputs(winner: Winner) -> torch.Tensor:
    module: Any = winner.module.eval()
    inputs: Mapping[str, torch.Tensor]
    if winner.writes:
        ids = torch.arange(*TOKENS)[None]
        inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if module.config.is_encoder_decoder else {})}
    else:
        inputs = winner.arranged(winner.reader.standalone().example(winner.texts))
    place = next(module.parameters()).device
    outputs = module(**{name: tensor.to(place) for name, tensor in inputs.items()})
    first: torch.Tensor = outputs["logits"] if "logits" in outputs else next(iter(outputs.values()))
    return first.float().cpu()
