"""Winners on one base answer in one pass, each as it would alone."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from autopeft_prefix_tuning.prefix import prefixes

from autopeft import Shelf, load
from autopeft.common.exceptions import DataError, ModelError, UserInputError
from autopeft.shelf import settle
from autopeft.shelf.names import find
from autopeft.study.card import Card, Evidence
from autopeft.study.folder import TASKS
from tests.conftest import few, saved_tiny
from tests.shelf.winners import rows_of, winner_of
from tests.tiny_language_models import language_model

MIXED = {
    "low": ("text-classification", "lora", {"r": 2, "lora_alpha": 32}),
    "high": ("text-classification", "lora", {"r": 8, "target_modules": "all_linear", "use_rslora": True}),
    "down": ("regression", "adapter", {"reduction_factor": 4}),
    "up": ("regression", "adapter", {"placement": "parallel", "layers": "top_half"}),
    "tags": ("token-classification", "bitfit", {}),
    "choice": ("multiple-choice", "lora", {"r": 4}),
    "places": ("question-answering", "lora", {}),
}
"""Winners of five kinds, one with several samples of a row and one with several sequences of a sample. They have pairs
of other ranks, scales and places, adapters of other widths, and biases."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_model):
    root = tmp_path_factory.mktemp("shelf")
    return {
        name: winner_of(root, tiny_model, kind, method, name, **params)
        for name, (kind, method, params) in MIXED.items()
    }


@pytest.fixture(scope="module")
def shelf(folders):
    return Shelf.load(list(folders.values()))


def same(found, expected):
    assert [sorted(answer) for answer in found] == [sorted(answer) for answer in expected]
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other)


