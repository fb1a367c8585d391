"""What is known of a winner: how to load it, how it came about, and how good it is."""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError
from autopeft.common.files import whole

if TYPE_CHECKING:
    from pathlib import Path

CARD, EVIDENCE, CLASSIFIER = "autopeft.json", "evidence.json", "estimator.json"
"""Files beside the weights: a winner's card, how it came about, and what a classifier with that winner knows."""

MOST_MEMBERS = 20
"""Folds of a study, at most."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""How a file is read back: nothing is turned into another type, and a key that is not known is refused."""

Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Value = bool | Annotated[int, Field(ge=-(2**63), le=2**63)] | float | Text
Values = Annotated[Mapping[Name, Value], Field()]


@dataclass(frozen=True)
class Card:
    """What must be known to load a winner: written beside the weights as `autopeft.json`.

    Attributes:
        base_model: as the study file names it, so that `package:` and hub references hold on any machine.
        task: the task kind.
        labels: the names among which an answer chooses, in the order of the model's outputs; empty where it does not.
        max_length: tokens of an input, at most; None where it is not a text.
        method: the method's name.
        params: its params.
        plugin: distribution and version that brought it.
        seed: of the head's initial values.
        trust_remote_code: whether the base model brings code to run.
        quantization: of the base model it was trained on, and is loaded with: "none", "8bit" or "4bit".
        truncation: what is kept of a longer input: "head", "tail" or "both"; None, in winners saved before there was a
            choice, is as the tokenizer has it.
        base_digest: identity of the base model it was trained on (`digest.of`); "" in a card from before it was kept.
        autopeft: version that wrote this.
        task_options: the settings of the task that are its own.
        task_facts: what the training rows told that answers need, and the folds of its trial.
        image_size: side of an image in pixels; None where it is the image processor's own, or no image.
        inputs: keys of the columns that a row needs; empty in a winner of an earlier version.
        columns: what the study's table calls a column of the task, by its key; without those that it calls as the key.
        digests: SHA-256 of the files with the weights, by name, and under the card's own name of what it says itself:
            all but `base_model`, which may be another path on another machine. Empty in a winner of an earlier version.
        members: models in folders of their own, whose answers are averaged; 0 where there is one by itself.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    base_model: Annotated[Text, Field(min_length=1)]
    task: Name
    labels: tuple[str, ...]
    max_length: Annotated[Count, Field(ge=1)] | None
    method: Name
    params: Values
    plugin: Text
    seed: Annotated[Count, Field(le=2**32 - 1)]
    trust_remote_code: bool = False
    quantization: Annotated[str, Field(pattern="^(none|8bit|4bit)$")] = "none"
    truncation: Annotated[str, Field(pattern="^(head|tail|both)$")] | None = None
    base_digest: Text = ""
    autopeft: Text = ""
    task_options: Mapping[Name, Value | list[Value] | Values] = field(default_factory=dict)
    task_facts: Values = field(default_factory=dict)
    inputs: tuple[Name, ...] = ()
    columns: Mapping[Name, Text] = field(default_factory=dict)
    image_size: Annotated[Count, Field(ge=1, le=4096)] | None = None
    digests: Mapping[Name, Name] = field(default_factory=dict)
    members: Annotated[Count, Field(le=MOST_MEMBERS)] = 0

    def called(self, keys: Iterable[str]) -> dict[str, str]:
        """What the study's table called the columns of these keys."""
        return {key: self.columns.get(key, key) for key in keys}

    def write(self, folder: Path) -> None:
        """Write it to a winner's folder."""
        content = {**asdict(self), "autopeft": version("autopeft")}
        _write({**content, "digests": {**self.digests, CARD: _digest(content)}}, folder / CARD)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read it from a winner's folder.

        Raises:
            UserInputError: there is none, something else in its place, or not what was written.
        """
        path = folder / CARD
        try:
            raw = plain_file.read(path).removeprefix(codecs.BOM_UTF8)
        except FileNotFoundError:
            raise UserInputError(
                f"{folder} holds no {CARD}; give the `winner` folder that `autopeft run` wrote."
            ) from None
        card: Card = _parse(cls, raw, path, "Save the winner again.")
        if len(set(card.labels)) < len(card.labels):
            raise UserInputError(f"{path} cannot be read: it has a label twice. Save the winner again.")
        if card.digests and card.digests.get(CARD) != _digest(from_json(raw)):
            raise UserInputError(
                f"{path} was changed after it was saved: its SHA-256 is not the one in it. Restore it (only "
                "`base_model` may be changed)."
            )
        return card


@dataclass(frozen=True)
class Evidence:
    """How a winner came about and how good it is: written beside the weights as `evidence.json`.

    Attributes:
        study: its name.
        data: where the rows were from; of a local path its last part alone.
        train_rows, test_rows: how many it was trained on, and scored on; `dropped_rows`, left out for an empty cell.
        metric: what the scores are.
        fold_scores: in cross-validation, where it was chosen by their mean; `chosen_by` names the score of texts which
            the folds wrote that decided among the best, where one did, and `race` says how sure the choice is where a
            race on fresh folds decided.
        test_score: on the held-out rows.
        test_interval: of `test_score`, at 95%; None where its predictions were not kept.
        baseline: on the held-out rows, of what answers without looking at the inputs, and `baseline_name` what that is.
        defaults: on the held-out rows, each method's untuned default; None where it was not trained.
        references: likewise, of what needs no add-on.
        trials: that were trained.
        budget: the limits, by name.
        hyperparameters: how it was trained.
        trained_params: parameters that were trained, the head's among them.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials".
        refit: what is told of its training on all rows, where that collapsed at first, or of what came in its place.
        form: "refit", or what its folds learnt: "average" or "ensemble".
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    study: Text
    data: Text
    train_rows: Count
    test_rows: Count
    metric: Text
    fold_scores: Annotated[tuple[float, ...], Field(min_length=1)]
    test_score: float
    test_interval: tuple[float, float] | None
    baseline: float
    defaults: Mapping[Name, float | None]
    trials: Count
    budget: Mapping[Name, int | float]
    hyperparameters: Values
    trained_params: Count
    stopped: Text = ""
    baseline_name: Text = "majority class"
    chosen_by: Text = ""
    refit: Text = ""
    form: Text = "refit"
    references: Mapping[Name, float | None] = field(default_factory=dict)
    race: Text = ""
    dropped_rows: Count = 0

    def write(self, folder: Path) -> None:
        """Write it to a winner's folder."""
        _write(asdict(self), folder / EVIDENCE)

    @classmethod
    def read(cls, folder: Path) -> Evidence | None:
        """Read it from a winner's folder; None where there is none.

        Raises:
            UserInputError: the file holds something else.
        """
        path = folder / EVIDENCE
        try:
            raw = plain_file.read(path).removeprefix(codecs.BOM_UTF8)
        except FileNotFoundError:
            return None
        evidence: Evidence = _parse(cls, raw, path, "Remove it, or save the winner again.")
        return evidence


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of what a card says, with the digests of the other files; independent of spaces and order."""
    others = {name: digest for name, digest in content["digests"].items() if name != CARD}
    said = {**content, "digests": others}
    del said["base_model"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _parse(kind: type[Any], raw: bytes, path: Path, advice: str) -> Any:
    """What a JSON file says, each field of its own type.

    Raises:
        UserInputError: it does not; the first fault.
    """
    try:
        return _adapter(kind).validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))[:80]
        if first["type"] == "unexpected_keyword_argument":
            raise UserInputError(
                f'{path} cannot be read: it has the key "{where}", which autopeft {version("autopeft")} does not know; '
                f"install the version that wrote it{_writer(raw)}."
            ) from None
        reason = f"{where}: {first['msg']}" if where else first["msg"]
        raise UserInputError(f"{path} cannot be read: {reason[:300]}. {advice}") from None


def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    """Made once for each kind, which takes a millisecond."""
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


_adapters: dict[type[Any], TypeAdapter[Any]] = {}


def _writer(raw: bytes) -> str:
    """The version of autopeft that wrote a file, in brackets; "" where it does not say."""
    named = from_json(raw).get("autopeft")
    return f" (autopeft {named[:20]})" if isinstance(named, str) and named else ""


def _write(content: Mapping[str, object], path: Path) -> None:
    with whole(path, lasting=True) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
