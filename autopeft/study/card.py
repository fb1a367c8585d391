"""What is known about a winner: how to load it, how it was made, and how good it is."""

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
from autopeft.common.units import MOST_LAYERS

if TYPE_CHECKING:
    from pathlib import Path

CARD, EVIDENCE, CLASSIFIER = "autopeft.json", "evidence.json", "estimator.json"
"""Files beside the weights: a winner's card, how it was made, and what a classifier with that winner knows."""

MOST_MEMBERS = 20
"""Most folds of a study."""

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""How a file is read back: no value is converted to another type, and an unknown key is refused."""

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
        labels: the names that an answer chooses from, in the order of the model's outputs; empty where there are none.
        max_length: most tokens of an input; None where it is not a text.
        method: the method's name.
        params: its params.
        plugin: distribution and version that brought it.
        seed: of the head's initial values.
        trust_remote_code: whether the base model brings code to run.
        quantization: of the base model in training and when it is loaded: "none", "8bit" or "4bit".
        truncation: what is kept of a longer input: "head", "tail" or "both"; None in winners saved before there was a
            choice: the tokenizer decides.
        base_digest: identity of the base model it was trained on (`digest.of`); "" in cards from before it was kept.
        autopeft: version that wrote this.
        task_options: the task's own settings.
        task_facts: facts from the training rows, and from the folds of its trial, that answers need.
        method_facts: what the method needs besides `params` (`PeftMethod.facts`).
        image_size: side of an image in pixels; None for the image processor's own size, or where there is no image.
        inputs: keys of the columns that a row needs; empty in a winner of an earlier version.
        columns: the names in the study's table of the task's columns, by key, where they differ from the key.
        digests: SHA-256 of the files with the weights, by name, and of the card itself, under its own name, without
            `base_model`, which may be another path on another machine. Empty in a winner of an earlier version.
        members: number of models in their own folders, whose answers are averaged; 0 where there is a single model.
        dropped_layers: number of the lowest layers whose add-ons were dropped after training.
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
    method_facts: Mapping[Name, Value | list[Value] | Values] = field(default_factory=dict)
    inputs: tuple[Name, ...] = ()
    columns: Mapping[Name, Text] = field(default_factory=dict)
    image_size: Annotated[Count, Field(ge=1, le=4096)] | None = None
    digests: Mapping[Name, Name] = field(default_factory=dict)
    members: Annotated[Count, Field(le=MOST_MEMBERS)] = 0
    dropped_layers: Annotated[Count, Field(le=MOST_LAYERS)] = 0

    def called(self, keys: Iterable[str]) -> dict[str, str]:
        """The names in the study's table of the columns with these keys."""
        return {key: self.columns.get(key, key) for key in keys}

    def write(self, folder: Path) -> None:
        """Write it to a winner's folder."""
        content = {**asdict(self), "autopeft": version("autopeft")}
        _write({**content, "digests": {**self.digests, CARD: _digest(content)}}, folder / CARD)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read it from a winner's folder.

        Raises:
            UserInputError: there is none, it is not a card, or it was changed.
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
    """How a winner was made and how good it is: written beside the weights as `evidence.json`.

    Attributes:
        study: its name.
        data: where the rows came from; of a local path only its last part.
        train_rows, test_rows: how many it was trained and scored on; `dropped_rows` were left out for an empty cell.
        metric: of the scores.
        fold_scores: in cross-validation; it was chosen by their mean. `chosen_by` names the score of texts written by
            the folds that decided among the best, if one did; `race` says how sure the choice is, if a race on fresh
            folds decided.
        test_score: on the held-out rows.
        test_interval: of `test_score`, at 95%; None where its predictions were not kept.
        baseline: score on the held-out rows of a model that ignores the inputs; `baseline_name` is its name.
        defaults: scores on the held-out rows of each method's untuned default; None where it was not trained.
        references: the same for reference models without an add-on.
        trials: number that were trained.
        budget: the limits, by name.
        hyperparameters: how it was trained.
        trained_params: number of trained parameters, with the head's.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials".
        refit: a note on its training on all rows if that collapsed at first, or on what replaced it.
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
            UserInputError: the file is not one of these.
        """
        path = folder / EVIDENCE
        try:
            raw = plain_file.read(path).removeprefix(codecs.BOM_UTF8)
        except FileNotFoundError:
            return None
        evidence: Evidence = _parse(cls, raw, path, "Remove it, or save the winner again.")
        return evidence


def _digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of a card's content, with the digests of the other files; independent of spaces and order."""
    others = {name: digest for name, digest in content["digests"].items() if name != CARD}
    said = {**content, "digests": others}
    del said["base_model"]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _parse(kind: type[Any], raw: bytes, path: Path, advice: str) -> Any:
    """The content of a JSON file, with each field of its declared type.

    Raises:
        UserInputError: a field is wrong; names the first one.
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
    """The adapter of a kind, made once, as that takes a millisecond."""
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
