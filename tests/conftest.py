"""Studies that tests run: on a tiny encoder written to disk, or on the real packaged one."""

from __future__ import annotations

import atexit
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from tests.tiny_models import tiny

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from autopeft.common.params import ParamValue
    from autopeft.search.announcer import Announcer
    from autopeft.winner.winner import Winner

# Tests run side by side, and the studies they start inherit this: threads that fight over the cores cost each of them
# several times what a second thread could gain on tiny models.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before anything is imported: no test, nor a process it starts, reads or writes the user's own cache.
os.environ["AUTOPEFT_CACHE"] = tempfile.mkdtemp(prefix="autopeft-test-cache-")
atexit.register(shutil.rmtree, os.environ["AUTOPEFT_CACHE"], ignore_errors=True)

# A shell's job in the background (`make test &`, `nohup make test`) has these ignored, and so has all that it starts:
# tests that send them to a process of theirs would wait for ever.
for ignored, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(ignored) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
        signal.signal(ignored, usual)


def pytest_configure(config: pytest.Config) -> None:
    """Run on the CPU, wherever this is; `-m gpu` runs what needs a GPU, and leaves it in sight."""
    if config.option.markexpr.strip() != "gpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_finish() -> None:
    """Have no later collection look through what the libraries keep for good: a million objects, many times a test."""
    gc.collect()
    gc.freeze()


DTYPE = os.environ.get("AUTOPEFT_TEST_DTYPE", "float32")
"""Precision of the studies that tests run: named, so that the suite proves the same on every processor.

`make test DTYPE=bfloat16` runs the same in the other one, which a processor without it emulates.
"""

WORDS = [f"w{i}" for i in range(59)]

THREE = 'methods = ["adapter", "lora", "prefix_tuning"]'
"""What tiny studies search: enough to choose among, and quick."""

TINY_STUDY = f"""
name = "tiny"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "text-classification"
[data]
train = "rows.csv"
[search]
{THREE}
trials = 4
epochs = 4
batch_size = 8
learning_rate = 0.02
portfolio = false
references = false
[validation]
folds = 2
packing = "off"
"""


def few(names: Iterable[str], *taken: str) -> list[ParameterSet]:
    """Parameters of a test that `make test` runs for those `taken`, and `make exhaustive` for all the others."""
    return [pytest.param(name, marks=() if name in taken else pytest.mark.exhaustive) for name in names]


HEAVY = [pytest.param("", marks=pytest.mark.exhaustive)]
"""Parameters of a fixture that runs a whole study: all tests that use it are for `make exhaustive`."""


def autopeft(*arguments: object, cwd: Path, **options) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    command = [sys.executable, "-m", "autopeft", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def autopeft_here(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in this process: the same, without some seconds of imports."""
    from autopeft.cli import app

    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["autopeft", *map(str, arguments)])
        try:
            app.main()
        except SystemExit as done:
            code = int(done.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A tiny BERT with its tokenizer, as `save_pretrained` writes them."""
    return saved_tiny("bert", tmp_path_factory.mktemp("tiny") / "model")


def saved_tiny(family: str, folder: Path) -> Path:
    """A tiny model of a family with a tokenizer of `WORDS`, as `save_pretrained` writes them."""
    from transformers import BertTokenizerFast

    tiny(family).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
    return folder


def tiny_rows() -> pd.DataFrame:
    """60 texts, three labels told apart by one word."""
    generator = np.random.default_rng(0)
    labels = np.repeat(["no", "maybe", "yes"], 20)
    texts = [
        " ".join([*generator.choice(WORDS[10:], generator.integers(3, 9)), WORDS["nmy".index(label[0])]])
        for label in labels
    ]
    return pd.DataFrame({"text": texts, "label": labels})


@pytest.fixture
def tiny_study(tmp_path, tiny_model) -> Path:
    """A study of its own in the test's folder."""
    return write_tiny_study(tmp_path, tiny_model)


def write_tiny_study(folder: Path, tiny_model: Path) -> Path:
    """A folder with `study.toml`, the tiny model, and `tiny_rows` as `rows.csv`."""
    tiny_rows().to_csv(folder / "rows.csv", index=False)
    (folder / "model").symlink_to(tiny_model)
    (folder / "study.toml").write_text(TINY_STUDY)
    return folder / "study.toml"


def announcing(output: Path, said: list[str] | None = None) -> Announcer:
    """What tells where a study is, to a list of sentences in a person's place."""
    from autopeft.common.console import make_console
    from autopeft.reporting.progress import PlainProgress
    from autopeft.search.announcer import Announcer

    progress = PlainProgress(make_console(quiet=True))
    progress.say = (said if said is not None else []).append
    return Announcer(output, progress)


def trained_winner(study: Path, name: str, **params: ParamValue) -> Winner:
    """A winner of that method as `load` gives it, whose weights are drawn and not trained; in the folder `name`."""
    import torch

    from autopeft.common.locate import portable
    from autopeft.data.load import table_columns
    from autopeft.execution.problem import Problem
    from autopeft.methods.needed import ready
    from autopeft.methods.registry import discover
    from autopeft.models.attach import attach, trainable
    from autopeft.study.card import Card
    from autopeft.study.file import StudySpec
    from autopeft.winner import winner

    problem = Problem.from_spec(StudySpec.from_file(study), discover())
    method = ready(discover()[name])
    own = {**method.search_space(problem.base.spec).defaults(), **params}
    model = attach(problem.base, method, own, seed=problem.spec.seed)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter += 0.1 * torch.randn_like(parameter)
    card = Card(
        base_model=portable(problem.spec.model.name_or_path, problem.spec.folder),
        task=problem.task.kind,
        labels=problem.rows.labels,
        max_length=problem.reader.max_length,
        method=name,
        quantization=problem.spec.model.quantization,
        params=own,
        plugin="",
        seed=problem.spec.seed,
        task_options=dict(problem.spec.task.options),
        task_facts=dict(problem.task.facts),
        method_facts=dict(method.facts()),
        inputs=problem.task.inputs,
        columns={key: name for key, name in table_columns(problem.spec.data, problem.task).items() if name != key},
    )
    winner.save(model, method, problem.reader, card, study.parent / name)
    return winner.load(study.parent / name)
