"""Running trials: here or in a worker, guarded, with an outcome for each."""

from autopeft.common.surface import surface

SURFACE = {
    "Findings": "runner",
    "Job": "runner",
    "LeakCheck": "leak_check",
    "Outcome": "outcome",
    "Problem": "problem",
    "Runner": "runner",
    "WeightCheck": "weight_check",
    "Backend": "backend",
    "BackendFactory": "backend_factory",
    "Cohorts": "cohorts",
    "InProcess": "in_process",
    "Processes": "processes",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
