"""How much likelier a pretrained language model finds a word in rows of a label than in other rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from autopeft import OutputHead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft import Encoded

ROWS = 32
"""Most rows of a label that are looked at."""

BATCH = 16
LIKELY = 1000
"""A label's word is one of this many that the model finds likeliest in the label's rows."""


def gains(model: Any, data: Encoded, labels: Sequence[int], taught: Sequence[str], at: str) -> np.ndarray:
    """For each label and token, how much likelier it is in rows of that label than in others, `[labels, tokens]`.

    That is the token's mean log-probability over the label's rows minus that over others (the rule of Schick, Schmid &
    Schütze 2020, arXiv:2010.13641, section 4, with the same weight for each label), among the tokens that are likeliest
    in the label's rows (Gao et al. 2021, arXiv:2012.15723, section 5.1); -inf for all others.

    Args:
        model: frozen.
        data: rows to train on; their truths are the positions of their labels.
        labels: positions of the labels that need a word.
        taught: tensors of a batch that the model does not get.
        at: the one of them that says where the word is.
    """
    truths = data.truths
    every = [np.flatnonzero(truths == label)[:ROWS] for label in range(int(truths.max()) + 1)]
    means = np.stack([_mean(model, data, rows, taught, at) for rows in every if len(rows)])
    position = {label: place for place, label in enumerate(label for label, rows in enumerate(every) if len(rows))}
    found = np.full((len(labels), means.shape[1]), -np.inf)
    for row, label in enumerate(labels):
        own = means[position[label]] if label in position else means.mean(axis=0)
        others = np.delete(means, position[label], axis=0) if label in position else means
        likely = np.argsort(-own, kind="stable")[:LIKELY]
        found[row, likely] = own[likely] - others.mean(axis=0)[likely]
    return found


@torch.no_grad()
def _mean(model: Any, data: Encoded, rows: np.ndarray, taught: Sequence[str], at: str) -> np.ndarray:
    """Mean log-probability of each token over rows, `[tokens]`."""
    place: list[torch.Tensor] = []

    def here(module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (args[0][torch.arange(len(place[0])), place[0]][:, None],)

    hook = OutputHead.map_of(model).register_forward_pre_hook(here)  # logits of all tokens would fill the memory
    training = model.training
    total: Any = 0.0
    try:
        model.eval()
        for start in range(0, len(rows), BATCH):
            batch = data.batch(rows[start : start + BATCH], model.device)
            place[:] = [batch[at]]
            taken = {name: tensor for name, tensor in batch.items() if name not in taught}
            logits = model(**taken).logits[:, 0].float()
            total = total + logits.log_softmax(-1).sum(0).cpu().numpy().astype(float)
    finally:
        hook.remove()
        model.train(training)
    return np.asarray(total / len(rows))
