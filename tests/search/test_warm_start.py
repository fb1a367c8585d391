"""A study that starts from what won an earlier one."""

import json
import os
import shutil

import optuna
import pytest

from autopeft import PeftMethod, SearchSpace
from autopeft.common.exceptions import SpecError
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.search.warm_start import earlier_winner, earlier_winners
from autopeft.study.journal import open_journal
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.study.storage import StudyStorage
from tests.conftest import autopeft_here
from tests.search.test_run import edit, run_study

LORA = {"r": 48, "lora_alpha": 16, "target_modules": "attention", "lora_dropout": 0.25, "use_rslora": True}
TRAINING = {"learning_rate": 2e-3, "epochs": 3, "batch_size": 32, "warmup_ratio": 0.1, "weight_decay": 0.0}


def space(**overrides) -> CandidateSpace:
    methods = discover().methods
    return CandidateSpace.build([methods["lora"], methods["prefix_tuning"]], None, overrides, FIXED_SEARCH_KEYS)


def finished(folder, method="lora", **params):
    params = {f"{method}.{name}": value for name, value in (params or {**LORA, **TRAINING}).items()}
    (folder / "result.json").write_text(json.dumps({"best": {"params": {"method": method, **params}}}))
    return folder


@pytest.mark.exhaustive
def test_the_earlier_winner_is_tried_first_and_the_defaults_follow(tiny_study):
    best = run_study(tiny_study)["best"]
    earlier = tiny_study.parent / "outputs" / "tiny"
    every = CandidateSpace.build(discover().methods.values(), None, {}, ())
    saved = earlier_winner("outputs/tiny/winner", tiny_study.parent, every)[0]  # the real card, of a folder alone
    assert {f"{best['method']}.{name}": value for name, value in saved.params.items()}.items() <= best["params"].items()
    edit(tiny_study, ('name = "tiny"', 'name = "second"'), ("[search]", '[search]\nwarm_start = "outputs/tiny"'))
    done = autopeft_here("run", tiny_study.name, cwd=tiny_study.parent)
    assert done.returncode == 0, done.stderr
    assert f"Starting from the winner of {earlier}" in done.stdout
    assert "To fit this study" not in done.stdout
    store = open_journal(tiny_study.parent / "outputs" / "second")
    trials = optuna.load_study(study_name="second", storage=store).trials
    assert trials[0].params == best["params"]
    methods = [trial.params["method"] for trial in trials[1:4]]
    if best["number"] < 3:  # a default won, which is not tried twice
        methods = [trial.params["method"] for trial in trials[:3]]
    assert sorted(methods) == ["adapter", "lora", "prefix_tuning"]

    shutil.rmtree(earlier)  # not needed again
    edit(tiny_study, ("trials = 4", "trials = 5"))
    assert len(run_study(tiny_study)["records"]) == 5
    edit(tiny_study, ("outputs/tiny", "outputs/other"))
    refused = autopeft_here("run", tiny_study.name, cwd=tiny_study.parent)
    assert refused.returncode == 2
    assert "search.warm_start: 'outputs/tiny' → 'outputs/other'" in refused.stderr


def test_a_winner_inside_the_space_is_taken_as_it_is(tmp_path):
    start, note = earlier_winner(str(finished(tmp_path)), tmp_path / "elsewhere", space())
    assert start.flat == {
        "method": "lora",
        **{f"lora.{name}": value for name, value in {**LORA, **TRAINING}.items()},
    }
    assert note == f"Starting from the winner of {tmp_path}: {start}."


def test_a_winner_outside_the_space_goes_to_the_nearest_point_and_the_note_says_so(tmp_path):
    narrow = space(
        batch_size=16, epochs=[2, 4], lora={"r": [4, 32], "target_modules": "all_linear", "lora_alpha": [4, 12, 64]}
    )
    start, note = earlier_winner(".", finished(tmp_path), narrow)
    part = narrow["lora"]
    assert part.own.holds(start.params)
    assert start.params == {**LORA, "r": 32, "lora_alpha": 12, "target_modules": "all_linear"}
    assert (start.hyper.batch_size, start.hyper.epochs) == (16, 3)
    for change in ("r 48 → 32", "lora_alpha 16 → 12", "target_modules attention → all_linear", "batch_size 32 → 16"):
        assert change in note
    assert "epochs 3" not in note


def test_conditional_dimensions_come_and_go_with_the_one_they_depend_on(tmp_path):
    own = {"num_virtual_tokens": 8, "prefix_projection": True, "encoder_hidden_size": 256, "layers": "top_half"}
    finished(tmp_path, "prefix_tuning", **own, **TRAINING)
    start, note = earlier_winner(".", tmp_path, space(prefix_tuning={"prefix_projection": False}))
    assert start.params == {"num_virtual_tokens": 8, "prefix_projection": False, "layers": "top_half"}
    assert "without encoder_hidden_size" in note
    finished(tmp_path, "prefix_tuning", num_virtual_tokens=8, prefix_projection=True, **TRAINING)
    start, note = earlier_winner(".", tmp_path, space())
    default = start.params["encoder_hidden_size"]
    assert f"encoder_hidden_size {default} (not given there)" in note


