"""The report, of studies in a real Optuna store: some with records made by hand, one that was run."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from html.parser import HTMLParser

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from rich.console import Console
from sklearn.metrics import precision_recall_fscore_support

from autopeft.common.exceptions import UserInputError
from autopeft.reporting import draw, gather, page, terminal
from autopeft.study import archive
from autopeft.study.folder import EARLIER_LOCK, JOURNAL, OUTBOX, PREDICTIONS
from autopeft.study.journal import open_journal
from autopeft.study.predictions import HeldOut
from autopeft.study.record import TrialRecord
from tests.conftest import autopeft_here, write_tiny_study

GIVEN = {
    "name": "made",
    "seed": 0,
    "model": {"name_or_path": "model"},
    "task": {"kind": "text-classification"},
    "search": {"trials": 6},
    "validation": {"folds": 3, "metric": "accuracy"},
    "budget": {
        "max_trainable_params": 0.01, "max_gpu_memory": 2**30, "max_saved_size": None, "max_trial_seconds": None,
    },
}  # fmt: skip


def record(number, method="lora", state="COMPLETE", folds=(0.70, 0.71, 0.72), size=1000, epochs=4, **more):
    curve = () if not folds else (0.5, 0.6, 0.65, sum(folds) / 3) if state == "COMPLETE" else (sum(folds) / 3,)
    ends = (0.5, 1.0, 2.0, 4.0)[: len(curve)]
    content = {
        "number": number, "name": f"{method} r={number}", "method": method, "state": state, "reason": "",
        "score": curve[-1] if curve else None, "fold_scores": folds, "curve": curve, "epochs": epochs,
        "epochs_trained": ends[-1] if ends else 0.0, "rung_epochs": ends,
        "trainable_params": size, "saved_params": size, "saved_bytes": 4 * size,
        "predicted_memory": 2**20, "measured_memory": 2**20 + number, "seconds": 10.0,
    }  # fmt: skip
    return TrialRecord(**{**content, **more})


def store(output, found, *, defaults=(), constraints=None, params=None, given=GIVEN, waiting=0, **attrs):
    """Write a study as a search leaves it."""
    output.mkdir(parents=True, exist_ok=True)
    (output / JOURNAL).touch()
    study = optuna.create_study(
        study_name="made", storage=open_journal(output), direction="maximize", load_if_exists=True
    )
    study.set_user_attr("given", given)
    for key, value in attrs.items():
        study.set_user_attr(key, value)
    states = {"COMPLETE": TrialState.COMPLETE, "FAIL": TrialState.FAIL}
    for entry in found:
        fixed = {"fixed_params": {"method": entry.method}} if entry.number in defaults else {}
        values, distributions = (params or (lambda _: ({}, {})))(entry)
        study.add_trial(
            create_trial(
                state=states.get(entry.state, TrialState.PRUNED),
                value=entry.score if entry.state == "COMPLETE" else None,
                params=values,
                distributions=distributions,
                system_attrs=fixed,
                user_attrs={"record": asdict(entry)},
                constraints=(constraints or {}).get(entry.number),
            )
        )
    for _ in range(waiting):
        study.enqueue_trial({"method": "lora"})
    return output


@contextmanager
def running(output):
    """Another process runs the study, as far as anybody can tell; gives its id."""
    code = (
        "import sys, pathlib; from autopeft.study.lock import held\n"
        "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.stdin.close()


class Page(HTMLParser):
    """What a browser would load or run, and what a reader who sees no picture has."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.outside, self.pictures, self.words = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        given = dict(attrs)
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            if name in given and not given[name].startswith(("#", "data:")):
                self.outside.append((tag, given[name]))
        if given.get("role") == "img":
            self.pictures.append(given["aria-label"])

    def handle_data(self, data):
        self.words.append(data)


