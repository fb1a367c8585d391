"""How many positions a model knows, and so how long an input may be."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

TABLE = re.compile(r"(position_embeddings|embed_positions|wpe)")
"""Names in model types for the module with a vector for each position."""


def positions(model: Any) -> float:
    """Most tokens of an input; infinite if neither the configuration nor a table sets a limit.

    A table may have unused rows: RoBERTa and its relatives count positions from after the padding token's number, OPT
    and BART from a constant `offset`.

    Args:
        model: of transformers, on any device.
    """
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf]
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Embedding) and TABLE.fullmatch(name.rpartition(".")[2]):
            unused = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min(limits)