def test_a_saved_winner_gives_its_method_and_params_and_the_training_defaults(tmp_path):
    (tmp_path / "autopeft.json").write_text(json.dumps({"method": "lora", "params": LORA, "labels": ["a", "b"]}))
    start, note = earlier_winner(".", tmp_path, space())
    assert start.params == LORA
    assert start.hyper == space()["lora"].default().hyper
    assert "learning_rate 0.003 (not given there)" in note


def test_several_studies_give_a_candidate_each_and_a_sentence_each(tmp_path):
    params = {"a": LORA | TRAINING, "b": {**LORA, **TRAINING, "r": 4}, "c": {**LORA, **TRAINING, "r": 60}}
    for name, values in params.items():
        (tmp_path / name).mkdir()
        finished(tmp_path / name, **values)
    narrow = space(lora={"r": [4, 32]})
    starts, notes = earlier_winners(["b", "a", "c"], tmp_path, narrow)
    assert [start.params["r"] for start in starts] == [4, 32], "the last two move to the same point"
    assert [str(tmp_path / name) in note for name, note in zip("bac", notes, strict=True)] == [True] * 3
    assert "r 60 → 32" in notes[2]
    assert notes[2].endswith("An earlier study gave the same candidate, which is tried once.")
    with pytest.raises(SpecError, match="is not a folder"):
        earlier_winners(["b", "nowhere"], tmp_path, narrow)


class Stranger(PeftMethod):
    contract = 1
    name = "stranger"

    def search_space(self, spec=None):
        return SearchSpace({})

    def apply(self, model, params, spec):
        return model


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["finished study", "neither result.json nor autopeft.json", "finish that study"]),
        ("{", ["result cannot be read", "run that study again"]),
        ('{"best": {"params": null}}', ["result cannot be read"]),
        ('{"best": {"params": {"lora.r": 8}}}', ["result cannot be read", "method"]),
        ('{"best": {"params": {"method": ["lora"]}}}', ["result cannot be read", "method is ['lora']"]),
        ('{"best": {"params": {"method": "lora", "lora.r": [8]}}}', ["result cannot be read", "lora.r is [8]"]),
        (
            '{"best": {"params": {"method": "lora", "lora.r": ' + "9" * 400 + "}}}",
            ["result cannot be read", "lora.r is 9"],
        ),
        ('{"best": {"params": {"method": "' + "x" * 10_000 + '"}}}', ["result cannot be read", "method is xxx"]),
        ('{"best": ' * 100_000, ["result cannot be read", "recursion"]),
        ("9" * 5_000, ["result cannot be read"]),
        ("\0", ["result cannot be read"]),
    ],
)
def test_a_folder_without_a_readable_result_is_refused(tmp_path, content, words):
    if content:
        (tmp_path / "result.json").write_text(content)
    with pytest.raises(SpecError) as error:
        earlier_winner(".", tmp_path, space())
    assert all(word in str(error.value) for word in ("`warm_start` in [search]", str(tmp_path), *words))


@pytest.mark.parametrize("name", ["result.json", "autopeft.json"])
def test_a_pipe_in_place_of_a_result_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(SpecError, match=r"result cannot be read .*must be a plain file"):
        earlier_winner(".", tmp_path, space())


def test_a_method_that_this_study_lacks_is_refused(tmp_path):
    finished(tmp_path, "stranger", **TRAINING)
    with pytest.raises(SpecError, match=r'won by "stranger".*known: lora, prefix_tuning'):
        earlier_winner(".", tmp_path, space())
    others = CandidateSpace.build([Stranger()], None, {}, ())
    assert earlier_winner(".", tmp_path, others)[0].method.name == "stranger"


def test_a_missing_folder_is_refused_before_anything_is_written(tiny_study):
    edit(tiny_study, ("[search]", '[search]\nwarm_start = "../nowhere"'))
    done = autopeft_here("run", tiny_study.name, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "is not a folder" in done.stderr
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tiny_study.parent / "outputs").exists()


@pytest.mark.exhaustive
def test_a_study_that_has_not_ended_gives_what_was_best_so_far(tiny_study):
    found = run_study(tiny_study)
    folder = tiny_study.parent / "outputs" / "tiny"
    (folder / "result.json").unlink()
    fixed = {"epochs": 4, "batch_size": 8, "learning_rate": 0.02}
    every = CandidateSpace.build(discover().methods.values(), None, fixed, ())
    assert earlier_winner(str(folder), tiny_study.parent, every)[0].flat == found["best"]["params"]


def test_a_study_without_a_complete_trial_has_nothing_to_give(tmp_path):
    optuna.create_study(study_name="x", storage=StudyStorage(tmp_path))
    with pytest.raises(SpecError, match="with a complete trial"):
        earlier_winner(str(tmp_path), tmp_path, space())