def check_page(report):
    """The page stands alone, and every picture says in words what it shows."""
    plots = draw(report)
    text = page.render(report, plots)
    parsed = Page(text)
    assert parsed.outside == []
    assert not parsed.tags & {"script", "iframe", "object", "embed", "form"}
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert "default-src 'none'" in text
    assert len(parsed.pictures) == text.count("<svg") == len(plots)
    assert all(len(alt) > 30 for alt in parsed.pictures)
    ids = re.findall(r'<[^>]* id="([^"]+)"', text)
    figures = [name for name in ids if re.fullmatch(r"\w+_[a-z]+_\d+", name)]
    assert len(figures) == len(set(figures))
    return text


def shown(report) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(terminal.show(report))
    return console.file.getvalue()


def test_a_lead_within_the_noise_is_said_to_be_no_finding(tmp_path):
    found = [record(0), record(1, "adapter", folds=(0.74, 0.70, 0.70)), record(2, folds=(0.6, 0.6, 0.6))]
    report = gather(store(tmp_path, found, defaults=(1, 2)))
    assert report.winner.number == 1
    pairs = [(c.ahead.number, c.behind.number) for c in report.comparisons]
    assert pairs == [(1, 0), (1, 2)]  # the best of each, and the default that is nobody's best
    assert not report.comparisons[0].real
    assert "leads the best of lora (trial 0) by 0.0033: inconclusive (95% interval" in " ".join(report.headline)
    assert "does not settle which method is better: lora may do as well" in " ".join(report.headline)
    assert report.comparisons[0].ahead.default
    assert "(its default, trial 1)" in report.comparisons[0].verdict
    assert "the default of lora (trial 2)" in report.comparisons[1].verdict
    assert "inconclusive" in shown(report)
    check_page(report)


def test_a_lead_beyond_the_noise_is_said_to_be_real(tmp_path):
    found = [record(0, folds=(0.700, 0.710, 0.705)), record(1, "adapter", folds=(0.801, 0.809, 0.806))]
    report = gather(store(tmp_path, found))
    assert report.comparisons[0].real
    assert "leads the best of lora (trial 0) by 0.1003: significant" in " ".join(report.headline)
    assert "better than every other here" in " ".join(report.headline)


def test_of_several_comparisons_intervals_and_p_values_agree(tmp_path):
    folds = {"a": (0.800, 0.830, 0.805), "b": (0.750, 0.758, 0.746), "c": (0.79, 0.81, 0.81), "d": (0.78, 0.80, 0.79)}
    found = [record(number, method, folds=of) for number, (method, of) in enumerate(folds.items())]
    compared = gather(store(tmp_path, found)).comparisons
    assert len(compared) == 6
    assert {one.real for one in compared} == {True, False}
    assert all(one.real == (one.difference.low > 0) for one in compared)
    assert (
        "and this many comparisons, it would take a lead above" in next(one for one in compared if not one.real).verdict
    )


def test_the_simplest_choice_trains_less_and_is_within_one_standard_error(tmp_path):
    found = [record(0, folds=(0.70, 0.72, 0.74), size=1000), record(1, folds=(0.70, 0.71, 0.73), size=100)]
    simplest = gather(store(tmp_path, found)).simplest
    assert (simplest.best, simplest.number) == (0, 1)
    assert simplest.error == pytest.approx(0.02 / 3**0.5)
    assert "10% of the winner's 1,000" in simplest.verdict


def test_the_fronts_hold_what_no_other_beats_and_leave_out_what_is_not_known(tmp_path):
    found = [
        record(0, folds=(0.7, 0.7, 0.7), size=100, seconds=30.0),
        record(1, folds=(0.8, 0.8, 0.8), size=200, seconds=20.0, saved_bytes=None),
        record(2, folds=(0.75, 0.75, 0.75), size=300, seconds=10.0),
        record(3, state="PRUNED", folds=(0.9, 0.9, 0.9), size=1),
    ]
    fronts = {front.cost: front for front in gather(store(tmp_path, found)).fronts}
    assert fronts["trained parameters"].best == [0, 1]
    assert fronts["time of the trial"].best == [2, 1]
    assert fronts["saved size"].best == [0, 2]
    assert {point.number for point in fronts["saved size"].points} == {0, 2}


