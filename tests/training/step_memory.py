"""The memory of a training step, as it is predicted and as it is measured."""

import numpy as np

from autopeft.budget.cost_estimator import CostEstimator
from autopeft.budget.memory.peak import measure
from autopeft.models.attach import attach
from autopeft.models.modes import train_mode
from autopeft.training.batch import Batch
from autopeft.training.batch_plan import Execution
from autopeft.training.learner import Learner
from autopeft.training.packing import pack

ROWS = 16


def predicted_and_measured(base, task, candidate, device, data, folds, most):
    """The estimate and the bytes of a step at the longest rows, of one fold or of all `most` folds packed."""
    method = candidate.method
    execution = Execution(ROWS, folds=folds)
    estimator = CostEstimator(base, task, device, data, packed={method.name: False}, folds=most)
    predicted = estimator.predict(candidate, execution)
    model = attach(base, method, candidate.params)
    if folds > 1:
        pack(model, folds)
    train_mode(model)
    learner = Learner(model, candidate.hyper, len(data), execution, device=device)
    learner.take_turn()
    batch = Batch.of(data, [np.argsort(data.lengths)[-ROWS:]] * folds, "cpu")
    others = (*batch.tensors.values(), *learner.kept_tensors())
    return predicted, measure(lambda: learner.step([batch], task, device), model, others=others)
