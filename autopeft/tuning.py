"""`autopeft.tune`: a study from Python, with rows in memory or in files, and what it found."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopeft.common.console import make_console
from autopeft.common.exceptions import quoted
from autopeft.common.html_table import facts, table
from autopeft.common.locate import as_reference
from autopeft.data.in_memory import as_table, called_of, columns_of, keep, split_of
from autopeft.data.load import table_columns
from autopeft.data.missing import DROP
from autopeft.methods.registry import discover
from autopeft.reporting.callbacks import CallingProgress, checked
from autopeft.reporting.leaderboard_frame import FIRST, leaderboard_frame
from autopeft.reporting.progress import make_progress
from autopeft.reporting.study_views import StudyViews
from autopeft.search.run import run
from autopeft.study.file import StudySpec
from autopeft.study.output import require
from autopeft.study.record import ranked
from autopeft.tasks.registry import find_task, left_out
from autopeft.winner import winner as artifact

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import optuna
    import pandas as pd

    from autopeft.reporting.callbacks import TrialCallback
    from autopeft.reporting.progress import Progress
    from autopeft.study.record import Result, TestScores, TrialRecord
    from autopeft.study.sections import DataSection

SOURCE = "the call of tune()"
"""How errors name the place of a setting."""

SHOWN = 5
"""Trials that a study shows of itself in a notebook."""

IN_MEMORY = "rows in memory"
"""Stands for rows while the settings are checked, before anything is written."""


class Tuned(StudyViews):
    """A finished study, which shows itself in a notebook.

    Attributes:
        name: of the study.
        metric: what its scores are.
        best: the winning trial.
        stopped: how the search ended before its last trial, such as "stopped by the timeout after 4 of 12 trials";
            empty where it did not.
        race: how sure it is that the winner is better than the best default, in a sentence, where a race on fresh folds
            chose it; else "". `chance` is that in a number, None where there is no other default.
        test: scores on the held-out rows: the winner, the majority class, each method's untuned default.
        folder: the output folder; a temporary one is removed with this object.
        tracking_uri: of the MLflow store with every trial.
    """

    def __init__(self, result: Result, folder: Path, *, temporary: bool = False) -> None:
        self.name, self.metric, self.stopped = result.name, result.metric, result.stopped
        self.race, self.chance = result.race, result.chance
        self.best: TrialRecord = result.best
        self.test: TestScores = result.test
        self.folder, self.tracking_uri = folder, result.tracking_uri
        self._result = result
        if temporary:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    def __repr__(self) -> str:
        found = f"{self.best.name}, {self.metric} {self.best.score:.4f} in cross-validation"
        stopped = f"; {self.stopped}" if self.stopped else ""
        return f"<study {self.name!r}: {found}, {self.test.winner:.4f} on the held-out rows{stopped}>"

    def _repr_html_(self) -> str:
        metric = self.metric
        known = {
            "winner": self.best.name,
            f"{metric}, cross-validation": f"{self.best.score:.4f}",
            f"{metric}, held-out rows": f"{self.test.winner:.4f}",
            f"{metric}, {self.test.baseline_name}": f"{self.test.baseline:.4f}",
            "how sure": self.race,
            "the search was": self.stopped,
            "output folder": self.folder,
        }
        best = enumerate(ranked(self._result.records)[:SHOWN], 1)
        rows = [(rank, *(_cell(getattr(record, column)) for column in FIRST)) for rank, record in best]
        more = len(self._result.records) - len(rows)
        rest = f"<p>{more} more in leaderboard().</p>" if more else ""
        return facts(f"Study {self.name}", known) + table(["rank", *FIRST], rows) + rest

    @cached_property
    def winner(self) -> artifact.Winner:
        """The winner as it was saved, on the CPU, in float32."""
        return artifact.load(self._result.winner_folder, trust_remote_code=True)  # where the study was told to

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study, read from its store in the output folder."""
        from autopeft.study.storage import open_study

        found = open_study(self.folder)
        assert found  # it has a result
        return found

    def leaderboard(self) -> pd.DataFrame:
        """All trials, one per row: complete ones by score, then pruned, stopped, failed and infeasible ones.

        Memory in bytes, time in seconds. The index is the rank, of complete trials alone. Each of a candidate's params
        has a column, such as `lora.r`. The score of a trial that was pruned, or stopped by the timeout, is from an
        earlier epoch than a complete one's, and not to be compared with it.
        """
        return leaderboard_frame(self._result.records)