def assert_close(one, other):
    """Equal up to rounding, however deep."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert_close(mine, theirs)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    else:
        assert one == other


def test_all_share_a_pass(shelf):
    assert shelf.turns == {}
    assert sorted(shelf) == sorted(MIXED)


@pytest.mark.parametrize(
    "counts", [(1, 1, 1, 1, 1, 1, 1), (3, 1, 5, 2, 4, 7, 6), (0, 0, 2, 0, 0, 1, 0), (40, 1, 9, 33, 2, 5, 1)]
)
def test_a_mixed_batch_gives_each_winner_its_own_answers(shelf, folders, counts):
    asked = {
        name: rows_of(kind, count, skip=place)
        for place, ((name, (kind, *_)), count) in enumerate(zip(MIXED.items(), counts, strict=True))
        if count
    }
    found = shelf.as_json(asked)
    for name, rows in asked.items():
        same(found[name], load(folders[name]).as_json(rows))
        assert shelf.predict({name: rows})[name] == load(folders[name]).predict(rows)


def test_a_pass_runs_the_base_once_for_all(shelf):
    seen = []
    words = shelf._settled.joint._trunk.embeddings.word_embeddings
    hook = words.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    try:
        shelf.predict({name: rows_of(kind, 1, skip=1) for name, (kind, *_) in MIXED.items()})
    finally:
        hook.remove()
    assert seen == [len(MIXED) - 1 + 3]  # the question has three choices, each a sequence


def test_the_base_is_in_memory_once(shelf):
    words = [winner.module.get_input_embeddings().weight for winner in shelf.winners.values()]
    assert len({weight.data_ptr() for weight in words}) == 1


def test_no_more_than_one_winner_at_a_time_has_weights_of_its_own(folders):
    there = []

    def loaded():
        for name in ("low", "down", "tags"):
            bases = {winner.module.get_input_embeddings().weight.data_ptr() for winner in there}
            assert len(bases) == min(len(there), 1)
            there.append(load(folders[name]))
            yield name, there[-1]

    assert list(Shelf(loaded())) == ["low", "down", "tags"]


def test_several_questions_for_one_winner_share_a_pass(shelf):
    good, other = (shelf.question("low", rows_of("text-classification", count)) for count in (2, 3))
    shelf.answer([good, other, shelf.question("down", rows_of("regression", 1))])
    assert (len(good.answers), len(other.answers)) == (2, 3)
    np.testing.assert_allclose(other.answers, shelf["low"].predict_proba(rows_of("text-classification", 3)), atol=1e-5)


def test_an_error_stays_with_the_question_that_has_it(tmp_path):
    """The tokenizer of a decoder puts nothing around a text, so a blank one has no token."""
    language_model(tmp_path / "gpt2", "gpt2")
    kinds = {"one": "text-classification", "two": "regression"}
    shelf = Shelf.load([winner_of(tmp_path, tmp_path / "gpt2", kind, "lora", name) for name, kind in kinds.items()])
    assert shelf.turns == {}
    rows = rows_of("text-classification", 3)
    first, bad, last = (shelf.question("one", given) for given in (rows, ["w1", " "], rows[1:]))
    shelf.answer([first, bad, last, shelf.question("two", rows_of("regression", 5))])
    assert isinstance(bad.error, DataError)
    assert "in row 1" in str(bad.error)
    np.testing.assert_allclose(first.answers, shelf["one"].predict_proba(rows), atol=1e-5)
    np.testing.assert_array_equal(last.answers, first.answers[1:])


def test_an_answer_that_is_not_finite_stays_with_its_question(shelf):
    words = shelf["low"].module.get_input_embeddings().weight.data
    word = shelf["low"].processor.convert_tokens_to_ids("w57")
    kept = words[word].clone()
    good, bad, other = (shelf.question(*given) for given in (("low", ["w1"]), ("low", ["w1", "w57"]), ("down", ["w1"])))
    try:
        words[word] = float("nan")
        shelf.answer([good, bad, other])
    finally:
        words[word] = kept
    assert "those for row 1 are not finite" in str(bad.error)
    assert (good.error, other.error, len(good.answers), len(other.answers)) == (None, None, 1, 1)


def test_a_row_that_is_cut_is_told(shelf):
    question = shelf.question("low", [" ".join(["w1"] * 200), "w1"])
    shelf.answer([question, shelf.question("low", ["w1"])])
    assert "1 of 2" in question.notes[0]


@pytest.mark.parametrize(
    "method",
    few(
        ["adalora", "dora", "ia3", "mixed", "prefix_tuning", "prompt_tuning", "vera"],
        "prefix_tuning", "ia3",
    ),
)  # fmt: skip
def test_any_method_answers_as_alone_beside_others(tmp_path, tiny_model, folders, method):
    own = winner_of(tmp_path, tiny_model, "text-classification", method, "own")
    shelf = Shelf.load({"own": own, "low": folders["low"], "tags": folders["tags"]})
    assert shelf.turns == {}
    rows = {"own": rows_of("text-classification", 5), "low": rows_of("text-classification", 2, 30)}
    found = shelf.as_json({**rows, "tags": rows_of("token-classification", 3)})
    for name, folder in (("own", own), ("low", folders["low"])):
        same(found[name], load(folder).as_json(rows[name]))


def test_winners_with_prefixes_share_a_pass(tmp_path, tiny_model):
    kinds = {"one": "text-classification", "other": "regression"}
    own = {name: winner_of(tmp_path, tiny_model, kind, "prefix_tuning", name) for name, kind in kinds.items()}
    winners = {name: load(folder) for name, folder in own.items()}
    torch.manual_seed(0)
    for winner in winners.values():
        for prefix in prefixes(winner.module).values():
            prefix.states.data += torch.randn_like(prefix.states)
    rows = {name: rows_of(kind, 4) for name, kind in kinds.items()}
    expected = {name: winner.as_json(rows[name]) for name, winner in winners.items()}
    shelf = Shelf(winners)
    assert shelf.turns == {}
    found = shelf.as_json(rows)
    for name in kinds:
        same(found[name], expected[name])


def test_a_method_that_changes_its_trunk_itself_runs_in_turns_and_that_is_told(folders):
    """What a method puts in place of the trunk's own pass is not part of the joined trunk; the check finds that."""
    winners = {name: load(folders[name]) for name in ("down", "low", "tags")}
    trunk = settle._trunk(winners["low"].module)
    plain = trunk.forward

    def doubled(*args, **kwargs):
        found = plain(*args, **kwargs)
        found.pooler_output = 2 * found.pooler_output
        return found

    trunk.forward = doubled
    rows = rows_of("text-classification", 4)
    expected = winners["low"].as_json(rows)
    shelf = Shelf(winners)
    assert list(shelf.turns) == ["low"]
    assert "cannot share a pass" in shelf.turns["low"]
    found = shelf.as_json({"low": rows, "down": rows_of("regression", 2), "tags": rows_of("token-classification", 2)})
    same(found["low"], expected)
    same(found["down"], load(folders["down"]).as_json(rows_of("regression", 2)))


