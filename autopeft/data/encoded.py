"""Rows as arrays, from which batches of tensors are made."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from autopeft.common.truncation import Truncation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch


@dataclass(frozen=True)
class Field:
    """One tensor of a batch, for all rows.

    Whole numbers become int64 tensors and other numbers float32, whatever type they are kept in.

    Attributes:
        values: ragged: all rows' values concatenated, `[places, …]`, cut at `offsets`; dense: `[rows, …]`.
        offsets: int64 `[rows + 1]`; row i is `offsets[i]:offsets[i + 1]`. None: dense.
        padding: fills a ragged row up to the longest of its batch.
        mask: name of an extra tensor that is 1 where a row has values and 0 where it is padded.
        scale, shift: the tensor of a dense field is `values * scale + shift` in float32: as whole numbers, pixels take
            a quarter of the memory.
    """

    values: np.ndarray
    offsets: np.ndarray | None = None
    padding: float = 0
    mask: str = ""
    scale: np.ndarray | None = None
    shift: np.ndarray | float = 0.0

    @functools.cached_property  # every batch needs it several times
    def lengths(self) -> np.ndarray:
        """Number of places of each row, int64 `[rows]`; 1 for a dense field."""
        return np.ones(len(self.values), np.int64) if self.offsets is None else np.diff(self.offsets)

    @property
    def dtype(self) -> type[np.int64 | np.float32]:
        """The type of the tensor."""
        return np.int64 if self.values.dtype.kind != "f" and self.scale is None else np.float32

    def of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The values of the given rows: `[rows, …]`, or `[rows, longest, …]` padded on the right."""
        if self.offsets is None:
            found = self.values[rows].astype(self.dtype)
            return found if self.scale is None else found * self.scale + self.shift
        lengths = self.lengths[rows]
        shape = (len(rows), int(lengths.max()), *self.values.shape[1:])
        found = np.full(shape, self.padding, self.dtype)
        for place, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            start = self.offsets[row]
            found[place, :length] = self.values[start : start + length]
        return found

    def mask_of(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where the given rows have values: int64 `[rows, longest]`."""
        lengths = self.lengths[rows]
        return (np.arange(int(lengths.max()))[None] < lengths[:, None]).astype(np.int64)

    def largest(self, rows: int) -> tuple[int, ...]:
        """The shape of the largest batch of this many rows."""
        inner = self.values.shape[1:]
        return (rows, *inner) if self.offsets is None else (rows, int(self.lengths.max()), *inner)


@dataclass(frozen=True)
class Encoded:
    """Rows as the fields of a batch, with their targets.

    A row may be longer than the model reads at once, such as a long document. Then it is several samples, which are
    trained one by one, and the task combines their answers (`Task.combine`).

    Attributes:
        fields: by the name of the tensor, for every sample.
        truths: the true answers, one entry per row: labels, numbers, lists.
        axis: the field whose length sorts rows into batches; empty if all rows have the same length, as images do.
        beside: another field whose places also cost time in a pass, such as the text being written in seq2seq.
        places: number of places of each row if there is no axis, such as the patches of an image; the cost of a pass
            grows with it.
        units: number of things that the loss of each sample is a mean over, int64 `[samples]`; None: one each.
        row_of: the row of each sample, int64 `[samples]`, rising; None where each row is one sample.
        sequences: number of sequences that the model reads side by side for a sample, such as a question's choices:
            they are then the second dimension of `axis`.
        states: states that a model starts from (`autopeft.training.trunk_cache`), for each place of `axis`, or for each
            row if there is no axis; a batch then holds `trunk_states`.
        whole: number of places of each sample before truncation, int64 `[samples]`; None where nothing was cut.
    """

    fields: Mapping[str, Field]
    truths: np.ndarray
    axis: str = ""
    beside: str = ""
    places: int = 1
    units: np.ndarray | None = None
    row_of: np.ndarray | None = None
    sequences: int = 1
    states: Field | None = None
    whole: np.ndarray | None = None

    def __len__(self) -> int:
        """Samples."""
        return len(self.truths) if self.row_of is None else len(self.row_of)

    @property
    def everything(self) -> np.ndarray:
        """Positions of all samples."""
        return np.arange(len(self))

    def samples_of(self, rows: np.ndarray) -> np.ndarray:
        """Positions of the samples of those rows, rising if the rows are."""
        if self.row_of is None:
            return rows
        starts, ends = (np.searchsorted(self.row_of, rows, side) for side in ("left", "right"))
        parts = [np.arange(start, end) for start, end in zip(starts, ends, strict=True)]
        return np.concatenate(parts) if parts else np.arange(0)

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """The rows of those samples, each once, in the order of their first samples."""
        if self.row_of is None:
            return samples
        rows: np.ndarray = self.row_of[samples]
        found: np.ndarray = rows[np.sort(np.unique(rows, return_index=True)[1])]
        return found

    @property
    def lengths(self) -> np.ndarray:
        """Number of places of each sample, on the axis if there is one, int64 `[samples]`."""
        return self.fields[self.axis].lengths if self.axis else np.full(len(self), self.places, np.int64)

    @property
    def extents(self) -> np.ndarray:
        """Total number of places of each sample, which sorts rows into batches, int64 `[samples]`."""
        return self.lengths + self.fields[self.beside].lengths if self.beside else self.lengths

    @property
    def longest_first(self) -> np.ndarray:
        """Positions of all samples, the longest first."""
        return self.extents.argsort()[::-1]

    def places_of(self, samples: Sequence[int] | np.ndarray) -> int:
        """Number of places in a pass of those samples, with padding."""
        longest = int(self.lengths[samples].max()) * self.sequences
        return len(samples) * (longest + (int(self.fields[self.beside].lengths[samples].max()) if self.beside else 0))

    @property
    def truncated(self) -> Truncation:
        """What truncation cut off."""
        lengths = self.lengths
        lost = (lengths if self.whole is None else self.whole) - lengths
        if self.row_of is not None:  # each sample has its row's loss
            lost = lost[np.unique(self.row_of, return_index=True)[1]]
        return Truncation(len(lost), int((lost > 0).sum()), int(lost.sum() + lengths.sum()), int(lost.sum()))

    def weight(self, rows: Sequence[int] | np.ndarray) -> int:
        """The number of things that the loss of the given rows is a mean over."""
        return len(rows) if self.units is None else int(self.units[rows].sum())

    def batch(self, rows: Sequence[int] | np.ndarray, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Tensors of the given rows, right-padded to the longest, with their masks."""
        import torch

        fields = {**self.fields, **({} if self.states is None else {"trunk_states": self.states})}
        arrays: dict[str, np.ndarray] = {}
        for name, field in fields.items():
            arrays[name] = field.of(rows)
            if field.mask:
                arrays[field.mask] = field.mask_of(rows)
        return {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}

    def largest(self, rows: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of each tensor of the largest possible batch of this many rows."""
        import torch

        found: dict[str, tuple[tuple[int, ...], torch.dtype]] = {}
        for name, field in self.fields.items():
            found[name] = field.largest(rows), torch.float32 if field.dtype is np.float32 else torch.int64
            if field.mask:
                found[field.mask] = (rows, int(field.lengths.max())), torch.int64
        return found


def token_fields(columns: Mapping[str, np.ndarray], offsets: np.ndarray, pad_token_id: int) -> dict[str, Field]:
    """The fields for the output of a `RowTokenizer`, with `attention_mask` made for `input_ids`.

    Args:
        columns: `input_ids`, and the tokenizer's other outputs, each for all rows concatenated.
        offsets: int64 `[rows + 1]`.
        pad_token_id: pads `input_ids`.
    """
    return {
        name: Field(values, offsets, pad_token_id, "attention_mask") if name == "input_ids" else Field(values, offsets)
        for name, values in columns.items()
    }
