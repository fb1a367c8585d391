"""What the trials of a study amount to, counted as they end: reading all of them for each new one takes ever longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.study.record import records
from autopeft.study.states import COUNTED

if TYPE_CHECKING:
    import optuna

    from autopeft.study.record import TrialRecord


class Tally:
    """Counts of a study's trials.

    Args:
        study: whose trials are counted. Trials that end later must be added.

    Attributes:
        drawn: number of trials that the sampler drew; queued ones do not count.
        counted: number of trials that count towards the wanted number.
        excess: the most bytes that a step took above the prediction, by method.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._ended = set[int]()
        self.counted = 0
        self.excess: dict[str, int] = {}
        self.drawn = sum("fixed_params" not in t.system_attrs for t in study.get_trials(deepcopy=False))
        for record in records(study):
            self.add(record)

    @property
    def ended(self) -> int:
        """The number of trials that ended, except those that run again."""
        return len(self._ended)

    def add(self, record: TrialRecord) -> None:
        """Count a trial that ended; one that is counted already changes nothing."""
        if record.number not in self._ended:
            self._ended.add(record.number)
            self.counted += record.state in COUNTED
            self.excess[record.method] = max(record.unseen_memory, self.excess.get(record.method, 0))
