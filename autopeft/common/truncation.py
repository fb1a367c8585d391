"""The effect of the length limit on rows: which part is kept, and how much is lost."""

from __future__ import annotations

from dataclasses import dataclass

HEAD, TAIL, BOTH = "head", "tail", "both"


KEPT = {HEAD: "the beginning", TAIL: "the end", BOTH: "both ends"}
"""What is kept of a row that is too long, in words."""


@dataclass(frozen=True)
class Truncation:
    """What `max_length` did to some rows.

    Attributes:
        rows: number of all rows.
        cut_rows: number of rows that were cut.
        tokens: number in all rows before cutting.
        lost_tokens: number of them that were cut off.
    """

    rows: int = 0
    cut_rows: int = 0
    tokens: int = 0
    lost_tokens: int = 0

    def __add__(self, other: Truncation) -> Truncation:
        """The effect on both sets of rows together."""
        return Truncation(
            self.rows + other.rows,
            self.cut_rows + other.cut_rows,
            self.tokens + other.tokens,
            self.lost_tokens + other.lost_tokens,
        )

    def sentence(self, max_length: int, truncation: str) -> str:
        """The effect in a sentence for a person; empty where no row was cut."""
        if not self.cut_rows:
            return ""
        share = self.lost_tokens / self.tokens
        lost = "less than 0.1%" if share < 0.001 else f"{share:.1%}"
        verb = "is" if self.cut_rows == 1 else "are"
        return (
            f"{self.cut_rows:,} of {self.rows:,} rows {verb} longer than `max_length` = {max_length} tokens and {verb} "
            f"cut down to {KEPT[truncation]}: {lost} of all tokens are lost."
        )
