"""Bad plugins, really installed: each ends in one clear message, and the study goes on without it."""

from __future__ import annotations

import gc
import json
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import torch
from mlflow import MlflowClient
from torch import nn

from autopeft import PeftMethod, SearchSpace
from autopeft.common.containment import guarded, heartbeat, paused
from autopeft.common.exceptions import HangError, PluginError, StoreError, StudyError
from autopeft.execution.leak_check import LeakCheck
from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.execution.weight_check import WeightCheck
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.models.base import BaseModel
from autopeft.study.file import StudySpec
from autopeft.study.states import COMPLETE
from autopeft.training.checkpoint import Checkpoint
from tests.conftest import THREE, autopeft_here
from tests.methods.test_registry import install, write_plugin
from tests.tiny_models import tiny, tiny_base

if TYPE_CHECKING:
    from pathlib import Path

METHOD = """
import time
import autopeft

class Method(autopeft.PeftMethod):
    contract = 1
    name = "{name}"
    kept = []

    def search_space(self, spec=None):
        return autopeft.SearchSpace({{"size": autopeft.Integer(low=1, high=8, default=4)}})

    def apply(self, model, params, spec):
        import torch
        real = not next(model.parameters()).is_meta
        layer = model.get_submodule(spec.layers[-1])
        for parameter in layer.parameters():
            if parameter.ndim == 1:
                parameter.requires_grad_(True)
        {body}
        return model

@autopeft.hookimpl
def register_methods():
    return [Method()]
"""


def body(name: str, text: str = "pass") -> str:
    return METHOD.format(name=name, body=text)


HANG = """if real:
            while True:
                try:
                    time.sleep(0.01)
                except Exception:
                    pass"""
LEAK = """if real:
            self.kept.append((model, torch.zeros(2 * 2**20)))"""
WRITE = """if real:
            query = layer.get_submodule("attention.self.query")
            layer.register_forward_pre_hook(lambda module, args: query.weight.data.add_(1e-4))"""

BAD = {
    "bad_import": ("raise RuntimeError('planted: no import')", "RuntimeError: planted: no import"),
    "bad_dependency": ("import a_package_that_is_not_there", "install what the plugin needs"),
    "bad_signature": (body("bad_signature").replace("params, spec", "params"), "Method.apply() must take"),
    "bad_clash": (body("adapter"), 'two plugins bring the method "adapter"'),
    "bad_space": (
        body("bad_space").replace("return autopeft", "assert not spec, 'planted'; return autopeft"),
        "its plugin is at fault, {origin}: AssertionError: planted",
    ),
    "bad_model": (
        body("bad_model").replace("return model", "return torch.nn.Linear(2, 2)"),
        'its plugin is at fault, {origin}: method "bad_model": apply() must return the model it was given',
    ),
    "bad_apply": (
        body("bad_apply", "assert not real, 'planted fault'"),
        "left out of the rest of the search. {origin}: {alike}: AssertionError: planted fault",
    ),
    "bad_hang": (body("bad_hang", HANG), "{origin}: {alike}: it made no progress for 4.0 s"),
    "bad_leak": (body("bad_leak", LEAK), "{origin}: it kept 8.0 MiB of tensors in memory after its trial"),
    "bad_write": (
        body("bad_write", WRITE),
        "{origin}: {alike}: the method changed weights of the base model, which all trials share: bert.",
    ),
}  # fmt: skip
"""A body for each bad plugin, with a part of the message about it."""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Where ten bad plugins are installed."""
    folder = tmp_path_factory.mktemp("bad")
    sources = [write_plugin(folder, name.replace("_", "-"), name, text) for name, (text, _) in BAD.items()]
    install(sources[0], folder / "site", *sources[1:])
    return folder / "site"


def exclude(study: Path, *more: str) -> None:
    """Leave out all of ours but one, and `more`."""
    ours = [name for name, origin in discover().origins.items() if origin.distribution == "autopeft"]
    names = [name for name in ours if name != "adapter"]
    text = study.read_text().replace(THREE, f"exclude = {json.dumps([*names, *more])}")
    study.write_text(text.replace("trials = 4\nepochs = 4", 'trials = 17\nepochs = 1\nhang_timeout = "4s"'))


def test_ten_bad_plugins_end_in_ten_messages_and_the_study_in_a_winner(tiny_study, site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    exclude(tiny_study)
    done = autopeft_here("run", "study.toml", "--json", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    alike = "its 3 trials all failed for the same reason"
    for name, (_, words) in BAD.items():
        origin = f"{name.replace('_', '-')} 1.2.3 (entry point '{name}')"
        (message,) = [line for line in done.stderr.splitlines() if origin in line and "if it does so again" not in line]
        assert words.format(origin=origin, alike=alike) in message
    records = json.loads(done.stdout)["records"]
    assert {r["method"] for r in records if r["state"] == "COMPLETE"} == {"adapter", "bad_leak"}
    assert {r["method"] for r in records if r["leaked"]} == {"bad_leak"}
    refused = [r for r in records if r["state"] == "INFEASIBLE"]
    assert refused
    assert all(r["reason"] == f"{r['method']} was left out" for r in refused)


def test_a_plugin_that_is_excluded_or_blocked_is_in_nobodys_way(tiny_study, site, monkeypatch):
    monkeypatch.syspath_prepend(site)
    exclude(tiny_study, *BAD)
    done = autopeft_here("plan", "study.toml", "--json", cwd=tiny_study.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert [entry["name"] for entry in json.loads(done.stdout)["methods"]] == ["adapter"]
    blocked = discover(BAD)
    assert blocked.faults == ()
    assert not set(BAD) & set(blocked.methods)


class Resting(PeftMethod):
    """Trains the last layer's vectors."""

    contract = 1
    name = "resting"

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        for parameter in model.get_submodule(spec.layers[-1]).parameters():
            parameter.requires_grad_(parameter.ndim == 1)
        return model


