"""Training of folds: batches, steps, packing, the trunk cache, checkpoints."""

from autopeft.common.surface import surface

SURFACE = {
    "Batch": "batch",
    "Checkpoint": "checkpoint",
    "Cohort": "cohort",
    "Execution": "batch_plan",
    "Learner": "learner",
    "Rung": "rungs",
    "Schedule": "schedule",
    "Trunk": "trunk_cache",
    "cooldown_of": "schedule",
    "cross_validate": "cross_validation",
    "evaluate": "learner",
    "pack": "packing",
    "packable": "packing_check",
    "train_epoch": "learner",
}
"""What the package shows, with the module of each."""

__all__ = list(SURFACE)
__getattr__ = surface(__name__, SURFACE)