def test_the_budget_is_told_by_limit_with_how_near_the_admitted_came(tmp_path):
    refused = record(2, "adapter", "INFEASIBLE", (), 3000, seconds=0.5)
    found = [record(0, size=500), record(1, state="PRUNED", size=900), refused]
    limits = {
        0: {"max_trainable_params": -0.5, "max_gpu_memory": -0.2},
        1: {"max_trainable_params": -0.1, "max_gpu_memory": -0.6},
        2: {"max_trainable_params": 2.0},
    }
    report = gather(store(tmp_path, found, constraints=limits, rows={"train": 300, "test": 60}))
    params, memory = report.budget.limits
    assert (params.limit, params.value, params.refused) == ("max_trainable_params", "1,000", 1)
    assert params.closest == pytest.approx(0.9)
    assert params.refused_shares == pytest.approx([3.0])
    assert (memory.value, memory.refused, memory.closest) == ("1.0 GiB", 0, pytest.approx(0.8))
    assert "refused 1 of 3 proposals (33%): 1 by max_trainable_params" in report.budget.verdict
    assert report.budget.refused_by_method == {"adapter": 1}
    assert report.cost.seconds == {"complete": 10.0, "pruned": 10.0, "failed": 0.0, "refused": 0.5}
    assert (report.cost.epochs, report.cost.spared) == (4.5, 3.5)
    assert report.cost.samples_spared == 3.5 * 300 * 2  # in 3 folds each row trains twice
    check_page(report)


def test_memory_that_workers_share_is_said_to_be_shared(tmp_path):
    given = {**GIVEN, "search": {"trials": 6, "workers": 2}}
    limits = {0: {"max_gpu_memory": -0.2}}
    report = gather(store(tmp_path, [record(0)], constraints=limits, given=given))
    assert report.budget.limits[0].value == "1.0 GiB shared by the workers on a device"


def test_without_a_limit_nothing_is_said_to_be_refused(tmp_path):
    given = {**GIVEN, "budget": dict.fromkeys(GIVEN["budget"])}
    report = gather(store(tmp_path, [record(0)], given=given))
    assert report.budget.verdict == "No limit was set, so the budget refused nothing."
    check_page(report)


@pytest.mark.parametrize(
    "found",
    [
        [],
        [record(0, state="PRUNED")],
        [record(0, state="FAIL", folds=()), record(1, state="INFEASIBLE", folds=())],
    ],
)
def test_a_study_without_a_complete_trial_says_so(tmp_path, found):
    report = gather(store(tmp_path, found))
    assert report.winner is report.simplest is report.test is None
    assert (report.comparisons, report.fronts) == ([], [])
    assert "there is no winner" in report.headline[-1]
    assert "there is no winner" in shown(report)
    assert "there is no winner" in check_page(report)
    json.dumps(report.as_json(), allow_nan=False)


def test_a_study_that_runs_or_was_interrupted_says_so(tmp_path):
    output = store(tmp_path, [record(0)])
    with running(output):
        report = gather(output)
        assert report.state == "running"
        assert "is still running: 1 of 6 trials have ended" in report.headline[0]
        assert report.main[0].startswith("lora leads after 1 of 6 trials: ")
        assert gather(output, ended=True).state == "finished"
    report = gather(output)
    assert report.state == "interrupted"
    assert "run it again to go on" in report.headline[0]
    assert f"{OUTBOX}.lock" == EARLIER_LOCK


def test_a_study_is_finished_once_its_best_trial_was_crowned_and_nothing_was_cut_off(tmp_path):
    scores = {"number": 0, "scores": {"winner": 0.7, "baseline": 0.4, "defaults": {"lora": None}, "notes": {}}}
    output = store(tmp_path, [record(0)], test_scores=scores)
    assert gather(output).state == "finished"
    store(output, [], waiting=1)
    assert gather(output).state == "finished"  # fewer trials were asked for than there are defaults
    study = optuna.load_study(study_name="made", storage=open_journal(output))
    study.enqueue_trial({"method": "lora"}, user_attrs={"retry_of": 0})
    assert gather(output).state == "interrupted"
    store(output, [record(2, folds=(0.9, 0.9, 0.9))])
    overtaken = gather(output)
    assert overtaken.state == "interrupted"
    assert overtaken.test is None  # another candidate's scores are not the winner's


