"""A portfolio of real methods with made-up scores, for tests: six groups of texts and one of tags, in two sizes."""

import numpy as np

from autopeft.search.portfolio import Cell, Entry, Portfolio, Size

TEXTS, TAGS = "text-classification", "token-classification"
CELLS = tuple(
    Cell(f"task {group}", f"group {group}", TAGS if group == 6 else TEXTS, rows)
    for rows in (100, 400)
    for group in range(7)
)
TRAINING = {"batch_size": 16, "warmup_ratio": 0.1, "weight_decay": 0.0}


def entry(method, gains, *, steps=(168, 300), default=False, rate=1e-3, **params):
    """One that was recorded in all cells; `gains` of a group, or of each cell, or one for all."""
    gains = np.array(gains, float)
    gains = np.tile(gains, 2) if gains.shape == (7,) else np.broadcast_to(gains, (14,)).copy()
    lengths = np.repeat(np.array(steps, float), 7)
    return Entry(method, default, params, {"learning_rate": rate, **TRAINING}, lengths, gains)


def portfolio(*more):
    """LoRA's default is the best fixed one, then prefix-tuning's, then the adapter's; with `more` entries."""
    defaults = (
        entry("adapter", -3.0, default=True),
        entry("lora", 0.0, default=True),
        entry("prefix_tuning", -1.0, default=True),
    )
    sizes = (Size(100, "lora", 168, 1.2, 0.4, 7, 7), Size(400, "lora", 300, 0.5, 0.3, 7, 7))
    return Portfolio("a-model", CELLS, sizes, (*defaults, *more))


def wide_adapter():
    """It helps four groups of texts much, and hurts the others."""
    return entry("adapter", [3, 4, 3, 4, -2, -2, -5], rate=2e-3, reduction_factor=4)


def slow_lora():
    """It helps every group a little."""
    return entry("lora", [0.5, 0.6, 0.5, 0.4, 0.6, 0.5, 0.4], rate=3e-4, r=16, lora_alpha=16)
