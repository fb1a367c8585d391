"""The bank is scripts, which import each other as their folder's modules; a tiny one for tests."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.conftest import WORDS

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "bank"))

KINDS = {
    "labels": ("text-classification", {}, ""),
    "numbers": ("regression", {}, "spearman"),
    "tags": ("token-classification", {}, ""),
    "sets": ("multi-label-classification", {"delimiter": "|"}, ""),
}


def made(kind: str, rows: int, seed: int) -> pd.DataFrame:
    """Texts of one word that tells what they teach, and others that do not."""
    generator = np.random.default_rng(seed)
    telling = generator.integers(0, 3, rows)
    words = [[WORDS[place], *generator.choice(WORDS[10:], 4)] for place in telling]
    texts, names = [" ".join(own) for own in words], np.array(["no", "maybe", "yes"])[telling]
    if kind == "tags":
        tags = [[f"B-{name}", "O", "O", "O", "O"] for name in names]
        return pd.DataFrame({"tokens": words, "tags": tags})
    label = {
        "labels": names,
        "numbers": (telling + generator.random(rows) / 9).round(3).astype(str),
        "sets": [f"{name}|any" if place % 2 else name for place, name in enumerate(names)],
    }[kind]
    return pd.DataFrame({"text": texts, "label": label})


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with the rows of each kind, in the forms of the real ones."""
    folder = tmp_path_factory.mktemp("rows")
    for kind in KINDS:
        (folder / kind).mkdir()
        for part, rows, seed in (("train", 300, 1), ("test", 90, 2)):
            table = made(kind, rows, seed)
            if kind == "tags":
                lines = [json.dumps(row) for row in table.to_dict("records")]
                (folder / kind / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
            else:
                table.to_csv(folder / kind / f"{part}.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def tasks():
    """A tiny task of each kind."""
    from sources import BankTask, label_sets, table, tagged

    read = {
        "labels": partial(table, folder="labels"),
        "numbers": partial(table, folder="numbers"),
        "tags": partial(tagged, train="tags/train.jsonl", test="tags/test.jsonl"),
        "sets": partial(label_sets, folder="sets", count=4),
    }
    return {
        name: BankTask(name, "tiny", kind, read[name], "made up", "none", metric, options, ("small",), 32)
        for name, (kind, options, metric) in KINDS.items()
    }


@pytest.fixture(scope="session")
def recorder(tmp_path_factory, data, tasks, tiny_model):
    """A recorder of the tiny tasks on the tiny model."""
    from recorder import Recorder
    from sources import Folders

    return Recorder(tmp_path_factory.mktemp("bank"), Folders([data]), str(tiny_model), tasks)


@pytest.fixture(scope="session")
def configs(recorder):
    """The default of each method."""
    return {config.method: config for config in recorder.pool("labels", "small")["defaults"]}
