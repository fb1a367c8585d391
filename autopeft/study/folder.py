"""The names of all files and folders in a study's output folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

JOURNAL = "study.journal"
"""The trials, in Optuna's format."""

DATABASE = "study.database.json"
"""Which database holds the trials instead, if one does."""

STUDY_FILE = "study.toml"
"""The study file of a study that was started without one."""

LOCK, MARKER, HOLDER = "study.lock", "study.lock.marker", "study.lock.json"
"""The file locked with `flock`; the lock where there is no `flock`; and the file that says who holds the lock."""

PHASE = "study.phase.json"
"""What the study is doing, while it runs."""

RESULT = "result.json"
"""What `autopeft run --json` printed."""

DONE = "done.json"
"""What a study that has ended began with."""

REPORT = "report.html"
"""The page that `autopeft report` writes."""

PLAN = "plan.png"
"""The picture that `autopeft plan` draws."""

PREDICTIONS = "test_predictions.csv"
"""The answers of the winner and the baselines to each held-out row."""

SECTIONS = "report_sections.json"
"""The task's sections on these rows in the report."""

WINNER = "winner"
"""The folder of the winner."""

MLFLOW_MODEL = "mlflow_model"
"""The folder of the same winner in MLflow's format."""

STORE, ARTIFACTS = "mlflow.db", "artifacts"
"""MLflow's store, unless the study file names another."""

OUTBOX = "mlflow.outbox.jsonl"
"""Calls that MLflow has not received yet."""

REFUSED = "mlflow.refused.jsonl"
"""What MLflow refused, with the reason, and lines of the outbox that were damaged."""

EARLIER_LOCK = f"{OUTBOX}.lock"
"""The lock of versions without `LOCK`, held while they ran a study; `tracking` still uses it."""

CHECKPOINTS = "checkpoint"
"""The folder of trials that were interrupted."""

STATES = "trunk"
"""The folder of outputs of the base model's lower layers that do not fit in memory."""

ROWS = "rows"
"""The folder of rows that were given in memory."""

SINGLE_TASKS = "single_tasks"
"""The folder for the training of each task's single-task default, in a study of several tasks."""

TASKS = "tasks.json"
"""The file in a winner's folder that names the tasks; the winner of each is in a folder of that name beside it."""


def holds_study(output: Path) -> bool:
    """Whether a folder is a study's: it has the trials, or says which database has them."""
    return (output / JOURNAL).is_file() or (output / DATABASE).is_file()