def tune(
    *,
    model: str | Path | Mapping[str, Any],
    data: Any,
    test: Any = None,
    task: str | Mapping[str, Any] = "text-classification",
    search: Mapping[str, Any] | None = None,
    methods: Mapping[str, Mapping[str, Any]] | None = None,
    validation: Mapping[str, Any] | None = None,
    budget: Mapping[str, Any] | None = None,
    winner: Mapping[str, Any] | None = None,
    tracking: str | Mapping[str, Any] | None = None,
    name: str = "study",
    seed: int | None = None,
    output: str | Path | None = None,
    temporary: bool = False,
    block: Collection[str] = (),
    progress: bool = True,
    callbacks: Iterable[TrialCallback] = (),
) -> Tuned:
    """Search for the best method and size, as `autopeft run` does for a study file, and return the finished study.

    The arguments are a study file's tables, with the same settings and defaults; where a table has one setting that
    matters most, that may stand for it. The same call goes on with a study that was interrupted.

    Args:
        model: [model], or its `name_or_path`.
        data: [data], or its `train`. That may also be a pandas frame, a `datasets.Dataset` or `DatasetDict` (whose
            test split is then the held-out rows), a list of dicts, or a list of tuples of the inputs and the label.
            Rows in memory are written to the output folder once, so that the study can go on later.
        test: held-out rows, in any of these forms; default: a part of `data`.
        task: [task], or its `kind`.
        search: [search], such as ``{"methods": ["lora"], "trials": 12, "lora": {"r": [4, 32]}}``.
        methods: [methods], such as ``{"fusion": {"sources": ["outputs/a", "outputs/b"]}}``.
        validation: [validation], such as ``{"folds": 5, "metric": "f1_macro"}``.
        budget: [budget], such as ``{"max_trainable_params": "1%"}``.
        winner: [winner], such as ``{"form": "ensemble"}``.
        tracking: [tracking], or its `uri`.
        name: of the study.
        seed: of everything random.
        output: the output folder; default: `outputs/<name>`.
        temporary: use an output folder that is removed together with the result.
        block: entry points of plugins to leave out.
        progress: show how the search goes: live in a notebook and on a terminal, in lines elsewhere.
        callbacks: functions that are called after each trial with its `TrialRecord`, of trials that were pruned, failed
            or were refused too (`record.state`). An error in one stops the study and is raised here; finished trials
            are kept, unless `temporary` is set.

    Raises:
        UserInputError: a setting, the data or the model are wrong, or nothing fits the budget.
        StudyError: trials keep failing for the same reason, or none completed.
        KeyboardInterrupt: on Ctrl-C, or when a notebook's kernel is interrupted; finished trials are kept.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    called = checked(callbacks)
    if temporary:
        output = tempfile.mkdtemp(prefix="autopeft-")
    content = {
        "name": name,
        "seed": seed,
        "output": None if output is None else str(Path(output).absolute()),
        "model": _table(model, "name_or_path"),
        "task": _table(task, "kind"),
        "search": search,
        "methods": methods,
        "validation": validation,
        "budget": budget,
        "winner": winner,
        "tracking": _table(tracking, "uri"),
    }
    try:
        spec = specify({key: value for key, value in content.items() if value is not None}, data, test)
        shown = CallingProgress(make_progress(make_console(quiet=not progress)), called)
        result = _run(spec, block, shown)
    except BaseException:
        if temporary and output:
            shutil.rmtree(output, ignore_errors=True)
        raise
    return Tuned(result, spec.output, temporary=temporary)


def specify(content: Mapping[str, Any], data: Any, test: Any) -> StudySpec:
    """The study's settings, checked; then rows in memory are written, and the settings name their files.

    Args:
        content: the tables of the study file, all but [data].
        data: as `tune` takes it.
        test: the same.

    Raises:
        SpecError: a setting is unknown or missing, or breaks a rule.
        DataError: rows that are of no known form.
    """
    whole = isinstance(data, Mapping) and not hasattr(data, "num_rows")
    table = dict(data) if whole else {"train": data}
    if test is not None:
        table["test"] = test
    given = {key: table[key] for key in ("train", "test") if table.get(key) is not None}
    named = {key: as_reference(rows) if isinstance(rows, str | Path) else IN_MEMORY for key, rows in given.items()}
    spec = StudySpec.from_mapping({**content, "data": {**table, **named}}, SOURCE)
    places = {"train": "`train` in `data`" if whole else "`data`", "test": "`test`"}
    if whole and test is None:
        places["test"] = "`test` in `data`"
    called = _take_splits(given, places, spec.data)
    task = find_task(spec.task.kind).configured(spec.task.options)
    section = spec.data
    if not isinstance(given["train"], str | Path) and not section.names_columns:
        found_columns, _ = task.recognised(columns_of(given["train"], called["train"]))  # told as the study begins
        section = section.model_copy(update={"columns": found_columns})
    task = task.taking(section.named)
    columns = table_columns(section, task)
    cells = [*dict.fromkeys(columns.values())]
    if spec.data.group is not None:
        columns["group"] = spec.data.group
    if IN_MEMORY in named.values():
        require(spec.output)  # before anything is written there
    drop = spec.data.on_missing == DROP
    found = {
        key: as_reference(rows)
        if isinstance(rows, str | Path)
        else str(keep(as_table(rows, cells, called[key]), columns, spec.output, task.columns, empty=drop))
        for key, rows in given.items()
    }
    return spec.model_copy(update={"data": spec.data.model_copy(update=found)})


def _take_splits(given: dict[str, Any], places: dict[str, str], section: DataSection) -> dict[str, str]:
    """Put the splits of a `DatasetDict` in its place; returns how errors name the rows: by the argument they were."""
    train, own_test = split_of(given["train"], section)
    if train is not given["train"]:
        given["train"] = train
        places["train"] += f", split {quoted(section.train_split)}"
    if own_test is not None and "test" not in given and "test_fraction" not in section.model_fields_set:
        given["test"] = own_test
        places["test"] = f"`data`, split {quoted(section.test_split)}"
    return {key: called_of(rows, places[key]) for key, rows in given.items()}


def _run(spec: StudySpec, block: Collection[str], progress: Progress) -> Result:
    registry = discover(block)
    for fault in left_out(registry):
        progress.say(f"A plugin is left out. {fault}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries warn their developers; the user can do nothing about it
        try:
            return run(spec, registry, progress)
        except KeyboardInterrupt:
            progress.say("Interrupted. Every finished trial is kept; the same call goes on from here.")
            raise


def _table(given: Any, key: str) -> Any:
    """A table of the study file from the one setting of it that was given, or as it is."""
    return {key: as_reference(given)} if isinstance(given, str | Path) else given


def _cell(value: Any) -> str:
    """A value of the leaderboard, short."""
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
