"""The start token of the decoder in an encoder–decoder model, before the first token that it predicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from autopeft.common.exceptions import ModelError
from autopeft.models.token_loss import IGNORED

if TYPE_CHECKING:
    import numpy as np

TRIED = 4
"""Labels of a test row."""


@torch.no_grad()
def decoder_start(model: Any, last: np.ndarray) -> int:
    """The token that starts the decoder's input: for labels a, b, c the model makes the input start, a, b.

    Most models name one token for it in their configuration; mBART and its relatives move the last label of each row,
    such as a language code, to the front. The model is tested on labels of two rows.

    Args:
        model: of transformers.
        last: the last label of each training row.

    Raises:
        ModelError: it changes labels in another way, or moves last labels to the front, and these differ.
    """
    words = model.get_output_embeddings().weight.shape[0]
    known = [token for token in range(min(words, 4 * TRIED)) if token != model.config.pad_token_id]
    labels = torch.tensor([[*known[:TRIED]], [*known[TRIED : 2 * TRIED - 1], IGNORED]], device=model.device)
    found = _decoder_inputs(model, labels).cpu()
    first, rest = found[:, 0], found[:, 1:]
    given = labels[:, :-1].cpu()
    front = torch.stack([labels[0, -1], labels[1, -2]]).cpu()
    if torch.equal(rest, given) and first[0] == first[1]:
        return int(first[0])
    if not torch.equal(rest, given) or not torch.equal(first, front):
        raise ModelError(
            "[model] name_or_path: a decoder must get the labels shifted by one place, after a start token, but "
            f"{type(model).__name__} changes them in another way; give another model."
        )
    if (last != last[0]).any():
        raise ModelError(
            f"[model] name_or_path: {type(model).__name__} begins with the last token of the target text, which must "
            "be the same in all rows, such as a language code, but it differs; give another model, or a tokenizer "
            "that adds an end token."
        )
    return int(last[0])


class _ReachedError(Exception):
    """The decoder has its input."""


def _decoder_inputs(model: Any, labels: torch.Tensor) -> torch.Tensor:
    """The input that the model gives its decoder for these labels.

    Raises:
        ModelError: there is none, since its configuration names no start token.
    """
    found: list[torch.Tensor] = []

    def catch(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        found.append(args[0] if args else kwargs["input_ids"])
        raise _ReachedError

    hook = model.get_decoder().register_forward_pre_hook(catch, with_kwargs=True)
    try:
        model(input_ids=labels.clamp(min=0), labels=labels)
    except _ReachedError:
        return found[0]
    except ValueError as error:
        raise ModelError(
            f"[model] name_or_path: the configuration of {type(model).__name__} must name the start token of its "
            f"decoder (`decoder_start_token_id`), but: {error}"
        ) from None
    finally:
        hook.remove()
    raise ModelError(
        f"[model] name_or_path: a model must make its decoder's input from the labels, but {type(model).__name__} does "
        "not; give another model."
    )