def test_a_winner_alone_is_a_shelf_too(folders):
    shelf = Shelf.load([folders["low"]])
    rows = rows_of("text-classification", 3)
    same(shelf.as_json({"low": rows})["low"], load(folders["low"]).as_json(rows))
    assert (shelf.shares("low"), shelf.turns) == (False, {})


def test_another_base_is_refused_with_both_digests(tmp_path, folders):
    other = saved_tiny("bert", tmp_path / "other")
    (other / "vocab.txt").write_text((other / "vocab.txt").read_text().replace("w57", "w99"))
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text().replace('"w57"', '"w99"'))
    strange = winner_of(tmp_path, other, "text-classification", "lora", "strange")
    with pytest.raises(ModelError, match=r'same tokenizer, but "low" was trained on .*digest sha256:.*"strange" on'):
        Shelf.load([folders["low"], strange])


def test_another_precision_is_refused(tmp_path, folders):
    lower = shutil.copytree(folders["low"], tmp_path / "lower")
    replace(Card.read(lower), quantization="4bit").write(lower)
    with pytest.raises(ModelError, match=r'`quantization` of "low" is "none" and that of "lower" "4bit"'):
        Shelf.load([folders["low"], lower])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "at least one winner"),
        ("nowhere", "nowhere.* does not exist"),
        (["low", "low"], r'both "low"; give one as NAME=FOLDER'),
        (["nowhere"], "does not exist"),
    ],
)
def test_what_is_no_shelf_is_told(folders, monkeypatch, given, words):
    monkeypatch.chdir(folders["low"].parent)
    with pytest.raises(UserInputError, match=words):
        Shelf.load(given)


def test_a_single_folder_is_a_shelf_and_no_winner_is_none(folders, monkeypatch):
    monkeypatch.chdir(folders["low"].parent)
    assert [*Shelf.load("low")] == [*Shelf.load(folders["low"])] == ["low"]
    assert [*Shelf.load("mine=low")] == ["mine"]
    with pytest.raises(UserInputError, match="at least one winner"):
        Shelf({})


def test_a_name_may_be_chosen_and_an_unknown_one_is_told(folders, monkeypatch):
    monkeypatch.chdir(folders["low"].parent)
    shelf = Shelf.load(["first=low", "second=low"])
    assert list(shelf) == ["first", "second"]
    rows = rows_of("text-classification", 3)
    found = shelf.as_json({"first": rows, "second": rows[1:]})
    assert shelf.turns == {}
    same(found["first"], load("low").as_json(rows))
    same(found["second"], found["first"][1:])
    with pytest.raises(UserInputError, match='did you mean "second"'):
        shelf.predict({"secon": ["w1"]})


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("both", ["low/first", "low/second"]),
        ("mine=both", ["mine/first", "mine/second"]),
        ("both/second", ["low/second"]),
        ("mine=both/second", ["mine"]),
    ],
)
def test_winners_of_several_tasks_have_their_names(folders, tmp_path, monkeypatch, given, names):
    for name in ("first", "second"):
        shutil.copytree(folders["low"], tmp_path / "both" / "winner" / name)
        Evidence("low", "d", 1, 1, "accuracy", (0.5,), 0.5, None, 0.4, {}, 1, {}, {}, 1).write(
            tmp_path / "both" / "winner" / name
        )
    (tmp_path / "both" / "winner" / TASKS).write_text('{"tasks": ["first", "second"]}')
    monkeypatch.chdir(tmp_path)
    assert [*find([given.replace("both/", "both/winner/")])] == names


def test_a_winner_of_a_shelf_saves_as_it_was(shelf, folders, tmp_path):
    shelf["low"].save(tmp_path / "again")
    rows = rows_of("text-classification", 3)
    torch.testing.assert_close(
        torch.tensor(load(tmp_path / "again").predict_proba(rows)),
        torch.tensor(load(folders["low"]).predict_proba(rows)),
        rtol=0,
        atol=1e-6,
    )
