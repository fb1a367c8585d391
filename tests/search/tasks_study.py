"""A tiny study of three tasks of different kinds on one base model, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tests.conftest import DTYPE, WORDS, tiny_rows

if TYPE_CHECKING:
    from pathlib import Path

TASKS = """
[[tasks]]
name = "tone"
kind = "text-classification"
[tasks.data]
train = "rows.csv"

[[tasks]]
name = "size"
kind = "regression"
metric = "r2"
[tasks.data]
train = "sizes.csv"
label = "size"

[[tasks]]
name = "parts"
kind = "token-classification"
[tasks.data]
train = "parts.jsonl"
"""

STUDY = f"""
name = "several"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[search]
methods = ["lora"]
trials = 4
epochs = 2
batch_size = 8
learning_rate = 0.02
portfolio = false
race = 0
[validation]
folds = 2
{TASKS}
"""


def sizes() -> pd.DataFrame:
    """40 texts with the number of their words."""
    generator = np.random.default_rng(1)
    texts = [" ".join(generator.choice(WORDS, count)) for count in generator.integers(2, 20, 40)]
    return pd.DataFrame({"text": texts, "size": [float(len(text.split())) for text in texts]})


def parts() -> pd.DataFrame:
    """36 lists of words, of which some are names."""
    generator = np.random.default_rng(2)
    words = [[*generator.choice(WORDS, count)] for count in generator.integers(4, 12, 36)]
    tags = [["B-NAME" if word in WORDS[:9] else "O" for word in row] for row in words]
    return pd.DataFrame({"tokens": words, "tags": tags})


def write(folder: Path, model: Path, study: str = STUDY) -> Path:
    """A study file of three tasks, beside the model and the rows."""
    tiny_rows().to_csv(folder / "rows.csv", index=False)
    sizes().to_csv(folder / "sizes.csv", index=False)
    parts().to_json(folder / "parts.jsonl", orient="records", lines=True)
    if not (folder / "model").exists():
        (folder / "model").symlink_to(model)
    (folder / "study.toml").write_text(study)
    return folder / "study.toml"
