"""The precision of a study's products: named ones hold on every processor, "auto" takes what it computes natively."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from autopeft.common.exceptions import SpecError
from autopeft.execution import base_loader, precision
from autopeft.execution.precision import settle
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.models import device
from autopeft.search import resume, run
from autopeft.study.file import StudySpec
from autopeft.tasks import study_rows
from autopeft.training.packing_check import seconds_of
from tests.conftest import DTYPE, autopeft_here, few
from tests.tasks.test_causal_lm import conversations
from tests.tiny_language_models import language_model

CPUINFO = Path("/proc/cpuinfo")


def in_precision(study, dtype, before=DTYPE):
    study.write_text(study.read_text().replace(f'dtype = "{before}"', f'dtype = "{dtype}"'))
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


@pytest.mark.exhaustive
@pytest.mark.skipif(not CPUINFO.is_file(), reason="this system does not say what its processor can")
@pytest.mark.parametrize("dtype", few(["float32", "bfloat16", "float16"], "bfloat16"))
def test_a_study_runs_in_every_precision_and_says_where_it_is_emulated(tiny_study, dtype):
    study = in_precision(tiny_study, dtype)
    study.write_text(study.read_text().replace("trials = 4", "trials = 2").replace("epochs = 4", "epochs = 1"))
    done = autopeft_here("run", "study.toml", cwd=study.parent)
    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert ("does not compute natively" in told) is (dtype == "bfloat16" and not native())
    assert ("which is for GPUs without bfloat16" in told) is (dtype == "float16")


@pytest.fixture
def timed(monkeypatch):
    """A processor with bfloat16, on which every step that is timed runs, and takes what the test says."""

    def of(*seconds):
        told = iter(seconds)
        monkeypatch.setattr(device, "supports_bfloat16", lambda kind: True)
        monkeypatch.setattr(precision, "seconds_of", lambda step: seconds_of(step, times=1) and next(told))

    return of


@pytest.mark.parametrize(("plain", "chosen"), [(1.2, "bfloat16"), (1.05, "float32"), (0.5, "float32")])
def test_auto_takes_bfloat16_where_a_measured_step_is_faster_by_it(tiny_study, timed, plain, chosen):
    timed(1.0, plain)
    problem, told = settle(StudySpec.from_file(in_precision(tiny_study, "auto")), discover())
    lowered = torch.bfloat16 if chosen == "bfloat16" else None
    assert problem.device.autocast is lowered
    assert problem.base.module.get_submodule(problem.base.spec.linears[0].name).weight.dtype is (
        lowered or torch.float32
    )
    assert problem.spec.model.dtype == chosen, "workers and a later start read it there"
    assert f"takes 1,000.0 ms in bfloat16 and {1000 * plain:,.1f} ms in float32" in told
    assert told.endswith(f'`dtype = "auto"` is {chosen} for this study.')
    assert problem.weight_check.restore() == [], "a step that is timed leaves the base model as it is"


def test_what_was_read_for_bfloat16_is_what_float32_starts_from(tiny_study, timed, monkeypatch):
    timed(1.0, 1.0)
    read = []
    for module, name in ((study_rows, "load_rows"), (base_loader, "load_base")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _real=real, _name=name, **k: read.append(_name) or _real(*a, **k))
    found, _ = settle(StudySpec.from_file(in_precision(tiny_study, "auto")), discover())
    assert read == ["load_rows", "load_base"]
    assert found.base.whole == {}
    check_alike(found, Problem.from_spec(StudySpec.from_file(in_precision(tiny_study, "float32", "auto")), discover()))


def check_alike(found, straight):
    wanted = dict(straight.base.module.named_parameters())
    for name, parameter in found.base.module.named_parameters():
        assert parameter.dtype is torch.float32
        assert torch.equal(parameter, wanted[name]), name
    assert len(wanted) == len([*found.base.module.parameters()])
    assert (found.task.facts, found.rows.fingerprint) == (straight.task.facts, straight.rows.fingerprint)
    assert found.rows.notes == straight.rows.notes
    candidate = [one.space[next(iter(one.space))].default() for one in (found, straight)]
    usage = [one.cost_estimator(mine) for one, mine in zip((found, straight), candidate, strict=True)]
    assert usage[0].memory.peak == usage[1].memory.peak
    assert found.weight_check.restore() == []


def test_a_task_that_changed_the_model_finds_it_as_it_was(tmp_path, timed):
    language_model(tmp_path / "gpt2", "gpt2")
    pd.DataFrame({"messages": conversations()}).to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    content = {"name": "s", "task": {"kind": "causal-lm", "template": "plain"}, "data": {"train": "rows.jsonl"}}
    content["search"] = {"methods": ["lora"]}
    made = []
    for dtype in ("auto", "float32"):
        timed(1.0, 1.0)
        model = {"name_or_path": "gpt2", "dtype": dtype}
        made.append(settle(StudySpec.from_mapping({**content, "model": model}, folder=tmp_path), discover())[0])
    check_alike(*made)
    scores = [run_trial(one, one.space["lora"].default(), lambda rung: None).score for one in made]
    assert scores[0] == scores[1]


def test_a_method_whose_step_fails_does_not_keep_a_study_from_its_start(tiny_study, timed, monkeypatch):
    timed()
    monkeypatch.setattr(precision, "attach", lambda *args, **kwargs: 1 / 0)
    problem, told = settle(StudySpec.from_file(in_precision(tiny_study, "auto")), discover())
    assert problem.spec.model.dtype == "bfloat16"
    assert "no step could be timed (ZeroDivisionError" in told


def test_a_study_that_goes_on_keeps_the_precision_it_was_begun_in(tiny_study, timed, monkeypatch):
    spec = StudySpec.from_file(in_precision(tiny_study, "auto"))
    timed(1.0, 2.0)
    run._open(settle(spec, discover())[0], print)
    monkeypatch.undo()
    again, told = settle(resume.as_begun(spec), discover())
    assert again.device.autocast is torch.bfloat16
    assert not told, "nothing is measured twice"
    run._open(again, print)
    other = StudySpec.from_file(in_precision(tiny_study, "float32", before="auto"))
    with pytest.raises(SpecError, match=r"began with other settings: .*dtype"):
        run._open(settle(resume.as_begun(other), discover())[0], print)


def test_a_study_begun_before_the_choice_was_kept_goes_on_as_it_was(tiny_study):
    problem, _ = settle(StudySpec.from_file(in_precision(tiny_study, "auto")), discover())
    now = resume.given(problem)
    resume.check({**now, "model": {**now["model"], "dtype": "auto"}}, now, problem.spec)
