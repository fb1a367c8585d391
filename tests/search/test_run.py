"""The whole chain, from a study file to a scored winner, through the command line in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import mlflow.pyfunc
import numpy as np
import optuna
import pandas as pd
import pytest
from mlflow import MlflowClient

import autopeft as api
from autopeft.execution.in_process import InProcess
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.search.trial import Trial
from autopeft.study.file import StudySpec
from autopeft.study.folder import JOURNAL
from autopeft.study.journal import open_journal
from autopeft.study.storage import StudyStorage
from autopeft.tracking.address import open_afresh, sqlite_uri
from autopeft.tracking.outbox import Outbox
from autopeft.tracking.sender import KEY
from autopeft.training import cross_validation
from autopeft.training.checkpoint import Checkpoint
from tests.conftest import THREE, autopeft, autopeft_here
from tests.methods.test_registry import FIXTURES, beside, install, write_plugin


def store(folder: Path, uri: str | None = None, study_id: str = "") -> tuple[list, list]:
    """The parent runs and the trial runs in a study's MLflow store, as it is on disk now.

    A connection that this process had kept would still read the store of an output folder that was removed since. In a
    store of several studies, at `uri`, only those of the one with `study_id`.
    """
    own = sqlite_uri(folder / "mlflow.db")
    if uri is None:
        open_afresh(own)
    client = MlflowClient(uri or own)
    experiments = [e.experiment_id for e in client.search_experiments() if e.name != "Default"]
    runs = client.search_runs(experiments, max_results=1000)
    runs = [run for run in runs if run.data.tags.get(KEY, "").startswith(study_id)]
    return (
        [run for run in runs if "mlflow.parentRunId" not in run.data.tags],
        [run for run in runs if "mlflow.parentRunId" in run.data.tags],
    )


def edit(study: Path, *replacements: tuple[str, str], add: str = "") -> None:
    text = study.read_text()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new)
    study.write_text(text + add)


def run_study(study: Path, **options) -> dict:
    start = autopeft if options else autopeft_here
    done = start("run", study.name, "--json", cwd=study.parent, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_study_ends_with_a_scored_winner_and_every_trial_in_mlflow(tiny_study):
    result = run_study(tiny_study, env=os.environ)  # in a process of its own
    output = tiny_study.parent / "outputs" / "tiny"
    trained = [r for r in result["records"] if r["state"] in ("COMPLETE", "PRUNED")]
    assert len(trained) == 4
    assert {r["method"] for r in trained} == {"adapter", "lora", "prefix_tuning"}
    assert {r["leaked"] for r in result["records"]} == {0}
    best = max((r for r in trained if r["state"] == "COMPLETE"), key=lambda r: r["score"])
    assert result["best"]["score"] == best["score"] == pytest.approx(np.mean(best["fold_scores"]))
    assert set(result["test"]["defaults"]) == {"adapter", "lora", "prefix_tuning"}
    assert result["test"]["baseline"] == pytest.approx(1 / 3, abs=0.01)

    parents, trials = store(output)
    assert len(parents) == 1
    assert len(trials) == len(result["records"])
    assert {run.info.status for run in parents + trials} <= {"FINISHED", "FAILED"}
    by_number = {int(run.data.tags["trial"]): run for run in trials}
    for record in result["records"]:
        run = by_number[record["number"]]
        assert run.data.tags["state"] == record["state"]
        assert run.data.params["method"] == record["method"]
        assert run.data.metrics["trainable_params"] == record["trainable_params"]

    winner = api.load(output / "winner")
    rows = pd.read_csv(tiny_study.parent / "rows.csv")
    predicted = winner.predict(rows)
    registered = MlflowClient(result["tracking_uri"]).get_model_version_by_alias("tiny", "winner")
    assert registered.run_id == by_number[result["best"]["number"]].info.run_id
    assert mlflow.pyfunc.load_model(registered.source).predict(rows[["text"]])["label"].tolist() == predicted
    lines = autopeft_here(
        "predict", output / "winner", "--input", tiny_study.parent / "rows.csv", cwd=tiny_study.parent
    )
    assert lines.stdout.splitlines()[0] == "text,label,predicted_label,predicted_probability"
    assert [line.split(",")[2] for line in lines.stdout.splitlines()[1:]] == predicted
    piped = autopeft("predict", output / "winner", "--json", cwd=tiny_study.parent, input="w1 w20 w30\nw2 w9\n")
    assert [json.loads(line)["label"] for line in piped.stdout.splitlines()] == winner.predict(["w1 w20 w30", "w2 w9"])


def test_the_same_file_and_seed_give_the_same_trials_and_a_finished_study_is_not_run_again(tiny_study, tmp_path):
    edit(tiny_study, (THREE, 'methods = ["adapter", "lora"]'), ("trials = 4", "trials = 3"))
    first = run_study(tiny_study)
    report = tiny_study.parent / "outputs" / "tiny" / "report.html"
    written = report.stat().st_mtime_ns
    again = run_study(tiny_study)
    assert report.stat().st_mtime_ns == written, "nothing changed, so nothing is reported anew"
    strip = [{k: v for k, v in r.items() if k not in ("seconds", "measured_memory")} for r in first["records"]]
    assert again["records"] == first["records"]
    assert again["test"] == first["test"]
    (tiny_study.parent / "outputs").rename(tmp_path / "earlier")
    afresh = run_study(tiny_study)
    assert [{k: v for k, v in r.items() if k not in ("seconds", "measured_memory")} for r in afresh["records"]] == strip
    assert {**afresh["test"], "seconds": 0} == {**first["test"], "seconds": 0}


@pytest.mark.exhaustive
def test_nothing_over_the_parameter_budget_is_trained(tiny_study):
    edit(
        tiny_study,
        (THREE, 'methods = ["lora"]'),
        ("trials = 4", "trials = 2"),
        add="[budget]\nmax_trainable_params = 1200\n",
    )
    result = run_study(tiny_study)
    refused = [r for r in result["records"] if r["state"] == "INFEASIBLE"]
    trained = [r for r in result["records"] if r["state"] != "INFEASIBLE"]
    assert len(trained) == 2
    assert all(r["trainable_params"] <= 1200 for r in trained)
    assert refused
    assert all(r["trainable_params"] > 1200 and r["score"] is None and "1,200" in r["reason"] for r in refused)
    _, trials = store(tiny_study.parent / "outputs" / "tiny")
    logged = {int(run.data.tags["trial"]): run for run in trials}
    assert all(logged[r["number"]].data.tags["state"] == "INFEASIBLE" for r in refused)
    study = optuna.load_study(study_name=None, storage=open_journal(tiny_study.parent / "outputs" / "tiny"))
    violations = {t.number: t.constraints["max_trainable_params"] for t in study.trials if t.constraints}
    for record in result["records"]:
        assert violations[record["number"]] == pytest.approx(record["trainable_params"] / 1200 - 1)


@pytest.mark.parametrize(
    ("budget", "words"),
    [("max_trainable_params = 10", "max_trainable_params = 10"), ('max_gpu_memory = "10 KiB"', "10.0 KiB")],
)
def test_a_budget_that_nothing_fits_ends_with_an_explanation_before_training(tiny_study, budget, words):
    edit(tiny_study, add=f"[budget]\n{budget}\n")
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "nothing in the search space fits" in done.stderr
    assert "closest" in done.stderr
    assert words in done.stderr
    assert not (tiny_study.parent / "outputs").exists()


@pytest.mark.exhaustive
def test_mlflow_shows_a_trial_while_it_trains_and_is_left_alone_while_one_is_drawn(tiny_study, monkeypatch):
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 2"))
    output, seen, sent, delivered = tiny_study.parent / "outputs" / "tiny", set(), [], []
    rung, estimated, deliver = Trial.rung, Trial.estimated, Outbox._deliver

    def shown(self, reached):
        deadline = time.monotonic() + 30
        while self.number not in seen and time.monotonic() < deadline:
            seen.update(int(run.data.tags["trial"]) for run in store(output)[1] if run.info.status == "RUNNING")
        return rung(self, reached)

    def quiet(self, usage):
        key = self._open_run().key
        time.sleep(0.5)
        sent.append(key in delivered)
        estimated(self, usage)

    monkeypatch.setattr(Trial, "rung", shown)
    monkeypatch.setattr(Trial, "estimated", quiet)
    monkeypatch.setattr(Outbox, "_deliver", lambda self, call: delivered.append(call["run"]) or deliver(self, call))
    run_study(tiny_study)
    assert seen == {0, 1}
    assert sent == [False, False]


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.exhaustive)])
def test_an_interrupted_study_goes_on_and_keeps_what_finished(tiny_study, how):
    edit(tiny_study, ("trials = 4", "trials = 6"), ("epochs = 4", "epochs = 6"))
    process = subprocess.Popen(
        [sys.executable, "-m", "autopeft", "run", tiny_study.name],
        cwd=tiny_study.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # A parallel test runner ignores Ctrl-C, and a child would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith("[3/6]"):
            break
    time.sleep(0.3)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 1)
    output = tiny_study.parent / "outputs" / "tiny"
    load = {"study_name": "tiny", "storage": open_journal(output)}
    before = [t.user_attrs["record"] for t in optuna.load_study(**load).trials if "record" in t.user_attrs]
    assert len(before) >= 2
    if how == signal.SIGINT:
        assert {run.info.status for runs in store(output) for run in runs} <= {"FINISHED", "KILLED", "FAILED"}

    result = run_study(tiny_study)
    kept = {r["number"]: r for r in result["records"]}
    assert all(
        kept[r["number"]]["score"] == r["score"] and kept[r["number"]]["seconds"] == r["seconds"] for r in before
    )
    assert sum(r["state"] != "INFEASIBLE" for r in result["records"]) == 6
    parents, trials = store(output)
    assert len(parents) == 1
    assert "RUNNING" not in {run.info.status for run in parents + trials}


@pytest.mark.exhaustive
def test_what_cannot_be_written_ends_a_study_and_is_no_fault_of_the_method(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    spec = StudySpec.from_file(tiny_study)
    space = Problem.from_spec(spec, discover()).space
    folder = Checkpoint.of(spec.output, next(iter(space.values())).default().flat).folder
    (folder / "0.safetensors").mkdir(parents=True)  # where a file is to be written
    (spec.output / JOURNAL).touch()
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    (folder / "0.safetensors").rmdir()
    result = run_study(tiny_study)
    assert "FAIL" not in {record["state"] for record in result["records"]}
    assert sum(record["state"] in ("COMPLETE", "PRUNED") for record in result["records"]) == 4


def test_a_trial_that_ended_is_not_trained_again_where_the_process_was_killed_before_its_record(
    tiny_study, monkeypatch
):
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1"))

    def killed(self, outcome):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trial, "end", killed)
        assert autopeft_here("run", tiny_study.name, cwd=tiny_study.parent).returncode == 1
    trained, train = [], cross_validation.train_epoch
    monkeypatch.setattr(cross_validation, "train_epoch", lambda *a: trained.append(1) or train(*a))
    result = run_study(tiny_study)
    assert trained == []
    assert [len(r["fold_scores"]) for r in result["records"]] == [2]
    assert not (tiny_study.parent / "outputs" / "tiny" / "checkpoint").exists()


def test_a_study_in_which_the_machine_ended_a_trial_tries_it_again_at_its_next_start(tiny_study, monkeypatch):
    edit(
        tiny_study, (THREE, 'methods = ["lora"]\nrace = 0'), ("trials = 4", "trials = 2"), ("epochs = 4", "epochs = 1")
    )
    give = InProcess.give

    def lost(backend, trial):
        if trial.number == 0:
            give(backend, trial)
        else:
            trial.lost("a worker process was killed by signal 9", machine=True)

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "give", lost)
        first = run_study(tiny_study)
    assert [(r["state"], r["machine"]) for r in first["records"]] == [("COMPLETE", False), ("FAIL", True)]
    output = tiny_study.parent / "outputs" / "tiny"
    assert not (output / "done.json").exists()
    again = run_study(tiny_study)
    assert "FAIL" not in {r["state"] for r in again["records"]}
    assert len(again["records"]) == 2
    assert (output / "done.json").exists()


def test_an_output_folder_holds_one_study(tiny_study):
    output = tiny_study.parent / "outputs" / "tiny"
    output.mkdir(parents=True)
    optuna.create_study(study_name="another", storage=StudyStorage(output))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert 'holds "another" and not "tiny"; give another `output`' in done.stderr


def test_a_changed_study_file_is_refused_unless_the_change_only_goes_on(tiny_study):
    edit(tiny_study, (THREE, 'methods = ["lora"]'), ("trials = 4", "trials = 1"))
    run_study(tiny_study)
    edit(tiny_study, ("folds = 2", "folds = 3"))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "validation.folds" in done.stderr
    edit(tiny_study, ("folds = 3", "folds = 2"), ("trials = 1", "trials = 2"))
    assert len([r for r in run_study(tiny_study)["records"] if r["state"] != "INFEASIBLE"]) == 2


FAILING = """
from autopeft import hookimpl, PeftMethod, SearchSpace
class Failing(PeftMethod):
    contract = 1
    name = "failing"
    def search_space(self, spec=None):
        return SearchSpace({})
    def apply(self, model, params, spec):
        import torch
        if all(p.device.type != "meta" for p in model.parameters()):
            BODY
        for p in model.get_submodule(spec.layers[0]).parameters():
            p.requires_grad_(True)
        return model
