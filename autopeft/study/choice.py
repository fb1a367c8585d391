"""What a study keeps about a choice by written texts: which trials wrote, and their scores."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from autopeft.study.record import TrialRecord

CHOICE = "choice"
"""The user attribute of an Optuna study that holds it."""


@dataclass(frozen=True)
class Choice:
    """Among the trials that score best, the one whose folds write best wins.

    Attributes:
        by: name of the score of texts.
        among: how many trials write.
        rows: number of validation rows that each trial writes for, over all folds.
        digest: SHA-256 of the file if the score is a user's function; "" for any other score.
        scores: of the written texts, by trial number.
        failed: why other trials could not write, by number.
        seconds: wall time of the writing.
    """

    by: str
    among: int
    rows: int
    digest: str = ""
    scores: Mapping[int, float] = field(default_factory=dict)
    failed: Mapping[int, str] = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def read(cls, attrs: Mapping[str, Any]) -> Choice | None:
        """A study's choice, from its user attributes; None where it makes none, or has not begun to choose."""
        kept = attrs.get(CHOICE)
        if not kept:
            return None
        numbered = {key: {int(number): value for number, value in kept[key].items()} for key in ("scores", "failed")}
        return cls(**{**kept, **numbered})

    def kept(self) -> dict[str, Any]:
        """The choice for JSON."""
        numbered = {key: {str(n): value for n, value in getattr(self, key).items()} for key in ("scores", "failed")}
        return {**asdict(self), **numbered}

    def alike(self, other: Choice | None) -> bool:
        """Whether the other's scores are valid for this one."""
        return other is not None and (self.by, self.rows, self.digest) == (other.by, other.rows, other.digest)

    def best(self, best_first: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials to choose from.

        Args:
            best_first: the complete trials, the best scores first.
        """
        return [record for record in best_first if record.number not in self.failed][: self.among]

    def awaited(self, best_first: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials to choose from that have not written yet."""
        return [record for record in self.best(best_first) if record.number not in self.scores]

    def put_in(self, best_first: Sequence[TrialRecord]) -> dict[int, TrialRecord]:
        """These trials with the scores of their texts, by number; empty while one is awaited, or for only one trial."""
        found = self.best(best_first)
        if self.awaited(best_first) or len(found) == 1:
            return {}
        return {record.number: replace(record, written=self.scores[record.number]) for record in found}
