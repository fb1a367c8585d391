"""Kinds of task: their contract, what several kinds share, and discovery. The kinds themselves are plugins."""

from autopeft.common.surface import surface

SURFACE = {
    "Baseline": "contract",
    "CONTRACT": "contract",
    "Classification": "classification",
    "Column": "column",
    "Metric": "metric",
    "Task": "contract",
    "find_task": "registry",
    "task_kinds": "registry",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
