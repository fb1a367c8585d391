"""The JSON that requests hold, checked, and the rows that it gives to winners."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autopeft.common.exceptions import UserInputError, nearest, quoted, shorten
from autopeft.models.sampling import Sampling
from autopeft.shelf.refusal import RefusedError, first_mistake
from autopeft.shelf.texts import Prompts
from autopeft.tasks.writing import Writing

if TYPE_CHECKING:
    from typing import Self

    from autopeft.shelf.shelf import Question, Shelf
    from autopeft.winner.winner import Winner

MOST_ROWS = 1000
"""Most rows of a request."""

MOST_TEXTS = 64
"""Most texts that a request may ask for."""

MOST_TOKENS = 2**16
"""Most tokens of a text that a request may ask for, as many as a study may set: some models have no limit of their
own, and other requests wait meanwhile."""


class Asked(BaseModel):
    """What a request holds; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @classmethod
    def read(cls, body: bytes) -> Self:
        """What a request's body says.

        Raises:
            RefusedError: it is no JSON, or something in it is wrong.
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise first_mistake(error) from None


class Rows(Asked):
    """Rows for a winner: objects with its input columns, or, where it has one, plain cells."""

    winner: str
    rows: list[Any] = Field(min_length=1, max_length=MOST_ROWS)

    def question(self, shelf: Shelf) -> Question:
        """The rows, checked.

        Raises:
            UserInputError: they are not rows for that winner.
        """
        winner = known(shelf, self.winner)
        return shelf.question(self.winner, without_paths(winner, self._frame(winner)))

    def _frame(self, winner: Winner) -> pd.DataFrame:
        index = range(1, len(self.rows) + 1)
        objects = [isinstance(row, dict) for row in self.rows]
        if all(objects):
            # Only columns that are read: a frame with a column for each key of any row would be rows times as large.
            own = {*winner.inputs, *winner.input_names.values()}
            read = [{name: row[name] for name in own & row.keys()} for row in self.rows]
            return pd.DataFrame(read, index=index, dtype=object)
        if any(objects):
            raise RefusedError(422, "the rows of a request must all be objects, or all be cells, but these are mixed.")
        if len(winner.inputs) > 1:
            needed = ", ".join(winner.input_names.values())
            raise RefusedError(422, f"this winner needs the columns {needed}; give each row as an object with them.")
        (name,) = winner.input_names.values()
        return pd.DataFrame({name: pd.Series(self.rows, index=index, dtype=object)})


class TextsAsked(Asked):
    """What requests for texts have in common, by OpenAI's names; settings that are not followed may only be neutral."""

    model: str
    max_tokens: int | None = Field(None, ge=1)
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    n: Literal[1] = 1
    stream: Literal[False] = False
    user: str = ""
    stop: None = None
    logprobs: Literal[False] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None

    def prompts(self, shelf: Shelf) -> Prompts:
        """The rows to write for, checked.

        Raises:
            UserInputError: this winner cannot write for them.
        """
        winner = known(shelf, self.model)
        task = winner.writer.task
        if len(winner.inputs) > 1:
            needed = ", ".join(winner.input_names.values())
            raise RefusedError(422, f"this winner needs the columns {needed}; ask it by POST /predict.")
        if self.new and self.new > MOST_TOKENS:
            raise RefusedError(
                400,
                f"a request may ask for at most {MOST_TOKENS:,} tokens of a text, but this one asks for "
                f"{shorten(self.new)}; lower its `max_tokens` or `max_completion_tokens`.",
            )
        rows = pd.Series(self.cells(converses=task.converses), dtype=object)
        frame = pd.DataFrame({winner.inputs[0]: rows.set_axis(range(1, len(rows) + 1))})
        seed = self.seed if self.seed is not None or self.temperature else 0
        sampling = Sampling(self.temperature, 1.0 if not self.temperature else self.top_p, seed=seed)
        return Prompts(self.model, winner.answering.cells(frame), self.new, sampling)

    @property
    def new(self) -> int | None:
        """Most tokens of a text."""
        return self.max_tokens

    def cells(self, *, converses: bool) -> list[Any]:
        """The winner's only input, for each text; `converses` says whether it is a conversation."""
        raise NotImplementedError


class Completion(TextsAsked):
    """Prompts; a winner of conversations takes each as a message of the user."""

    prompt: str | list[str]

    def cells(self, *, converses: bool) -> list[Any]:
        """See `TextsAsked`."""
        texts = [self.prompt] if isinstance(self.prompt, str) else self.prompt
        if not 0 < len(texts) <= MOST_TEXTS:
            raise RefusedError(422, f"a request must have 1 to {MOST_TEXTS} prompts, but this one has {len(texts)}.")
        return [[{"role": "user", "content": text}] for text in texts] if converses else list(texts)


class TextPart(Asked):
    """A part of a message."""

    type: Literal["text"]
    text: str


class Message(Asked):
    """A message of a conversation."""

    role: str
    content: str | list[TextPart]
    name: str | None = None

    @property
    def plain(self) -> dict[str, str]:
        """The message as in rows."""
        parts = self.content
        return {"role": self.role, "content": parts if isinstance(parts, str) else "".join(one.text for one in parts)}


class ChatCompletion(TextsAsked):
    """A conversation."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_ROWS)
    max_completion_tokens: int | None = Field(None, ge=1)

    @property
    def new(self) -> int | None:
        """Most tokens of a text."""
        return self.max_completion_tokens or self.max_tokens

    def cells(self, *, converses: bool) -> list[Any]:
        """See `TextsAsked`."""
        if not converses:
            raise RefusedError(
                422, "a chat needs a winner that was trained on conversations; ask it by /v1/completions."
            )
        return [[message.plain for message in self.messages]]


def known(shelf: Shelf, name: str) -> Winner:
    """The winner of that name.

    Raises:
        RefusedError: there is none.
    """
    if name not in shelf.winners:
        raise RefusedError(404, f"no winner has the name {quoted(name)}; {nearest(name, shelf)}")
    return shelf[name]


def without_paths(winner: Winner, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with images as bytes: a request gives them in base64, and may not name the server's files.

    Raises:
        UserInputError: a cell is not an image in base64.
    """
    for column in winner.columns:
        name = winner.card.columns.get(column.key, column.key)
        for held in {name, column.key} & {*rows.columns}:
            if column.holds == "image":
                rows[held] = [_bytes(cell, row, held) for row, cell in rows[held].items()]
    return rows


def _bytes(cell: object, row: object, name: str) -> bytes:
    text = str(cell).partition(";base64,")[2] if str(cell).startswith("data:") else cell
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise UserInputError(f'"{name}" of row {row} must be an image in base64, or a `data:` address with it; encode it.')


def is_writing(winner: Winner) -> bool:
    """Whether a winner writes texts."""
    return isinstance(winner.answering.task, Writing)