@hookimpl
def register_methods():
    return [Failing()]
"""


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("raise ValueError('a planted fault')", "ValueError: a planted fault"),
        ("[p.data.fill_(float('nan')) for p in model.get_submodule(spec.head[0]).parameters()]", "finite"),
    ],
)
def test_a_failing_trial_does_not_end_the_study(tiny_study, tmp_path, body, reason):
    install(write_plugin(tmp_path, "failing-plugin", "failing", FAILING.replace("BODY", body)), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing", "lora"]'))
    result = run_study(tiny_study, env=beside(tmp_path / "site"))
    failed = [r for r in result["records"] if r["state"] == "FAIL"]
    assert failed
    assert all(r["method"] == "failing" and reason in r["reason"] for r in failed)
    assert result["best"]["state"] == "COMPLETE"
    _, trials = store(tiny_study.parent / "outputs" / "tiny")
    assert {r.info.status for r in trials if r.data.params["method"] == "failing"} == {"FAILED"}


@pytest.mark.exhaustive
def test_a_study_whose_trials_all_fail_alike_stops_and_says_why(tiny_study, tmp_path):
    body = FAILING.replace("BODY", "raise ValueError('a planted fault')")
    install(write_plugin(tmp_path, "failing-plugin", "failing", body), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing"]'), ("trials = 4", "trials = 9"))
    env = beside(tmp_path / "site")
    done = autopeft("run", tiny_study, cwd=tiny_study.parent, env=env)
    assert done.returncode == 1
    assert "a planted fault" in done.stderr
    assert "Traceback" not in done.stderr
    parents, trials = store(tiny_study.parent / "outputs" / "tiny")
    assert len(trials) == 3
    assert parents[0].info.status == "FAILED"


@pytest.mark.exhaustive
def test_a_strangers_method_wins_a_study_and_its_winner_loads(tiny_study, tmp_path):
    install(FIXTURES / "autopeft-oft", tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["oft"]'), ("trials = 4", "trials = 2"))
    result = run_study(tiny_study, env=beside(tmp_path / "site"))
    assert result["best"]["method"] == "oft"
    winner = tiny_study.parent / "outputs" / "tiny" / "winner"
    done = autopeft_here("predict", winner, "--input", "rows.csv", cwd=tiny_study.parent)
    assert len(done.stdout.splitlines()) == 61, "peft loads its own; the plugin need not be there"


@pytest.mark.exhaustive
def test_a_winner_that_peft_does_not_know_needs_its_plugin(tiny_study, tmp_path):
    install(write_plugin(tmp_path, "layer-plugin", "failing", FAILING.replace("BODY", "pass")), tmp_path / "site")
    edit(tiny_study, (THREE, 'methods = ["failing"]'), ("trials = 4", "trials = 1"))
    env = beside(tmp_path / "site")
    run_study(tiny_study, env=env)
    winner = tiny_study.parent / "outputs" / "tiny" / "winner"
    done = autopeft("predict", winner, "--input", "rows.csv", cwd=tiny_study.parent, env=env)
    assert len(done.stdout.splitlines()) == 61
    without = autopeft_here("predict", winner, "--input", "rows.csv", cwd=tiny_study.parent)
    assert without.returncode == 2
    assert '"failing"' in without.stderr


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        (('"rows.csv"', '"nowhere.csv"'), ["nowhere.csv"]),
        (('"text-classification"', '"text-clasification"'), ["text-clasification", "text-classification"]),
        (('"model"', '"rows.csv"'), ["rows.csv", "model"]),
        (("trials = 4", "trails = 4"), ["trails", "trials"]),
        (("trials = 4", "trials = 0"), ["trials", "at least 1", "0"]),
        ((THREE, 'methods = ["loar"]'), ["loar", "lora"]),
        (("trials = 4", "lora.rank = 4"), ["rank", "lora"]),
        (("folds = 2", 'metric = "acuracy"'), ["acuracy", "accuracy"]),
        (("folds = 2", "fold = 2"), ["fold", "folds"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(tiny_study, replacement, words):
    edit(tiny_study, replacement)
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tiny_study.parent / "outputs").exists()


def test_a_method_that_cannot_do_the_model_says_why(tiny_study, tmp_path):
    from tests.tiny_models import tiny

    target = tmp_path / "deberta"
    tiny("deberta-v2").save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((tiny_study.parent / "model" / name).read_bytes())
    edit(tiny_study, ('"model"', '"deberta"'), (THREE, 'methods = ["prefix_tuning"]'))
    done = autopeft_here("run", tiny_study, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "attention interface" in done.stderr
    edit(tiny_study, ('methods = ["prefix_tuning"]\n', ""))
    space = Problem.from_spec(StudySpec.from_file(tiny_study), discover()).space
    assert set(space) == set(discover().methods) - {"prefix_tuning", "fusion", "merged", "stacked"}


@pytest.mark.exhaustive
def test_a_text_pair_study(tiny_study):
    frame = pd.read_csv(tiny_study.parent / "rows.csv")
    frame["text_pair"] = frame["text"].str.split().str[::-1].str.join(" ")
    frame.to_csv(tiny_study.parent / "rows.csv", index=False)
    edit(tiny_study, ("text-classification", "text-pair-classification"), ("trials = 4", "trials = 2"))
    run_study(tiny_study)
    winner = api.load(tiny_study.parent / "outputs" / "tiny" / "winner")
    assert winner.inputs == ("text", "text_pair")
    assert winner.predict_proba(frame).shape == (60, 3)


@pytest.mark.parametrize("arguments", [["--help"], ["methods"]])
def test_the_light_commands_import_no_torch(arguments, tmp_path):
    code = (
        f"import sys; from autopeft.cli.app import main; sys.argv = ['autopeft', *{arguments!r}]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'optuna'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, capture_output=True)


HUNGRY = """
import autopeft
class Hungry(autopeft.PeftMethod):
    contract = 1
    name = "hungry"
    def search_space(self, spec=None):
        return autopeft.SearchSpace({"size": autopeft.Integer(low=1, high=100, default=1)})
    def apply(self, model, params, spec):
        import torch
        steps = []
        def eat(module, inputs):
            if model.training and not hasattr(inputs[0], "fake_mode") and inputs[0].device.type != "meta":
                steps.append(1)
                if len(steps) > 2:
                    model.food = torch.zeros(40, 2**20)
        layer = model.get_submodule(spec.layers[0])
        for module in layer.modules():
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(True)
        model.get_input_embeddings().register_forward_pre_hook(eat)
        return model
