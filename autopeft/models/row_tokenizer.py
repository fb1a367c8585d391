"""How rows become tokens: a tokenizer, the most tokens a row may have, and what is kept of a longer one."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from autopeft.common.exceptions import ModelError, SpecError
from autopeft.common.truncation import BOTH, HEAD, TAIL
from autopeft.models import token_limits
from autopeft.models.answer_rows import AnswerRows, answer_rows
from autopeft.models.reader import Reader
from autopeft.models.template_rows import Template, filled
from autopeft.models.token_rows import COLUMNS, SPANS, TEXT_OF, TokenRows, joined, spans_of, text_of
from autopeft.models.tokenizer import prepare, save

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch
    from torch import nn

    from autopeft.common.truncation import Truncation
    from autopeft.models.answer_rows import Spans
    from autopeft.study.card import Card
    from autopeft.study.sections import ModelSection


ROWS_AT_ONCE = 100
"""Rows tokenised at a time: whole rows are lists of Python numbers for a while, and a long text has many."""


class RowTokenizer(Reader):
    """A transformers tokenizer that reads rows of one or two texts and truncates them itself.

    A row that is too long loses tokens of its longer text until both have the same length, then of both; all special
    tokens of the tokenizer stay. For "head" and "tail" this is what the tokenizer does when it truncates the longest
    first.

    Args:
        tokenizer: prepared by `tokenizer.prepare`.
        max_length: most tokens of a row, including the tokenizer's special tokens.
        truncation: what is kept, "head", "tail" or "both"; None: the tokenizer's own setting.

    Attributes:
        of_targets: whether the texts are targets, for the decoder of an encoder–decoder model (`targets`).
    """

    unit: ClassVar[str] = "tokens"
    hint: ClassVar[str] = "`max_length` and `truncation` in [model] say how."
    advice: ClassVar[str] = "give a smaller `max_length` in [model] if the model has fewer positions"
    free: ClassVar[tuple[int, ...]] = (0, 1)
    of_targets = False

    def __init__(self, tokenizer: Any, max_length: int, truncation: str | None = None) -> None:
        self.processor, self.max_length = tokenizer, max_length
        self.truncation = truncation or own_truncation(tokenizer)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers."""
        return self.processor

    @classmethod
    def load(cls, location: Path | str, **origin: Any) -> Any:
        """The model's tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(location, **origin)

    @classmethod
    def prepare(cls, processor: Any, *models: nn.Module) -> None:
        """Give it a padding token and a separator between two texts; see `tokenizer.prepare`."""
        prepare(processor, *models)

    @classmethod
    def check(cls, processor: Any, model: Any, columns: int, where: str) -> None:
        """Make sure that the model has an embedding for every token; see `token_limits.check`."""
        token_limits.check(processor, model, columns, where)

    @classmethod
    def of_study(cls, processor: Any, model: Any, section: ModelSection, columns: int) -> Self:
        """Make a reader with `max_length` and `truncation` in [model]."""
        if section.image_size is not None:
            raise SpecError("`image_size` in [model] is for images, but this kind of task reads texts; remove it.")
        return cls(processor, token_limits.max_length(processor, model, section, columns), section.truncation)

    @classmethod
    def of_winner(cls, processor: Any, model: Any, card: Card, where: str) -> Self:
        """Make a reader with the card's settings."""
        return cls(processor, token_limits.of_card(processor, model, card, where), card.truncation)

    @property
    def settings(self) -> dict[str, Any]:
        """How long a row may be, and what is kept of a longer one."""
        return {"max_length": self.max_length, "truncation": self.truncation}

    def save(self, folder: Path) -> None:
        """Write a tokenizer that `AutoTokenizer` reads; see `tokenizer.save`."""
        save(self.processor, folder)

    def standalone(self) -> Self:
        """A reader whose tokenizer truncates and pads rows on the same sides as this reader.

        For "both", which no tokenizer can do, it keeps the beginning.
        """
        tokenizer = copy.deepcopy(self.processor)
        tokenizer.padding_side = "right"
        tokenizer.model_max_length = self.max_length
        side = "left" if self.truncation == TAIL else "right"
        tokenizer.init_kwargs["truncation_side"] = tokenizer.truncation_side = side
        return type(self)(tokenizer, self.max_length, self.truncation)

    def cells(self) -> list[Any]:
        """Two texts."""
        return ["a text", "another one, and longer"]

    def example(self, columns: int) -> dict[str, torch.Tensor]:
        """Two rows of different length."""
        tokens = self.processor(*[self.cells()] * columns, padding=True, return_tensors="pt")
        names = ("input_ids", "attention_mask", "token_type_ids")
        return {name: tokens[name] for name in names if name in tokens}

    def told(self, truncated: Truncation) -> list[str]:
        """How many rows were cut."""
        told = truncated.sentence(self.max_length, self.truncation)
        return [told] if told else []

    def __call__(self, *texts: Sequence[str]) -> TokenRows:
        """Tokens of the rows; each argument is a column."""
        columns: dict[str, list[np.ndarray]] = {}
        lengths: list[int] = []
        whole: list[int] = []
        rows = zip(*texts, strict=True)
        while some := list(islice(rows, ROWS_AT_ONCE)):
            found = self._tokens(some)
            whole += [len(row) for row in found["input_ids"]]
            self._cut(found, len(texts))
            lengths += [len(row) for row in found["input_ids"]]
            for name in found.keys() & {*COLUMNS}:
                columns.setdefault(name, []).append(np.fromiter(chain.from_iterable(found[name]), np.int32))
        return TokenRows(
            {name: np.concatenate(columns[name]) for name in COLUMNS if name in columns},
            np.cumsum([0, *lengths]),
            np.asarray(whole, np.int64),
        )

    def located(self, *texts: Sequence[str]) -> TokenRows:
        """The same tokens, and which characters each stands for (`spans`, `text_of`).

        Raises:
            ModelError: the tokenizer does not know the characters.
        """
        self._require_places()
        rows, parts, whole = zip(*texts, strict=True), [], []
        while some := list(islice(rows, ROWS_AT_ONCE)):
            found = self._located_tokens(some)
            whole += [len(row) for row in found["input_ids"]]
            self._cut(found, len(texts))
            parts.append(found)
        return joined(parts, np.asarray(whole, np.int64))

    def windows(self, first: Sequence[str], second: Sequence[str], stride: int) -> TokenRows:
        """Rows of two texts where the second may be long: as many windows on it as needed, each with the first text.

        If a first text would take more than half of a window, its beginning is kept; `whole` counts what is lost.

        Args:
            first: such as questions.
            second: such as the texts that answer them.
            stride: tokens of the second text that a window shares with the next; at most half of those in the window.

        Raises:
            ModelError: the tokenizer cannot tell where tokens are in a text.
        """
        self._require_places()
        parts, whole, row_of = [], list[int](), list[int]()
        for start in range(0, len(first), ROWS_AT_ONCE):
            some = list(zip(first[start : start + ROWS_AT_ONCE], second[start : start + ROWS_AT_ONCE], strict=True))
            found = self._located_tokens(some)
            names = found.keys() & {*COLUMNS, SPANS, TEXT_OF}
            part: dict[str, list[Any]] = {name: [] for name in names}
            for place, texts in enumerate(found[TEXT_OF]):
                kept, lost = _windows(texts, self.max_length, stride)
                row_of += [start + place] * len(kept)
                for name in names:
                    row = found[name][place]
                    part[name] += [list(chain.from_iterable(row[a:b] for a, b in pieces)) for pieces in kept]
                whole += [sum(b - a for a, b in pieces) + lost for pieces in kept]
            parts.append(part)
        return replace(joined(parts, np.asarray(whole, np.int64)), row_of=np.asarray(row_of, np.int64))

    def filled(self, before: Template, behind: Template, middle: Sequence[int], *, closed: bool = True) -> TokenRows:
        """Rows of texts in a template; see `template_rows.filled`.

        Raises:
            SpecError: `max_length` leaves no room for texts in the template.
            ModelError: the tokenizer cannot tell where tokens are in a text.
        """
        self._require_places()
        return filled(self.tokenizer, before, behind, middle, self._keeping, closed=closed)

    def answered(
        self, texts: Sequence[str], answers: Sequence[Spans], plain: Sequence[bool], typed: Sequence[Spans] = ()
    ) -> AnswerRows:
        """Rows of prompts and their answers; see `answer_rows.answer_rows`.

        Raises:
            ModelError: the tokenizer cannot tell where tokens are in a text.
        """
        self._require_places()
        return answer_rows(self.tokenizer, texts, answers, self.max_length, self.truncation, plain, typed)

    def targets(self, texts: Sequence[str], most: int) -> TokenRows:
        """Tokens of target texts; their pieces and special tokens may differ from those of texts to read.

        Args:
            texts: one per row.
            most: tokens of a text, including special tokens; of a longer one the beginning is kept.
        """
        reader = type(self)(self.processor, most, HEAD)
        reader.of_targets = True
        return reader(texts)

    def target_marks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens before, and after, every target text, such as its language code."""
        none, some = self.tokenizer(text_target=["", "a"])["input_ids"]
        before, behind = _alike(none, some), _alike(none[::-1], some[::-1])
        return tuple(none[:before]), tuple(none[len(none) - behind :])

    def _keeping(self, texts: list[tuple[int, int]], whole: int) -> list[tuple[int, int]]:
        """The spans of a row of `whole` tokens that are kept, given the spans of its texts; all else stays."""
        alone = whole - sum(end - start for start, end in texts)
        if alone + len(texts) > self.max_length:
            raise SpecError(
                f"`max_length` in [model] must leave room for a text in its template, which takes {alone} tokens with "
                f"those of the tokenizer, but got {self.max_length}; raise it, or shorten `template` in [task]."
            )
        return list(_kept(texts, whole, self.max_length, self.truncation)) if whole > self.max_length else [(0, whole)]

    def _require_places(self) -> None:
        if not self.tokenizer.is_fast:
            raise ModelError(
                "this kind of task needs a tokenizer that knows which characters a token covers, but "
                f"{type(self.tokenizer).__name__} is written in Python and does not; give a model with a "
                "tokenizer.json."
            )

    def _located_tokens(self, rows: Sequence[tuple[str, ...]]) -> Any:
        """Whole rows, with the characters and the text that each token stands for."""
        found = self._tokens(rows)
        found[SPANS] = [spans_of(encoding, row) for encoding, row in zip(found.encodings, rows, strict=True)]
        found[TEXT_OF] = [text_of(encoding) for encoding in found.encodings]
        return found

    def _tokens(self, rows: Sequence[tuple[str, ...]]) -> Any:
        """Whole rows, as the tokenizer returns them."""
        texts = [*map(list, zip(*rows, strict=True))]
        return self.tokenizer(
            *(() if self.of_targets else texts),
            **({"text_target": texts[0]} if self.of_targets else {}),
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_special_tokens_mask=not self.tokenizer.is_fast,
            verbose=False,
        )

    def _cut(self, found: Any, columns: int) -> None:
        """Shorten the rows that are too long, in place."""
        around: tuple[int, int] | None = None  # special tokens around a text, the same in all rows of one text
        for place, row in enumerate(found["input_ids"]):
            if len(row) > self.max_length:
                if columns > 1 or around is None:
                    fast = self.tokenizer.is_fast
                    mask = found.encodings[place].special_tokens_mask if fast else found["special_tokens_mask"][place]
                    texts = list(_texts(mask[: len(row)]))
                    around = texts[0][0], len(row) - texts[-1][1]
                else:
                    texts = [(around[0], len(row) - around[1])]
                kept = list(_kept(texts, len(row), self.max_length, self.truncation))
                for name in found.keys() & {*COLUMNS, SPANS, TEXT_OF}:
                    whole = found[name][place]
                    found[name][place] = list(chain.from_iterable(whole[a:b] for a, b in kept))


def _alike(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the common beginning of two rows."""
    return next((place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))


