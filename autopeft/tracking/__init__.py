"""Every trial as an MLflow run: experiment = study, one parent run for the search, one nested run per trial.

Only `MlflowClient` is used, never MLflow's process-wide state. In the runs table only complete trials have a `score`,
so sorting by it ranks those that may win; a pruned trial has its last mean as `score_when_stopped`. The tags
`method`, `state` and `reason` say what each run was and why it lost, and a saved view puts these columns in front.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # no network that the user did not ask for
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # stdout is for results
# Together a minute: the outbox retries, and a start has its own limit for all its requests.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")

from autopeft.common.address import public
from autopeft.common.exceptions import TrackingError
from autopeft.tracking.address import tracking_uri
from autopeft.tracking.datasets import dataset
from autopeft.tracking.decided import Decided
from autopeft.tracking.quiet import hush
from autopeft.tracking.remarks import Remarks
from autopeft.tracking.runs import PARENT, Tracker, TrialRun, sync
from autopeft.tracking.ui import serve, serving

hush()

__all__ = [
    "PARENT",
    "Decided",
    "Remarks",
    "Tracker",
    "TrackingError",
    "TrialRun",
    "dataset",
    "public",
    "serve",
    "serving",
    "sync",
    "tracking_uri",
]
