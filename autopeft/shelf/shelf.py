"""Winners on one base model, loaded beside each other: each answers its own rows, many in one pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import pandas as pd

from autopeft.common.exceptions import AutopeftError, UserInputError, nearest, quoted
from autopeft.models.device import Device
from autopeft.shelf.joint import Asked
from autopeft.shelf.names import EMPTY, find
from autopeft.shelf.settle import Settled
from autopeft.shelf.shared_weights import SharedWeights
from autopeft.winner import winner as artifact

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from autopeft.data.encoded import Encoded
    from autopeft.winner.winner import Winner


@dataclass
class Question:
    """Rows for a winner, and what became of them.

    Attributes:
        winner: its name.
        cells: the rows, checked.
        answers: `[rows, …]`, in the form that `Task.as_json` gets; None until it is answered.
        error: why it cannot be answered.
        notes: what was done to the rows, such as cutting them, a sentence each.
    """

    winner: str
    cells: pd.DataFrame
    answers: np.ndarray | None = None
    error: AutopeftError | None = None
    notes: list[str] = field(default_factory=list)


class Shelf:
    """Winners on one base model, whose weights are in memory once.

    Rows of several winners go through the base model in one pass wherever their methods allow it; `turns` says where
    not. Answers are those of `Winner.predict`, up to rounding.

    Args:
        winners: by name, or pairs of names and winners; they must have the same base model, as `load` makes sure. Of
            pairs that are made one by one, no more than one winner has weights of its own at a time.

    Attributes:
        winners: by name.
        turns: why a winner's rows run alone, by its name.

    Raises:
        UserInputError: there is no winner.
    """

    def __init__(self, winners: Mapping[str, Winner] | Iterable[tuple[str, Winner]]) -> None:
        self.winners: dict[str, Winner] = {}
        shared = SharedWeights()
        for name, winner in winners.items() if isinstance(winners, Mapping) else winners:
            self.winners[name] = winner
            for model in winner.modules:
                shared.add(model)
        first = next(iter(self.winners.values()), None)
        if first is None:
            raise UserInputError(EMPTY)
        self._device = Device(next(first.module.parameters()).device.type, None)
        self._settled = Settled(self.winners, self._device)
        self.turns = self._settled.turns

    @classmethod
    def load(
        cls,
        folders: str | Path | Sequence[str | Path] | Mapping[str, str | Path],
        device: str = "cpu",
        *,
        trust_remote_code: bool = False,
    ) -> Self:
        """Load winners that studies saved.

        Args:
            folders: of winners, or the output folders or files of their studies, or a single one; a winner is known by
                the name of its study, or by the key here. A text may be ``NAME=FOLDER``.
            device: where they answer, as for `autopeft.load`.
            trust_remote_code: as for `autopeft.load`.

        Raises:
            UserInputError: a folder holds no winner, two have the same name, or an error of `autopeft.load`.
            ModelError: they have different base models, or one model in different precisions.
        """
        found = find(folders)
        return cls(
            (name, artifact.load(folder, device, trust_remote_code=trust_remote_code)) for name, folder in found.items()
        )

    def __iter__(self) -> Iterator[str]:
        """The winners' names."""
        return iter(self.winners)

    def __len__(self) -> int:
        """How many winners there are."""
        return len(self.winners)

    def __getitem__(self, name: str) -> Winner:
        """The winner of that name.

        Raises:
            UserInputError: there is none.
        """
        if name not in self.winners:
            raise UserInputError(f"no winner has the name {quoted(name)}; {nearest(name, self.winners)}")
        return self.winners[name]

    def shares(self, name: str) -> bool:
        """Whether a winner's rows go through the base model together with those of others."""
        return self._settled.joint is not None and name in self._settled.parts

    def predict(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The answer of each winner to its rows, as `Winner.predict` gives them.

        Args:
            rows: by the winner's name; each as for `Winner.answers`.

        Raises:
            UserInputError: there is no such winner.
            DataError: an error of `Winner.answers`.
        """
        found = self._all(rows)
        return {name: self._task(name).values(answers, self[name].card.labels) for name, answers in found.items()}

    def table(self, rows: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
        """The same as tables; see `Winner.table`."""
        found = self._all(rows)
        return {name: self._task(name).table(answers, self[name].card.labels) for name, answers in found.items()}

    def as_json(self, rows: Mapping[str, Any]) -> dict[str, list[Any]]:
        """The same with all that is known of each answer; see `Winner.as_json`."""
        return {name: self.told(name, answers) for name, answers in self._all(rows).items()}

    def told(self, name: str, answers: np.ndarray) -> list[Any]:
        """The answers of a question to that winner, for JSON."""
        return [self._task(name).as_json(answer, self[name].card.labels) for answer in answers]

    def question(self, name: str, rows: Any) -> Question:
        """Check rows for a winner; see `predict`."""
        return Question(name, self[name].answering.cells(rows))

    def answer(self, questions: Sequence[Question]) -> None:
        """Answer several questions, some of which may be for the same winner; an error of one stays with it."""
        together: dict[str, tuple[Sequence[Question], pd.DataFrame, Asked]] = {}
        for name in dict.fromkeys(question.winner for question in questions):
            own = [question for question in questions if question.winner == name]
            if not self.shares(name):
                self._in_turn(own)
            elif readable := self._readable(name, own):
                some, cells, rows = readable
                together[name] = some, cells, Asked(rows, self._settled.parts[name])
        if self._settled.joint is None or not together:
            return
        each = self._settled.joint.answers([asked for *_, asked in together.values()])
        for (name, (some, cells, _)), answers in zip(together.items(), each, strict=True):
            self._hand_out(name, some, cells, answers)

    def _all(self, rows: Mapping[str, Any]) -> dict[str, np.ndarray]:
        questions = [self.question(name, few) for name, few in rows.items()]
        self.answer(questions)
        found = {}
        for question in questions:
            if question.error or question.answers is None:
                raise question.error or UserInputError("a question was not answered.")
            found[question.winner] = question.answers
        return found

    def _task(self, name: str) -> Any:
        return self[name].answering.task

    def _in_turn(self, questions: Sequence[Question]) -> None:
        for question in questions:
            try:
                question.answers = self[question.winner].worded(question.cells, question.notes.append)
            except AutopeftError as error:
                question.error = error

    def _readable(
        self, name: str, questions: Sequence[Question]
    ) -> tuple[Sequence[Question], pd.DataFrame, Encoded] | None:
        """The questions whose rows can be read, and all of these rows; None where there are none."""
        answering = self[name].answering
        cells = pd.concat([one.cells for one in questions], ignore_index=True) if len(questions) > 1 else None
        try:
            rows = answering.encoded(questions[0].cells if cells is None else cells)
        except AutopeftError as error:
            if cells is None:
                questions[0].error = error
                return None
            good = [one for one in questions if self._readable(name, [one])]
            return self._readable(name, good) if 0 < len(good) < len(questions) else None
        if rows.truncated.cut_rows:
            for one in questions:
                one.notes = self[name].reader.told(answering.encoded(one.cells).truncated)
        return questions, questions[0].cells if cells is None else cells, rows

    def _hand_out(
        self, name: str, questions: Sequence[Question], cells: pd.DataFrame, answers: Sequence[np.ndarray]
    ) -> None:
        """Give each question its part of a winner's answers; an error of one stays with it."""
        answering, start = self[name].answering, 0
        whole: np.ndarray | None = None
        try:
            whole = answering.task.worded(answering.together(answers, cells), cells)
        except AutopeftError as error:
            if len(questions) == 1:
                questions[0].error = error
                return
        for question in questions:
            part = slice(start, start + len(question.cells))
            start = part.stop
            if whole is None:
                self._hand_out(name, [question], question.cells, [one[part] for one in answers])
            else:
                question.answers = whole[part]
