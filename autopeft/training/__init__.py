"""Folds are trained: batches, steps, packing, the trunk cache, checkpoints."""
