"""The answers of the winner and the baselines to the held-out rows, kept row by row so that a report can compare."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

LIMIT = 2**30
"""Most bytes of such a file: tens of millions of rows."""

WINNER, DEFAULT = "winner", "default_"
"""The winner's column, and the prefix of the columns of methods' untuned defaults."""


def column_of(baseline: str) -> str:
    """The column of a baseline or reference model."""
    return baseline.replace(" ", "_")


@dataclass(frozen=True)
class HeldOut:
    """The true answers, and those of each column, all as the task writes them; `rows` are their row numbers."""

    rows: Sequence[str]
    labels: Sequence[str]
    predictions: Mapping[str, Sequence[str]]

    @classmethod
    def read(cls, path: Path) -> HeldOut:
        """Read what `write` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not such a file.
        """
        try:
            text = plain_file.read(path, LIMIT).decode("utf-8-sig")
            header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        except (csv.Error, UnicodeDecodeError, UserInputError) as error:
            raise ValueError(f"{path} must be a CSV file, but is not: {error}") from None
        except ValueError:
            raise ValueError(f"{path} must hold the columns row, label and {WINNER}, but is empty.") from None
        if header[:3] != ["row", "label", WINNER] or not lines or len(set(header)) < len(header):
            held = ", ".join(header)[:200]
            raise ValueError(f"{path} must hold the columns row, label and {WINNER}, each once, but holds {held}.")
        odd = next((number for number, line in enumerate(lines, 1) if len(line) != len(header)), None)
        if odd:
            raise ValueError(f"{path} must hold {len(header)} cells in every row, but row {odd} has another number.")
        rows, labels, *columns = zip(*lines, strict=True)
        return cls(rows, labels, dict(zip(header[2:], columns, strict=True)))

    def write(self, path: Path) -> None:
        """Write as CSV: row, label, and a column for each predictor, the winner first."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "label", *self.predictions])
            writer.writerows(zip(self.rows, self.labels, *self.predictions.values(), strict=True))
