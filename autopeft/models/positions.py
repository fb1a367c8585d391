"""How long an input may be for a model to know each of its tokens' positions."""

from __future__ import annotations

import math
import re
from typing import Any

from torch import nn

TABLE = re.compile(r"(position_embeddings|embed_positions|wpe)")
"""What model types call the module that holds a vector for each position."""


def positions(model: Any) -> float:
    """Tokens an input may have, at most; infinite where neither the configuration nor a table sets a limit.

    A table may have rows that no token gets: RoBERTa and its kin count positions from behind the padding token's
    number, OPT and BART from a constant `offset`.

    Args:
        model: of transformers, on any device.
    """
    limits = [getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf]
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Embedding) and TABLE.fullmatch(name.rpartition(".")[2]):
            unused = getattr(module, "offset", 0) if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - unused)
    return min(limits)