def test_what_apply_asked_of_shared_weights_is_undone_though_it_fails():
    class Failing(Resting):
        def apply(self, model, params, spec):
            model.requires_grad_(True)
            raise ValueError("planted")

    base = tiny_base("bert")
    for meta in (False, True):
        with pytest.raises(ValueError, match="planted"):
            attach(base, Failing(), {}, meta=meta)
        assert not any(p.requires_grad for p in (base.skeleton if meta else base.module).parameters())


def test_a_model_may_not_train_what_another_one_trains():
    class Hoarding(Resting):
        def apply(self, model, params, spec):
            self.scale = getattr(self, "scale", None) or nn.Linear(32, 32)
            model.get_submodule(spec.layers[0]).more = self.scale
            return model

    method = Hoarding()
    attach(tiny_base("bert"), method, {})
    with pytest.raises(PluginError, match=r"create new parameters each time, but bert\.encoder\.layer\.0\.more"):
        attach(tiny_base("bert"), method, {})


@pytest.mark.parametrize(
    "harm",
    [
        lambda p: p.data.view(-1)[0].mul_(-1.0),
        lambda p: p.data.add_(1e-8),
        lambda p: setattr(p, "data", p.data.half()),
        lambda p: setattr(p, "data", p.data[1:]),
        lambda p: p.requires_grad_(True),
    ],
)
def test_whatever_was_done_to_the_base_model_is_seen_and_undone(harm):
    base, kept = (BaseModel(tiny("bert"), None, tiny_base("bert").spec) for _ in range(2))
    weight_check = WeightCheck(base, lambda: BaseModel(tiny("bert"), None, kept.spec))
    assert weight_check.restore() == []
    name = "bert.encoder.layer.1.output.dense.bias"
    harm(base.module.get_parameter(name))
    assert weight_check.restore() == [name]
    weight_check.check()
    restored = dict(base.module.named_parameters())
    assert all(
        torch.equal(p, restored[name]) and not restored[name].requires_grad
        for name, p in kept.module.named_parameters()
    )


def test_a_base_model_that_cannot_be_put_back_ends_the_study():
    base = BaseModel(tiny("bert"), None, tiny_base("bert").spec)
    weight_check = WeightCheck(base, lambda: BaseModel(tiny("bert", seed=1), None, base.spec))
    base.module.get_parameter("classifier.weight").data += 1
    assert weight_check.restore() == ["classifier.weight"]
    with pytest.raises(
        StudyError, match=r"classifier.weight could not be restored \(ValueError: the model's files hold"
    ):
        weight_check.check()


def test_what_outlives_a_trial_is_found():
    gc.unfreeze()  # what pytest_collection_finish froze
    kept = []
    with LeakCheck() as leak_check:
        attach(tiny_base("bert"), Resting(), {})
        attach(tiny_base("bert"), Resting(), {}, meta=True)
        kept.append(torch.zeros(1000))
        assert leak_check.since() == 0, "small things are nobody's concern"
        kept.append(torch.zeros(2**20)[1:])
        assert leak_check.since() == 4 * 2**20
        assert leak_check.since() == 0, "it is counted once"
        kept.append(attach(tiny_base("bert"), Resting(), {}))
        assert 0 < leak_check.since() < 2**20, "a model is never to be kept"
        kept.append(torch.zeros(2**22, device="meta"))
        assert leak_check.since() == 0
    assert gc.get_freeze_count() == 0


