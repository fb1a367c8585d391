"""Finds answers from a model's outputs: the best span of each window, and of these the best of each row.

An answer is `WIDTH` numbers: the character of the context where it starts and the one behind its end, the sum of the
two logits, the same sum for no answer, and the probabilities of the answer and of no answer in their windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

START, END, SCORE, NONE_SCORE, PROBABILITY, NONE_PROBABILITY = range(6)
WIDTH = 6


def best_spans(
    starts: torch.Tensor, ends: torch.Tensor, spans: torch.Tensor, none_at: torch.Tensor, mask: torch.Tensor, most: int
) -> torch.Tensor:
    """The best span of each window inside its context, with at most `most` tokens: float32 `[windows, WIDTH]`.

    Args:
        starts: logits `[windows, length]` that an answer starts at a token.
        ends: logits that it ends there.
        spans: characters of the context that each token stands for, `[windows, length, 2]`; -1 if it has none.
        none_at: the token that stands for no answer, `[windows]`.
        mask: 0 where a window is padded, `[windows, length]`.
        most: most tokens of an answer.
    """
    import torch
    from torch.nn.functional import pad

    starts, ends = (logits.float() for logits in (starts, ends))
    least = torch.finfo(torch.float32).min / 4  # the sum of two is still finite
    inside = spans[..., 0] >= 0
    width = min(most, starts.shape[1])
    last = pad(ends.masked_fill(~inside, least), (0, width - 1), value=least).unfold(1, width, 1)
    scores = starts.masked_fill(~inside, least).unsqueeze(-1) + last  # [windows, length, width]
    best, place = scores.flatten(1).max(dim=1)
    first, behind = place // width, place // width + place % width
    begin = spans[..., 0].gather(1, first[:, None])[:, 0].clamp(min=0)
    end = spans[..., 1].gather(1, behind.clamp(max=starts.shape[1] - 1)[:, None])[:, 0].clamp(min=0)
    none = (starts + ends).gather(1, none_at[:, None])[:, 0]
    first_of, last_of = (logits.masked_fill(mask == 0, least).logsumexp(dim=1) for logits in (starts, ends))
    all_of = first_of + last_of
    return torch.stack([begin, end, best, none, (best - all_of).exp(), (none - all_of).exp()], dim=1).float()


def best_windows(answers: np.ndarray, row_of: np.ndarray) -> np.ndarray:
    """The best window's answer to each row, with the lowest score of no answer among the row's windows.

    The official script for SQuAD 2 does the same (Rajpurkar et al. 2018, arXiv:1806.03822): a row has no answer if no
    window has one.

    Args:
        answers: of windows, `[windows, WIDTH]`.
        row_of: the row of each window; the answers come in the order of each row's first window.
    """
    import numpy as np

    rows, first, place = np.unique(row_of, return_index=True, return_inverse=True)
    starts = np.searchsorted(np.sort(place), np.arange(len(rows)))
    best = np.lexsort((-answers[:, SCORE], place))[starts]
    least = np.lexsort((answers[:, NONE_SCORE], place))[starts]
    found = answers[best]
    found[:, [NONE_SCORE, NONE_PROBABILITY]] = answers[least][:, [NONE_SCORE, NONE_PROBABILITY]]
    return np.asarray(found[np.argsort(first)])
