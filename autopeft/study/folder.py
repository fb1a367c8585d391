"""What stands in a study's output folder: every file and folder by its name, once."""

JOURNAL = "study.journal"
"""The trials, by Optuna; what makes a folder a study's."""

STUDY_FILE = "study.toml"
"""The settings of a study that was begun without a file, as a study file."""

LOCK, MARKER, HOLDER = "study.lock", "study.lock.marker", "study.lock.json"
"""What is locked with `flock`; what stands for the lock where there is none; and who holds it."""

PHASE = "study.phase.json"
"""What the study is at, as long as it runs."""

RESULT = "result.json"
"""What `autopeft run --json` printed."""

DONE = "done.json"
"""What a study that has come to its end was begun with."""

REPORT = "report.html"
"""The page that `autopeft report` writes."""

PLAN = "plan.png"
"""What `autopeft plan` draws."""

PREDICTIONS = "test_predictions.csv"
"""What the winner and the baselines answered to each row held out."""

SECTIONS = "report_sections.json"
"""What the kind of task shows of these rows in the report."""

WINNER = "winner"
"""The folder of the winner."""

MLFLOW_MODEL = "mlflow_model"
"""The folder of the same winner for MLflow."""

STORE, ARTIFACTS = "mlflow.db", "artifacts"
"""MLflow's, where the study file names no other store."""

OUTBOX = "mlflow.outbox.jsonl"
"""What MLflow has yet to be told."""

REFUSED = "mlflow.refused.jsonl"
"""What MLflow refused, with the reason, and lines of the outbox that were damaged."""

EARLIER_LOCK = f"{OUTBOX}.lock"
"""What versions without `LOCK` held as long as they ran a study; `tracking` still does."""

CHECKPOINTS = "checkpoint"
"""The folder of trials that were interrupted."""

STATES = "trunk"
"""The folder of outputs of the base model's lower layers, where memory has no room for them."""

ROWS = "rows"
"""The folder of rows that were given in memory."""
