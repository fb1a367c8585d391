"""Limits, what a candidate needs, and the watches that keep a trial within the limits."""

from autopeft.common.surface import surface

SURFACE = {
    "Budget": "limits",
    "CostEstimator": "cost_estimator",
    "MemoryWatch": "memory_watch",
    "MethodPlan": "plan",
    "TimeWatch": "time_watch",
    "Usage": "usage",
    "require_room": "feasibility",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
