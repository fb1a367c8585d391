"""A process that runs many trials does not grow with them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "resident_memory.py"


@pytest.mark.soak
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_after_forty_trials_a_process_takes_what_it_took_after_ten(dtype):
    command = [sys.executable, str(SCRIPT), "--one", dtype, "--trials", "40"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    taken, _ = json.loads(done.stdout.splitlines()[-1])
    assert len(taken) == 40
    assert taken[39] < 1.05 * taken[9]
