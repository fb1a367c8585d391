"""What a study keeps of a choice by written texts: which trials wrote, and how good that was."""

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
        rows: validation rows for which each writes, of all folds together.
        digest: SHA-256 of the file of a score that is a function of the user's; "" of any other.
        scores: of what trials wrote, by number.
        failed: why others could not write, by number.
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
        """That of a study, from its user attributes; None where it makes none, or has not come to it."""
        kept = attrs.get(CHOICE)
        if not kept:
            return None
        numbered = {key: {int(number): value for number, value in kept[key].items()} for key in ("scores", "failed")}
        return cls(**{**kept, **numbered})

    def kept(self) -> dict[str, Any]:
        """As JSON has it."""
        numbered = {key: {str(n): value for n, value in getattr(self, key).items()} for key in ("scores", "failed")}
        return {**asdict(self), **numbered}

    def alike(self, other: Choice | None) -> bool:
        """Whether what the other has found out holds for this one."""
        return other is not None and (self.by, self.rows, self.digest) == (other.by, other.rows, other.digest)

    def best(self, best_first: Sequence[TrialRecord]) -> list[TrialRecord]:
        """The trials among which is chosen.

        Args:
            best_first: the complete trials by their scores.
        """
        return [record for record in best_first if record.number not in self.failed][: self.among]

    def awaited(self, best_first: Sequence[TrialRecord]) -> list[TrialRecord]:
        """Those of them that have not written."""
        return [record for record in self.best(best_first) if record.number not in self.scores]

    def put_in(self, best_first: Sequence[TrialRecord]) -> dict[int, TrialRecord]:
        """These trials with what their texts score, by number; nothing as long as one is awaited, or of one alone."""
        found = self.best(best_first)
        if self.awaited(best_first) or len(found) == 1:
            return {}
        return {record.number: replace(record, written=self.scores[record.number]) for record in found}