def own_truncation(tokenizer: Any) -> str:
    """Which part of a row that is too long a tokenizer itself keeps."""
    return TAIL if getattr(tokenizer, "truncation_side", "right") == "left" else HEAD


def _kept(texts: list[tuple[int, int]], whole: int, most: int, truncation: str) -> Iterator[tuple[int, int]]:
    """The spans of a row of `whole` tokens that are kept, given the spans of its texts."""
    room = max(0, most - whole + sum(b - a for a, b in texts))
    place = 0
    for (start, end), length in zip(texts, _shares([b - a for a, b in texts], room), strict=True):
        yield place, start
        tail = {HEAD: 0, TAIL: length, BOTH: length // 2}[truncation]
        yield start, start + length - tail
        yield end - tail, end
        place = end
    yield place, whole


def _windows(texts: list[int], most: int, stride: int) -> tuple[list[list[tuple[int, int]]], int]:
    """The spans of a row of two texts in each window, and how many tokens of the first text no window keeps.

    Args:
        texts: which text each token belongs to; -1 for special tokens.
        most: tokens of a window, at most.
        stride: tokens of the second text that a window shares with the next; at most half of those that it has.
    """
    (start, end), (begin, stop) = (_extent(texts, place) for place in (0, 1))
    room = max(2, most - texts.count(-1))
    kept = min(end - start, max(1, room // 2))
    own = room - kept
    step = own - min(stride, own // 2)
    firsts = [begin, *range(begin + step, stop - own + step, step)]
    return [
        [(0, start + kept), (end, begin), (place, min(place + own, stop)), (stop, len(texts))] for place in firsts
    ], end - start - kept


def _extent(texts: list[int], which: int) -> tuple[int, int]:
    """The span of a text's tokens; if it has none, the place after the texts before it."""
    if which in texts:
        return texts.index(which), len(texts) - texts[::-1].index(which)
    behind = next((place for place, text in enumerate(texts) if text > which), len(texts))
    return behind, behind


def _texts(mask: list[int]) -> Iterator[tuple[int, int]]:
    """The span of each text; `mask` is 1 at the tokenizer's special tokens."""
    end = 0
    while 0 in mask[end:]:
        start = mask.index(0, end)
        end = mask.index(1, start) if 1 in mask[start:] else len(mask)
        yield start, end


def _shares(lengths: list[int], room: int) -> list[int]:
    """How much of each text fits; the longer one is shortened first, and gets one more token of an odd room."""
    if sum(lengths) <= room or len(lengths) < 2:
        return [min(length, room) for length in lengths]
    short, long = sorted(lengths)
    if short > room // 2:
        short, long = room // 2, room - room // 2
    else:
        long = room - short
    return [short, long] if lengths[0] <= lengths[1] else [long, short]
