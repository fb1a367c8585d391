"""The precision of a study's products: named ones hold on every processor, "auto" takes what it computes natively."""

from pathlib import Path

import pytest
import torch

from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from tests.conftest import DTYPE, autopeft_here, few

CPUINFO = Path("/proc/cpuinfo")


def in_precision(study, dtype):
    study.write_text(study.read_text().replace(f'dtype = "{DTYPE}"', f'dtype = "{dtype}"'))
    return study


def native():
    """Whether this processor says of itself that it multiplies bfloat16."""
    flags = CPUINFO.read_text().split()
    return "avx512_bf16" in flags or "amx_tile" in flags


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", None), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
    ids=["float32", "bfloat16", "float16"],
)
def test_a_precision_that_is_named_is_taken_on_every_processor(tiny_study, dtype, expected):
    problem = Problem.from_spec(StudySpec.from_file(in_precision(tiny_study, dtype)), discover())
    assert problem.device.autocast is expected
    weight = problem.base.module.get_submodule(problem.base.spec.linears[0].name).weight
    assert weight.dtype is (expected or torch.float32)


@pytest.mark.skipif(not CPUINFO.is_file(), reason="this system does not say what its processor can")
def test_auto_takes_what_the_processor_computes_natively(tiny_study):
    problem = Problem.from_spec(StudySpec.from_file(in_precision(tiny_study, "auto")), discover())
    assert problem.device.autocast is (torch.bfloat16 if native() else None)


@pytest.mark.skipif(not CPUINFO.is_file(), reason="this system does not say what its processor can")
@pytest.mark.parametrize("dtype", few(["float32", "bfloat16", "float16"], "bfloat16", "float16"))
def test_a_study_runs_in_every_precision_and_says_where_it_is_emulated(tiny_study, dtype):
    study = in_precision(tiny_study, dtype)
    study.write_text(study.read_text().replace("trials = 4", "trials = 2").replace("epochs = 4", "epochs = 1"))
    done = autopeft_here("run", "study.toml", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert ("does not compute natively" in told) is (dtype == "bfloat16" and not native())
    assert ("which is for GPUs without bfloat16" in told) is (dtype == "float16")
