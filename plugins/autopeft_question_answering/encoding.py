"""Turns rows into windows of tokens, and finds the tokens of answers in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from autopeft import Encoded, Field, token_fields
from autopeft_question_answering.answer_cells import UNKNOWN
from autopeft_question_answering.squad_score import Truth

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from autopeft import RowTokenizer


def encoded(rows: pd.DataFrame, reader: RowTokenizer, stride: int) -> Encoded:
    """Windows of a question and a part of its context; each shares `stride` tokens with the next.

    `spans` are the characters of the context that each token stands for, -1 if it stands for none; `none_at` is the
    token that stands for no answer.
    """
    import numpy as np

    contexts = rows["context"].tolist()
    given = rows["answers"].tolist() if "answers" in rows else [()] * len(rows)
    tokens = reader.windows(rows["question"].tolist(), contexts, stride)
    assert tokens.spans is not None
    assert tokens.text_of is not None
    assert tokens.row_of is not None
    spans = np.where(tokens.text_of[:, None] == 1, tokens.spans, -1)
    none_at = _none_at(tokens.columns["input_ids"], tokens.offsets, reader.tokenizer.cls_token_id)
    answers = [_extent(*both) for both in zip(contexts, given, strict=True)]
    places = token_places(spans, tokens.offsets, tokens.row_of, answers, none_at)
    truths = np.empty(len(rows), object)
    for row, (context, found) in enumerate(zip(contexts, given, strict=True)):
        truths[row] = Truth(context, tuple(text for text, _ in found))
    fields = {
        **token_fields(tokens.columns, tokens.offsets, reader.tokenizer.pad_token_id),
        "spans": Field(spans, tokens.offsets, padding=-1),
        "none_at": Field(none_at),
        "start_positions": Field(places[:, 0]),
        "end_positions": Field(places[:, 1]),
    }
    return Encoded(fields, truths, axis="input_ids", row_of=tokens.row_of, whole=tokens.whole)


def token_places(
    spans: np.ndarray,
    offsets: np.ndarray,
    row_of: np.ndarray,
    answers: list[tuple[int, int] | None],
    none_at: np.ndarray,
) -> np.ndarray:
    """The first and last token of each window's answer, int64 `[windows, 2]`; `none_at` if it is not all in the window.

    Args:
        spans: characters of the context that each token stands for, `[tokens, 2]`; -1 if it stands for none.
        offsets: window i is `spans[offsets[i]:offsets[i + 1]]`.
        row_of: the row of each window, rising.
        answers: for each row, where its answer starts and ends, in characters; None if it has none.
        none_at: the token of each window that stands for no answer.
    """
    import numpy as np

    found = np.stack([none_at, none_at], axis=1)
    for window, row in enumerate(row_of):
        answer = answers[row]
        own = spans[offsets[window] : offsets[window + 1]]
        inside = np.flatnonzero(own[:, 0] >= 0)
        if answer is None or not len(inside):
            continue
        # What the tokenizer drops at the ends of a context, such as marks of no width, counts as inside a window.
        from_start = window == 0 or row_of[window - 1] != row
        to_end = window + 1 == len(row_of) or row_of[window + 1] != row
        whole = (from_start or own[inside, 0].min() <= answer[0]) and (to_end or own[inside, 1].max() >= answer[1])
        touched = inside[(own[inside, 0] < answer[1]) & (own[inside, 1] > answer[0])]
        if whole and len(touched):
            found[window] = touched[0], touched[-1]
    return found


def _none_at(tokens: np.ndarray, offsets: np.ndarray, cls_token: int | None) -> np.ndarray:
    """The token of each window that stands for no answer, int64: the tokenizer's CLS token, else the first token."""
    import numpy as np

    found = np.zeros(len(offsets) - 1, np.int64)
    for window in range(len(found)):
        places = np.flatnonzero(tokens[offsets[window] : offsets[window + 1]] == cls_token)
        found[window] = places[0] if len(places) else 0
    return found


def _extent(context: str, answers: Sequence[tuple[str, int]]) -> tuple[int, int] | None:
    """Where the answer to learn starts and ends, in characters: it is the first one given, without white space."""
    if not answers:
        return None
    text, start = answers[0]
    begin = (_first_place(context, text) if start == UNKNOWN else start) + len(text) - len(text.lstrip())
    return begin, begin + len(text.strip())


def _first_place(context: str, text: str) -> int:
    """The character where the text first occurs, as whole words if it does so anywhere."""
    whole = re.search(rf"(?<!\w){re.escape(text)}(?!\w)", context)
    return whole.start() if whole else context.find(text)
