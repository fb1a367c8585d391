"""Of two starts of one study at nearly the same time one runs it, and the other one says who does."""

import shutil
import time

import pytest

from tests.conftest import THREE
from tests.execution.test_processes import check_books
from tests.search.test_run import edit
from tests.soak.harness import Child

TIMES = 20


def two_starts(study, apart: float) -> None:
    first = Child("run", study.name, cwd=study.parent)
    time.sleep(apart)
    second = Child("run", study.name, cwd=study.parent)
    codes = sorted([first.wait(), second.wait()])
    assert codes == [0, 1], first.said + second.said
    refused = next(child.said for child in (first, second) if "one process at a time" in child.said)
    assert "one process at a time may run a study, but process" in " ".join(refused.split())
    assert "Traceback" not in first.said + second.said
    check_books(study, 1)


@pytest.fixture
def short(tiny_study):
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1"), ("epochs = 4", "epochs = 1"))
    return tiny_study


@pytest.mark.parametrize("apart", [0.0, pytest.param(0.03, marks=pytest.mark.soak)])
def test_one_runs_and_one_is_refused(short, apart):
    two_starts(short, apart)


@pytest.mark.soak
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03, 0.1])
def test_one_runs_and_one_is_refused_every_time(short, apart):
    for _ in range(TIMES):
        two_starts(short, apart)
        shutil.rmtree(short.parent / "outputs")
