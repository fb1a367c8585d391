"""What is known of a winner: how to load it, how it came about, and how good it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from autopeft.exceptions import UserInputError
from autopeft.files import whole
from autopeft.quantization import NONE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from autopeft.search_space import ParamValue

CARD, EVIDENCE = "autopeft.json", "evidence.json"


@dataclass(frozen=True)
class Card:
    """What must be known to load a winner: written beside the weights as `autopeft.json`.

    Attributes:
        base_model: as the study file names it, so that `package:` and hub references hold on any machine.
        task: the task kind.
        labels: class names in the order of the model's outputs.
        max_length: tokens of an input, at most.
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
    """

    base_model: str
    task: str
    labels: tuple[str, ...]
    max_length: int
    method: str
    params: Mapping[str, ParamValue]
    plugin: str
    seed: int
    trust_remote_code: bool = False
    quantization: str = NONE
    truncation: str | None = None
    base_digest: str = ""
    autopeft: str = ""

    def write(self, folder: Path) -> None:
        """Write it to a winner's folder."""
        _write({**asdict(self), "autopeft": version("autopeft")}, folder / CARD)

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Read it from a winner's folder.

        Raises:
            UserInputError: there is none, or something else in its place.
        """
        try:
            content = json.loads((folder / CARD).read_text(encoding="utf-8"))
            return cls(**{**content, "labels": tuple(content["labels"])})
        except FileNotFoundError:
            raise UserInputError(
                f"{folder} holds no {CARD}; give the `winner` folder that `autopeft run` wrote."
            ) from None
        except (ValueError, TypeError, KeyError) as error:
            raise UserInputError(f"{folder / CARD} cannot be read: {error}. Save the winner again.") from error


@dataclass(frozen=True)
class Evidence:
    """How a winner came about and how good it is: written beside the weights as `evidence.json`.

    Attributes:
        study: its name.
        data: where the rows were from; of a local path its last part alone.
        train_rows, test_rows: how many it was trained on, and scored on.
        metric: what the scores are.
        fold_scores: in cross-validation, where it was chosen by their mean.
        test_score: on the held-out rows.
        test_interval: of `test_score`, at 95%; None where its predictions were not kept.
        baseline: on the held-out rows, always the most frequent training label.
        defaults: on the held-out rows, each method's untuned default; None where it was not trained.
        trials: that were trained.
        budget: the limits, by name.
        hyperparameters: how it was trained.
        trained_params: parameters that were trained, the head's among them.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials".
    """

    study: str
    data: str
    train_rows: int
    test_rows: int
    metric: str
    fold_scores: tuple[float, ...]
    test_score: float
    test_interval: tuple[float, float] | None
    baseline: float
    defaults: Mapping[str, float | None]
    trials: int
    budget: Mapping[str, float]
    hyperparameters: Mapping[str, ParamValue]
    trained_params: int
    stopped: str = ""

    def write(self, folder: Path) -> None:
        """Write it to a winner's folder."""
        _write(asdict(self), folder / EVIDENCE)

    @classmethod
    def read(cls, folder: Path) -> Evidence | None:
        """Read it from a winner's folder; None where there is none.

        Raises:
            UserInputError: the file holds something else.
        """
        try:
            content = json.loads((folder / EVIDENCE).read_text(encoding="utf-8"))
            interval = content["test_interval"]
            content |= {"fold_scores": tuple(content["fold_scores"]), "test_interval": interval and tuple(interval)}
            return cls(**content)
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise UserInputError(f"{folder / EVIDENCE} cannot be read: {error}. Remove it, or save anew.") from error


def _write(content: Mapping[str, object], path: Path) -> None:
    with whole(path, lasting=True) as draft:
        draft.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