def test_a_folder_without_a_study_is_refused_and_left_as_it_was(tmp_path):
    with pytest.raises(UserInputError, match="holds no study"):
        gather(tmp_path)
    assert list(tmp_path.iterdir()) == []
    done = autopeft_here("report", tmp_path, cwd=tmp_path)
    assert done.returncode == 2
    assert "autopeft run" in done.stderr


def test_the_default_that_was_interrupted_is_found_where_it_ran_again(tmp_path):
    warm, first = record(0, folds=(0.6, 0.6, 0.6)), record(1)
    output = store(tmp_path, [warm, first], defaults=(0, 1))
    assert archive.open_archive(output).defaults["lora"].number == 1  # what a warm start brought was queued before
    again = record(2)
    study = optuna.load_study(study_name="made", storage=open_journal(output))
    study.add_trial(
        create_trial(
            value=0.71,
            system_attrs={"fixed_params": {"method": "lora"}},
            user_attrs={"record": asdict(again), "retry_of": 1},
        )
    )
    assert archive.open_archive(output).defaults["lora"].number == 2


def test_a_candidate_of_the_portfolio_that_is_queued_after_the_default_is_not_taken_for_it(tmp_path):
    output = store(tmp_path, [record(0)], defaults=(0,))
    study = optuna.load_study(study_name="made", storage=open_journal(output))
    study.set_user_attr(archive.DEFAULTS, {"lora.r": 8})
    tuned = record(1)
    study.add_trial(
        create_trial(
            value=0.71,
            system_attrs={"fixed_params": {"method": "lora", "lora.r": 4}},
            user_attrs={"record": asdict(tuned)},
        )
    )
    assert archive.open_archive(output).defaults["lora"].number == 0


def test_a_trial_drawn_to_share_a_pass_with_the_default_is_not_taken_for_it(tmp_path):
    """Only what it has in common with the default was queued; the sampler drew the rest."""
    output = store(tmp_path, [record(0)], defaults=(0,))
    study = optuna.load_study(study_name="made", storage=open_journal(output))
    study.set_user_attr(archive.DEFAULTS, {"lora.r": 8, "lora.layers": "all"})
    study.add_trial(
        create_trial(
            value=0.71,
            params={"lora.r": 4},
            distributions={"lora.r": IntDistribution(1, 64)},
            system_attrs={"fixed_params": {"method": "lora", "lora.layers": "all"}},
            user_attrs={"record": asdict(record(1)), "drawn": True},
        )
    )
    assert archive.open_archive(output).defaults["lora"].number == 0


LABELS = ["yes"] * 50 + ["no"] * 50 + ["maybe <b>"] * 20
SCORES = {"winner": 90 / 120, "baseline": 50 / 120, "defaults": {"lora": 90 / 120, "adapter": 60 / 120}, "notes": {}}


def crowned(tmp_path, predictions, scores=SCORES, metric="accuracy"):
    given = {**GIVEN, "validation": {"folds": 3, "metric": metric}}
    kept = {"number": 0, "scores": {**scores, "seconds": 12.5}}
    output = store(tmp_path, [record(0)], given=given, test_scores=kept)
    if predictions:
        HeldOut([str(i) for i in range(120)], LABELS, predictions).write(output / PREDICTIONS)
    return gather(output)


WINNER = ["yes"] * 50 + ["no"] * 30 + ["yes"] * 20 + ["maybe <b>"] * 10 + ["no"] * 10
ADAPTER = ["yes"] * 50 + ["yes"] * 50 + ["maybe <b>"] * 10 + ["no"] * 10
ANSWERS = {
    "winner": WINNER, "default_lora": list(WINNER), "default_adapter": ADAPTER, "majority_class": ["yes"] * 120
}  # fmt: skip


