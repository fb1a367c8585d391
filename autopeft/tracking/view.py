"""The first view in the MLflow UI: a saved view with the best score on top and the reasons beside it."""

from __future__ import annotations

import json
import time

from autopeft.budget.limits import extra_limits

VIEW = "ranking"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""The saved view of the runs page: `?viewStateShareKey=ranking`, or "Ranking" under "Views" in the UI."""

COLUMNS = {
    "tags.`method`": 110,
    "tags.`state`": 110,
    "metrics.`score`": 110,
    "tags.`reason`": 480,
    "metrics.`trainable_params`": 140,
    "metrics.`measured_memory_mib`": 180,
    "metrics.`predicted_memory_mib`": 180,
    "metrics.`seconds`": 90,
    "metrics.`score_when_stopped`": 150,
}
"""What the view shows, in this order, with widths in pixels."""

NAME, NAME_WIDTH = "attributes.`Run Name`", 300
"""The column that is always there, and its width: that of the longest name."""

WIDTH = 140
"""The width of the columns of `extra_limits`."""


def ranking_view() -> str:
    """A saved view in the format of MLflow's own UI: every run, best score first, our columns."""
    now = time.time_ns() // 10**6  # noqa: TID251  # MLflow shows it
    columns = {**COLUMNS, **{f"metrics.`{limit.measure}`": WIDTH for limit in extra_limits()}}
    state = {
        "orderByKey": "metrics.`score`",
        "orderByAsc": False,
        "selectedColumns": list(columns),
        "columnOrder": [NAME, *columns],
        "columnWidths": {NAME: NAME_WIDTH, **columns},
    }
    return json.dumps({"name": "Ranking", "createdAt": now, "updatedAt": now, "state": json.dumps(state)})
