"""How many tokens a row may have, and which ones a model knows, by its configuration, tables and tokenizer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch import nn

from autopeft.common.exceptions import ModelError, SpecError, UserInputError
from autopeft.models.control_tokens import controls_of
from autopeft.models.positions import positions

if TYPE_CHECKING:
    from autopeft.study.card import Card
    from autopeft.study.sections import ModelSection

LONGEST_INPUT = 448
"""Without `max_length` in [model]: the model's own limit, but at most this many tokens.

A model with 512 learnt positions then has room for the longest prefix, which shifts the input's positions.
"""

NAMED = 3
"""How many tokens a message names."""


def max_length(tokenizer: Any, model: Any, section: ModelSection, texts: int) -> int:
    """Most tokens of an input: `max_length` in [model], within the limits of the model and its tokenizer.

    Raises:
        SpecError: `max_length` is over the model's limit, or leaves no room for the texts.
        ModelError: the model reads the last position of a row, even if it is padding.
    """
    config = model.config.get_text_config()
    if getattr(config, "summary_type", None) == "last":
        raise ModelError(
            f"[model] name_or_path: {type(model).__name__} reads the last position of a row, which is padding in "
            "shorter rows, so it cannot be used; take another model."
        )
    limit = min(tokenizer.model_max_length, positions(model))
    wanted = section.max_length or min(LONGEST_INPUT, limit)
    if wanted > limit:
        raise SpecError(
            f"`max_length` in [model] must be at most the model's own limit of {limit}, but got {wanted}; lower it."
        )
    marks = tokenizer.num_special_tokens_to_add(pair=texts > 1)
    if wanted < marks + texts:
        raise SpecError(
            f"`max_length` in [model] must be at least {marks + texts}, because the tokenizer adds {marks} tokens of "
            f"its own to {'a text' if texts == 1 else 'each pair of texts'}, but got {wanted}; raise it."
        )
    return int(wanted)


def of_card(tokenizer: Any, model: Any, card: Card, where: str) -> int:
    """`max_length` on a winner's card; inputs longer than the model's positions would fail in the middle of predicting.

    Raises:
        UserInputError: it is over the model's limit.
    """
    config = model.config.get_text_config()
    limit = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or math.inf)
    if card.max_length is None or card.max_length > limit:
        raise UserInputError(
            f"`max_length` in {where} must be at most the model's own limit of {limit}, but is {card.max_length}; "
            "restore it."
        )
    return card.max_length


def check(tokenizer: Any, model: Any, texts: int, where: str) -> None:
    """Make sure that rows can be padded, and that the model has an embedding for every token of a text.

    Raises:
        ModelError: one of these fails; the sentence begins with `where`.
    """
    if tokenizer.pad_token_id is None:
        raise ModelError(
            f"{where} needs a padding token, but its tokenizer has none, and no end or unknown token to use instead; "
            "set `pad_token` in its tokenizer_config.json to one of its tokens."
        )
    try:
        embedding = model.get_input_embeddings()
    except NotImplementedError:
        return
    if not isinstance(embedding, nn.Embedding):
        return
    marks = {tokenizer.pad_token_id, *tokenizer(*[[""]] * texts)["input_ids"][0]}
    never = {*tokenizer.convert_tokens_to_ids(controls_of(tokenizer))} - marks  # text cannot become these
    outside = {i: token for token, i in tokenizer.get_vocab().items() if i >= embedding.num_embeddings}
    outside = {i: token for i, token in sorted(outside.items()) if i not in never}
    if outside:
        named = ", ".join(f"{token!r} ({i})" for i, token in list(outside.items())[:NAMED])
        more = f" and {len(outside) - NAMED} more" if len(outside) > NAMED else ""
        raise ModelError(
            f"{where} must have an embedding for every token of its tokenizer, but its {embedding.num_embeddings} do "
            f"not include {named}{more}; save the model again after resize_token_embeddings(len(tokenizer)), or put "
            "its own tokenizer beside it."
        )
