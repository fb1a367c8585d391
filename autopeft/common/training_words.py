"""Other libraries' names for the settings of training, and the study file's."""

from __future__ import annotations

TRAINING_WORDS = {
    "batch": "batch_size",
    "batch_size": "batch_size",
    "bs": "batch_size",
    "decay": "weight_decay",
    "epoch": "epochs",
    "epochs": "epochs",
    "learning_rate": "learning_rate",
    "lr": "learning_rate",
    "max_epochs": "epochs",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "rate": "learning_rate",
    "train_batch_size": "batch_size",
    "warmup": "warmup_ratio",
    "warmup_ratio": "warmup_ratio",
    "wd": "weight_decay",
    "weight_decay": "weight_decay",
}

EXAMPLES = {
    "batch_size": "batch_size = 16",
    "epochs": "epochs = [2, 6]",
    "learning_rate": "learning_rate = [1e-4, 1e-3]",
    "warmup_ratio": "warmup_ratio = 0.06",
    "weight_decay": "weight_decay = 0.01",
}
"""An example for [search], by the study file's word."""


def training_word(name: str) -> str | None:
    """The study file's word for a setting of training; None where `name` means something else."""
    return TRAINING_WORDS.get(name.lower().replace("-", "_"))