def test_code_that_hangs_is_interrupted_though_it_catches_every_exception():
    def hang():
        while True:
            with suppress(Exception):
                time.sleep(5)

    started = time.monotonic()
    with pytest.raises(HangError, match=r"no progress for 0\.2 s"), guarded(0.2):
        hang()
    assert time.monotonic() - started < 3
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL


def test_signs_of_life_and_the_hosts_own_work_put_the_alarm_off():
    with guarded(0.4):
        for _ in range(4):
            time.sleep(0.2)
            heartbeat()
        with paused():
            time.sleep(0.6)
        with guarded(0.01):  # the outer one counts
            time.sleep(0.1)
    with pytest.raises(PluginError, match="tried to end the process"), guarded(1):
        sys.exit(3)


@pytest.mark.exhaustive
def test_where_the_winner_cannot_be_saved_the_best_of_another_method_takes_its_place(tiny_study, tmp_path, monkeypatch):
    text = body("unsaved").replace(
        "@autopeft", "    def save(self, model):\n"
        "        assert next(model.parameters()).is_meta, 'planted'\n"
        "        return {n: p for n, p in model.named_parameters() if p.requires_grad}\n\n@autopeft",
    )  # fmt: skip
    install(write_plugin(tmp_path, "unsaved-plugin", "unsaved", text), tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    study = tiny_study.read_text().replace(THREE, 'methods = ["unsaved", "adapter"]\nadapter.reduction_factor = 2')
    # Nothing is learnt, so all score alike, and what trains fewer parameters is first.
    tiny_study.write_text(study.replace("trials = 4\nepochs = 4", "trials = 2\nepochs = 1").replace("0.02", "1e-9"))
    done = autopeft_here("run", "study.toml", cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    shown = " ".join(done.stdout.split())
    assert "cannot be the winner. unsaved-plugin 1.2.3 (entry point 'unsaved'): AssertionError: planted" in shown
    assert "winner: adapter" in shown
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=tiny_study.parent).stdout)
    assert (report["state"], report["winner"]["method"]) == ("finished", "adapter")
    assert report["test"]["scores"][0]["interval"]
    assert re.match(r"Trial \d, adapter .*, has a mean accuracy of", report["headline"][0])
    assert re.match(
        r"Trial \d \(unsaved.*\) came first, but could not be .*: AssertionError: planted\.", report["headline"][1]
    )
    assert not any("No other method" in told for told in report["headline"])
    client = MlflowClient(f"sqlite:///{tiny_study.parent}/outputs/tiny/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'tiny'")
    runs = client.search_runs([experiment.experiment_id], "tags.`autopeft.role` = 'trial'")
    reasons = {one.data.tags["method"]: one.data.tags["reason"].split("; ") for one in runs}
    assert reasons["adapter"][0] == "won"
    assert reasons["unsaved"][0] == "could not be the winner: AssertionError: planted"
    assert all("2 of 2 folds collapsed" in told for told in reasons.values())
    again = autopeft_here("run", "study.toml", cwd=tiny_study.parent)
    assert "cannot be the winner" not in again.stdout, "a finished study only shows its result"
    shutil.rmtree(tiny_study.parent / "outputs" / "tiny" / "winner")
    again = autopeft_here("run", "study.toml", cwd=tiny_study.parent)
    assert "cannot be the winner" in again.stdout, "it may have been put right"
    assert "winner: adapter" in " ".join(again.stdout.split())


@pytest.mark.exhaustive
@pytest.mark.parametrize("error", [OSError("the log is on a full disk"), SystemExit(1), StoreError("a full disk")])
def test_what_the_study_itself_raises_at_a_rung_is_no_failure_of_the_method(tiny_study, monkeypatch, error):
    monkeypatch.chdir(tiny_study.parent)
    problem = Problem.from_spec(StudySpec.from_file(tiny_study), discover())
    candidate = problem.space["lora"].default()
    checkpoint = Checkpoint.of(problem.spec.output, candidate.flat)

    def stop(rung):
        raise error

    with pytest.raises(type(error)) as raised:
        run_trial(problem, candidate, stop, checkpoint)
    assert raised.value is error
    assert any(checkpoint.folder.iterdir()), "the next start goes on with it"
    assert run_trial(problem, candidate, lambda rung: None, checkpoint).state == COMPLETE
    assert any(checkpoint.folder.iterdir()), "until the outcome is kept"