def test_the_held_out_rows_are_read_class_by_class_and_against_what_needs_no_search(tmp_path):
    report = crowned(tmp_path, ANSWERS)
    test = report.test
    assert test.rows == 120
    assert [c.label for c in test.classes] == test.labels == ["maybe <b>", "no", "yes"]
    expected = precision_recall_fscore_support(LABELS, WINNER, labels=test.labels)
    assert [[c.precision, c.recall, c.f1, c.support] for c in test.classes] == [
        list(row) for row in zip(*expected, strict=True)
    ]
    assert test.confusion == [[10, 10, 0], [0, 30, 20], [0, 0, 50]]
    by_name = {score.name: score for score in test.scores}
    assert by_name["the winner"].interval == pytest.approx((0.6656, 0.8188), abs=1e-3)  # Wilson's, of 90 in 120
    assert by_name["the untuned default of lora"].note == "predicts the same as the winner"
    against = {c.other: c for c in test.comparisons}
    assert set(against) == {"the untuned default of adapter", "the majority class"}
    adapter = against["the untuned default of adapter"]  # 30 rows are answered right by the winner alone, none by it
    assert adapter.difference.p == pytest.approx(1 / 2001)
    assert adapter.real
    assert 0 < adapter.difference.low < 0.25 < adapter.difference.high
    assert adapter.verdict.startswith("The winner is 0.2500 above the untuned default of adapter: significant (95%")
    assert against["the majority class"].difference.mean == pytest.approx(40 / 120)
    assert report.cost.seconds["refits"] == 12.5
    text = check_page(report)
    assert "maybe &lt;b&gt;" in text
    assert "maybe <b>" not in text
    assert "of 120 held-out rows" not in text
    assert "On 120 held-out rows the winner scores 0.7500" in shown(report)


def test_another_metric_is_compared_by_the_bootstrap(tmp_path):
    from sklearn.metrics import f1_score

    winner = f1_score(LABELS, WINNER, average="macro")
    report = crowned(tmp_path, ANSWERS, {**SCORES, "winner": winner}, "f1_macro")
    low, high = report.test.scores[0].interval
    assert low < winner < high
    assert report.test.comparisons[0].real


def test_without_predictions_the_scores_are_told_and_that_the_rest_is_missing(tmp_path):
    report = crowned(tmp_path, None)
    assert "not kept" in report.test.note
    assert [score.score for score in report.test.scores] == [0.75, 0.75, 0.5, 50 / 120]
    assert "not kept" in check_page(report)
    assert "not kept" in shown(report)


def test_a_score_that_was_kept_in_float32_is_that_of_the_predictions(tmp_path):
    report = crowned(tmp_path, ANSWERS, {**SCORES, "winner": 0.75 + 2e-7})
    assert report.test.note == ""
    assert report.test.scores[0].interval


def test_predictions_that_are_not_the_winners_are_left_out(tmp_path):
    report = crowned(tmp_path, {**ANSWERS, "winner": ADAPTER})
    assert "does not give the winner's score" in report.test.note
    assert report.test.comparisons == []
    (tmp_path / PREDICTIONS).write_text("something,else\n1,2\n")
    assert "must hold the columns" in gather(tmp_path).test.note


def space(entry):
    """One param that decides the score, one that does not, one that few trials have."""
    values = {
        "method": entry.method,
        f"{entry.method}.rate": entry.params["rate"],
        f"{entry.method}.noise": entry.number % 7,
    }
    distributions = {
        "method": CategoricalDistribution(("adapter", "lora")),
        f"{entry.method}.rate": FloatDistribution(0.0, 1.0),
        f"{entry.method}.noise": IntDistribution(0, 6),
    }
    if entry.number % 3 == 0:
        values[f"{entry.method}.width"] = 1 + entry.number % 2
        distributions[f"{entry.method}.width"] = IntDistribution(1, 2)
    return values, distributions