@autopeft.hookimpl
def register_methods():
    return [Hungry()]
"""


@pytest.mark.exhaustive
def test_a_trial_that_runs_out_of_memory_is_retried_once_recorded_and_paid_by_its_method_alone(tiny_study, tmp_path):
    install(write_plugin(tmp_path, "hungry-plugin", "hungry", HUNGRY), tmp_path / "site")
    edit(
        tiny_study,
        ("trials = 4", "trials = 6"),
        ('"lora"', '"hungry", "lora"'),
        add='[budget]\nmax_gpu_memory = "100 MiB"\n',
    )
    result = run_study(tiny_study, env=beside(tmp_path / "site"))
    hungry = [r for r in result["records"] if r["method"] == "hungry"]
    failed = [r for r in hungry if r["state"] == "FAIL"]
    assert len(failed) == 1
    assert "out of memory with micro-batches of 4" in failed[0]["reason"]  # the second try, half the whole batch
    assert "over max_gpu_memory = 100.0 MiB" in failed[0]["reason"]
    assert failed[0]["measured_memory"] > 100 * 2**20 > failed[0]["predicted_memory"]
    assert all(r["state"] == "INFEASIBLE" for r in hungry if r["number"] > failed[0]["number"])
    for record in result["records"]:
        if record["state"] == "COMPLETE":
            assert record["measured_memory"] <= record["predicted_memory"] * 1.02
