"""What the trials of a study amount to, counted as they end: reading all of them for each new one takes ever longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.search.sampler import DRAWN
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
        counted: number of trials that count towards the wanted number.
        excess: the most bytes that a step took above the prediction, by method.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self._ended = set[int]()
        self.counted = 0
        self.excess: dict[str, int] = {}
        self._running, self._drawn = set[int](), 0
        for trial in study.get_trials(deepcopy=False):
            self.started(trial.number)
        for record in records(study):
            self.add(record)

    def started(self, number: int) -> None:
        """Count a trial among those that the sampler drew, once it has ended; a queued one was not drawn."""
        trial = self._study.get_trials(deepcopy=False)[number]
        if "fixed_params" not in trial.system_attrs or DRAWN in trial.user_attrs:
            self._running.add(number)

    @property
    def drawn(self) -> int:
        """The number of trials that the sampler drew and that have ended: those which TPE models."""
        trials = self._study.get_trials(deepcopy=False)
        ended = {number for number in self._running if trials[number].state.is_finished()}
        self._running -= ended
        self._drawn += len(ended)
        return self._drawn

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