def test_the_importance_names_what_decides_the_score(tmp_path):
    found = []
    for number in range(48):
        rate = (number * 29 % 48) / 48
        method, state = ("lora", "COMPLETE") if number < 24 else ("adapter", "PRUNED" if number < 30 else "COMPLETE")
        found.append(record(number, method, state, folds=(rate, rate, rate), params={"rate": rate}))
    report = gather(store(tmp_path, found, params=space))
    whole, lora, adapter = report.importances
    assert (whole.scope, whole.trials, lora.scope, lora.trials) == ("all methods", 42, "lora", 24)
    assert next(iter(lora.shares)) == "rate"
    assert lora.shares["rate"] > 0.6
    assert set(lora.shares) == {"rate", "noise", "width"}
    assert sum(lora.shares.values()) == pytest.approx(1)
    assert (adapter.trials, adapter.basis) == (24, "the score at the first rung, which pruned trials have too")
    assert {"lora.rate", "method"} <= set(whole.shares)
    assert "rate" in shown(report)
    assert "For lora: rate" in check_page(report)


def test_too_few_trials_are_not_ranked(tmp_path):
    report = gather(store(tmp_path, [record(number) for number in range(19)]))
    assert [importance.shares for importance in report.importances] == [{}]
    assert "Too few trials to tell: 19 with a score" in report.importances[0].note


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model):
    """A study that was run to its end, without a report yet as far as the command line goes."""
    study = write_tiny_study(tmp_path_factory.mktemp("finished"), tiny_model)
    done = autopeft_here("run", study.name, cwd=study.parent)
    assert done.returncode == 0, done.stderr
    return study


def test_a_run_leaves_its_report_and_its_predictions_and_logs_both(finished):
    output = finished.parent / "outputs" / "tiny"
    report = gather(output)
    assert report.state == "finished"
    answers = HeldOut.read(output / PREDICTIONS)
    assert len(answers.labels) == report.test.rows == 12
    assert not report.test.note
    right = sum(made == true for made, true in zip(answers.predictions["winner"], answers.labels, strict=True))
    assert right / 12 == pytest.approx(report.test.scores[0].score)
    assert set(answers.predictions) == {
        "winner", "default_adapter", "default_lora", "default_prefix_tuning", "majority_class"
    }  # fmt: skip
    for score in report.test.scores[1:-1]:
        made = answers.predictions["default_" + score.name.split()[-1]]
        assert sum(a == b for a, b in zip(made, answers.labels, strict=True)) / 12 == pytest.approx(score.score)
    assert report.defaults == [0, 1, 2]
    assert report.cost.seconds["refits"] > 0
    assert report.cost.samples_spared is not None
    logged = {path.name for path in (output / "artifacts").rglob("*") if path.suffix in (".html", ".svg")}
    assert {"report.html", "leads.svg", "fronts.svg", "curves.svg", "confusion.svg"} <= logged
    assert (output / "report.html").read_text() == check_page(report)


@pytest.mark.exhaustive
def test_the_command_reports_without_the_model_or_torch(finished):
    output = finished.parent / "outputs" / "tiny"
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".db", ".csv", ".json")}
    (output / "report.html").unlink()
    code = (
        "import sys; from autopeft.cli.app import main; sys.argv = ['autopeft', *sys.argv[1:]]\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, "report"]
    (finished.parent / "model").rename(finished.parent / "away")
    try:
        done = subprocess.run(
            [*command, "study.toml"], cwd=finished.parent, capture_output=True, text=True, check=True, env=os.environ
        )
        assert " won: mean accuracy " in done.stdout
        assert (output / "report.html").is_file()
        done = subprocess.run(
            [*command, str(output), "--json"], cwd=finished.parent, capture_output=True, text=True, check=True
        )
    finally:
        (finished.parent / "away").rename(finished.parent / "model")
    content = json.loads(done.stdout)
    assert content["winner"]["state"] == "COMPLETE"
    assert content["test"]["rows"] == 12
    after = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".db", ".csv", ".json")}
    assert after == before
    elsewhere = finished.parent / "pages" / "a.html"
    assert autopeft_here("report", output, "--html", elsewhere, cwd=finished.parent).returncode == 0
    assert elsewhere.read_text() == (output / "report.html").read_text()
