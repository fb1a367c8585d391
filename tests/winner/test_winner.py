"""A saved winner can become a plain transformers model, where its method can be merged."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import autopeft
from autopeft.common.exceptions import DataError, MethodError, StoreError, UserInputError
from autopeft.methods import registry
from autopeft.models.tensor_file import digest
from autopeft.models.weights_file import OWN_FILES, PEFT_CONFIG, PEFT_FILES, PEFT_WEIGHTS
from autopeft.study.card import CARD, EVIDENCE, Card, Evidence, _digest
from autopeft.winner import mlflow_model, readme
from autopeft.winner import winner as artifact
from autopeft.winner.export import FORMATS
from tests.conftest import autopeft_here, few, trained_winner, write_tiny_study

METHODS = sorted(registry.discover().methods)


@pytest.fixture(scope="module")
def lora_winner(tmp_path_factory, tiny_model):
    """One for all tests that put back what they change."""
    study = write_tiny_study(tmp_path_factory.mktemp("lora"), tiny_model)
    trained_winner(study, "lora")
    evidence = Evidence("s", "d", 1, 1, "accuracy", (0.5,), 0.5, None, 0.4, {}, 1, {}, {}, 1)
    evidence.write(study.parent / "lora")
    return study.parent / "lora"


@pytest.fixture(scope="module")
def tiny_winner(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("winner")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield trained_winner(write_tiny_study(folder, tiny_model), "lora")


def test_a_merged_winner_is_the_plain_model_and_predicts_alike(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    loaded = trained_winner(tiny_study, "lora")
    texts = ["w12 w3 w20", "w40 w11"]
    expected = loaded.predict_proba(texts)
    plain = loaded.merge()
    assert type(plain).__module__.startswith("transformers.")
    assert not [name for name in plain.state_dict() if "lora" in name]
    inputs = loaded.processor(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        found = plain.eval()(**inputs).logits.softmax(-1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(loaded.predict_proba(texts), expected)


def test_a_winner_that_cannot_be_merged_says_so(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    with pytest.raises(MethodError, match='"adapter" cannot; predict with the winner itself'):
        trained_winner(tiny_study, "adapter").merge()


def test_a_winner_from_elsewhere_runs_no_code_unasked(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    trained_winner(tiny_study, "lora")
    folder = tiny_study.parent / "lora"
    replace(Card.read(folder), trust_remote_code=True).write(folder)
    with pytest.raises(UserInputError, match=r"runs it only on request.*--trust-remote-code"):
        artifact.load(folder)
    done = autopeft_here("predict", folder, "--input", tiny_study.parent / "rows.csv", cwd=tiny_study.parent)
    assert done.returncode == 2
    assert "runs it only on request" in done.stderr
    assert artifact.load(folder, trust_remote_code=True).predict(["w1"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("w1 w2", "put a single input into a list"),
        ({"text": ["w1"]}, "put a single input into a list"),
        (pd.DataFrame({"text": ["w1", None]}, index=[7, 8]), 'row 8 has an empty "text"'),
        (pd.DataFrame({"words": ["w1"]}), "got no column 'text'"),
        ([], "got no row"),
    ],
)
def test_what_is_no_rows_is_told(tiny_study, monkeypatch, rows, words):
    monkeypatch.chdir(tiny_study.parent)
    with pytest.raises(DataError, match=words):
        trained_winner(tiny_study, "lora").predict(rows)


def test_a_number_is_the_text_that_it_was_in_training(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    winner = trained_winner(tiny_study, "lora")
    found = winner.predict_proba(pd.DataFrame({"text": [3.0, 2.5]}))
    np.testing.assert_array_equal(found, winner.predict_proba(["3", "2.5"]))
    assert not np.array_equal(found, winner.predict_proba(["3.0", "2.5"]))


def forged(folder, **card):
    """Give the card other words and the right SHA-256 of every file, as somebody who means it would."""
    content = json.loads((folder / CARD).read_text()) | card
    content["digests"] = {name: digest(folder / name) for name in (*PEFT_FILES, *OWN_FILES) if (folder / name).exists()}
    content["digests"][CARD] = _digest(content)
    (folder / CARD).write_text(json.dumps(content))


def alone(monkeypatch):
    """As where no plugin is installed."""
    monkeypatch.setattr(registry, "discover", lambda *_, **__: registry.Registry())


def rewrite(path, change):
    kept = load_file(path)
    save_file(change(kept) or kept, path, metadata={"format": "pt"})


def narrowed(kept):
    name = next(name for name, tensor in kept.items() if tensor.ndim == 2)
    kept[name] = kept[name].flatten()[:1].clone()


def without_one(kept):
    del kept[min(kept)]


def with_nan(kept):
    kept[min(kept)].view(-1)[0] = float("nan")


def with_infinity(kept):
    kept[max(kept)].view(-1)[-1] = float("inf")


def with_another(kept):
    kept["another.weight"] = torch.zeros(2)


def renamed(kept):
    kept["renamed"] = kept.pop(min(kept))


def in_half_precision(kept):
    return {name: tensor.half() for name, tensor in kept.items()}


CHANGES = [
    (narrowed, r"is \[1\] in place of"),
    (without_one, "is missing"),
    (with_nan, "must hold finite numbers"),
    (with_infinity, "must hold finite numbers"),
    (with_another, "another.weight is not expected"),
    (renamed, "first difference"),
    (in_half_precision, "is float16 in place of float32"),
]


def test_weights_must_be_exactly_what_the_method_makes(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    for name, file in (("lora", PEFT_WEIGHTS), ("adapter", OWN_FILES[0])):
        trained_winner(tiny_study, name)
        folder = tiny_study.parent / name
        whole = (folder / file).read_bytes()
        for plugins in (True, False) if name == "lora" else (True,):
            for change, words in CHANGES if plugins else CHANGES[:3]:
                (folder / file).write_bytes(whole)
                rewrite(folder / file, change)
                with pytest.MonkeyPatch.context() as patch:
                    if not plugins:
                        alone(patch)
                    if plugins and change is with_nan:
                        with pytest.raises(UserInputError, match="its SHA-256 is not the one on the card"):
                            artifact.load(folder)
                    forged(folder)
                    with pytest.raises(UserInputError, match=words):
                        artifact.load(folder)


def test_a_changed_weight_or_card_is_noticed_by_its_digest(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    winner, folder = trained_winner(tiny_study, "lora"), tiny_study.parent / "lora"
    rewrite(folder / PEFT_WEIGHTS, lambda kept: {name: tensor * 1.01 for name, tensor in kept.items()})
    with pytest.raises(UserInputError, match=r"adapter_model\.safetensors must be the file that was saved"):
        artifact.load(folder)
    winner.save(folder)
    content = json.loads((folder / CARD).read_text())
    for change in ({"labels": content["labels"][::-1]}, {"max_length": 5}, {"params": {**content["params"], "r": 4}}):
        (folder / CARD).write_text(json.dumps(content | change))
        with pytest.raises(UserInputError, match=r"autopeft\.json was changed after it was saved"):
            artifact.load(folder)
    moved = tiny_study.parent / "moved"
    (tiny_study.parent / "model").rename(moved)
    (folder / CARD).write_text(json.dumps(content | {"base_model": str(moved)}))  # what a new place asks for
    assert artifact.load(folder).predict(["w1"]) == winner.predict(["w1"])
    (folder / CARD).write_bytes(b"\xef\xbb\xbf" + (folder / CARD).read_bytes())  # as an editor may have left it
    assert artifact.load(folder).predict(["w1"]) == winner.predict(["w1"])


def test_a_winner_of_an_earlier_version_has_no_digests_and_loads(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    winner, folder = trained_winner(tiny_study, "adapter"), tiny_study.parent / "adapter"
    content = json.loads((folder / CARD).read_text())
    del content["digests"]
    (folder / CARD).write_text(json.dumps(content))
    assert artifact.load(folder).predict(["w1"]) == winner.predict(["w1"])


@pytest.mark.parametrize("name", few(METHODS, "lora", "ia3", "vera", "prompt_tuning"))
def test_what_peft_can_load_needs_no_plugin_and_is_what_the_plugin_builds(tiny_study, monkeypatch, name):
    monkeypatch.chdir(tiny_study.parent)
    expected = trained_winner(tiny_study, name).predict_proba(["w1 w2", "w3"])
    folder = tiny_study.parent / name
    alone(monkeypatch)
    if (folder / PEFT_CONFIG).exists():
        np.testing.assert_array_equal(artifact.load(folder).predict_proba(["w1 w2", "w3"]), expected)
    else:
        with pytest.raises(MethodError, match=f'no plugin provides the method "{name}"'):
            artifact.load(folder)


@pytest.mark.parametrize(
    ("device", "words"),
    [("foo", "must be cpu, cuda or"), ("cuda:99", "does not exist: PyTorch finds")],
)
def test_a_device_that_is_not_here_is_told_in_a_sentence(lora_winner, device, words):
    with pytest.raises(UserInputError, match=words):
        autopeft.load(lora_winner, device)


def test_a_folder_that_cannot_be_written_is_told_in_a_sentence(lora_winner, tmp_path):
    winner = autopeft.load(lora_winner)
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "x", tmp_path / ("x" * 250)):
        with pytest.raises(StoreError, match=f"{folder.name} could not be written"):
            winner.save(folder)
        with pytest.raises(StoreError, match=f"{folder.name} could not be written"):
            autopeft.export(winner, folder, "peft")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_labels_that_look_like_placeholders_or_break_a_table_are_themselves_in_a_readme(lora_winner, tmp_path):
    labels = ["{texts}", "AutoTokenizer {base}", "a|b\nc"]
    card = replace(Card.read(lora_winner), labels=tuple(labels))
    for form in ("peft", "merged", "onnx"):
        readme.write(tmp_path, card, None, FORMATS[form].load, form)
        text = (tmp_path / "README.md").read_text(encoding="utf-8")
        code = text.partition("```python\n")[2].partition("```")[0]
        compile(code, "README", "exec")
        assert form == "merged" or json.dumps(labels) in code
        assert "| labels | {texts}, AutoTokenizer {base}, a\\|b\\nc |" in text.splitlines()


def test_a_winner_saved_over_another_leaves_nothing_of_it(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    first, second = trained_winner(tiny_study, "lora"), trained_winner(tiny_study, "adapter")
    for winner in (first, second, first):
        winner.save(tiny_study.parent / "place")
        loaded = artifact.load(tiny_study.parent / "place")
        assert loaded.card.method == winner.card.method
        np.testing.assert_array_equal(loaded.predict_proba(["w1"]), winner.predict_proba(["w1"]))


def test_another_methods_add_on_under_the_card_is_refused(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    for name in ("lora", "ia3", "adapter"):
        trained_winner(tiny_study, name)
    folder = tiny_study.parent / "lora"
    for file in PEFT_FILES:
        shutil.copy(tiny_study.parent / "ia3" / file, folder / file)
    forged(folder)
    with pytest.raises(UserInputError, match="does not match what its method builds"):
        artifact.load(folder)
    with monkeypatch.context() as patch:
        alone(patch)
        with pytest.raises(UserInputError, match='must be of the method "lora", but its `peft_type` is IA3'):
            artifact.load(folder)
    for file in PEFT_FILES:
        shutil.copy(tiny_study.parent / "ia3" / file, tiny_study.parent / "adapter" / file)
    with pytest.raises(UserInputError, match="must hold the files it was saved with"):
        artifact.load(tiny_study.parent / "adapter")
    forged(tiny_study.parent / "adapter")
    with pytest.raises(UserInputError):
        artifact.load(tiny_study.parent / "adapter")


CATASTROPHE = r"(\w+\.?)+(\w+\.?)+!"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("r", 4),
        ("r", 10**9),
        ("r", "8"),
        ("lora_alpha", 1),
        ("use_rslora", True),
        ("target_modules", CATASTROPHE),
        ("target_modules", ["query"]),
        ("target_modules", ["x"] * 100_000),
        ("layers_pattern", CATASTROPHE),
        ("layers_to_transform", list(range(10**5))),
        ("rank_pattern", {CATASTROPHE: 10**9}),
        ("alpha_pattern", {f"x{i}": 1 for i in range(100_000)}),
        ("init_lora_weights", "pissa"),
        ("megatron_config", {"a": 1}),
        ("layer_replication", [[0, 2], [1, 2]]),
        ("peft_type", "IA3"),
        ("peft_type", "XLORA"),
        ("peft_type", 7),
        ("of_a_later_peft", 1),
    ],
)
def test_a_forged_configuration_of_peft_ends_in_a_sentence_at_once(lora_winner, monkeypatch, field, value):
    folder = lora_winner
    whole = (folder / PEFT_CONFIG).read_text()
    try:
        (folder / PEFT_CONFIG).write_text(json.dumps(json.loads(whole) | {field: value}))
        forged(folder)
        started = time.process_time()
        for plugins in (True, False):
            with pytest.MonkeyPatch.context() as patch:
                if not plugins:
                    alone(patch)
                with pytest.raises(UserInputError) as error:
                    artifact.load(folder)
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 1_000
        assert time.process_time() - started < 30, "of the processor's time; each would take minutes, or all memory"
    finally:
        (folder / PEFT_CONFIG).write_text(whole)
        forged(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"labels": [f"label {i}" for i in range(2_000)]}, "has 2,000 labels, while no tensor has more than"),
        ({"labels": ["no", "no", "yes"]}, "it has a label twice"),
        ({"labels": "no"}, "labels: Input should be a valid array"),
        ({"labels": [["no"], ["yes"]]}, "labels.0"),
        ({"max_length": 10**6}, "at most the model's own limit of 64, but is 1000000"),
        ({"max_length": 0}, "max_length: Input should be greater than or equal to 1"),
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"params": {"r": [8]}}, r"params\.r"),
        ({"params": {"r": 8, "megatron_core": "antigravity"}}, "but `megatron_core` is not one"),
        ({"method": "adapter"}, "cannot be|does not match|must be those of its method"),
        ({"task": "dancing"}, '`task` in .* is "dancing"'),
        ({"quantization": "2bit"}, "quantization"),
        ({"base_model": "no/such/thing"}, "must be an existing path"),
        ({"base_model": "x" * 5_000}, "base_model"),
        ({"of_a_later_version": 1, "autopeft": "9.9"}, r'the key "of_a_later_version".*\(autopeft 9\.9\)'),
    ],
)
def test_a_forged_card_ends_in_a_sentence(lora_winner, change, words):
    whole = (lora_winner / CARD).read_text()
    try:
        forged(lora_winner, **change)
        with pytest.raises(UserInputError, match=words) as error:
            artifact.load(lora_winner)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 1_000
    finally:
        (lora_winner / CARD).write_text(whole)


@pytest.mark.parametrize("name", [CARD, EVIDENCE, PEFT_CONFIG, PEFT_WEIGHTS])
def test_what_is_no_plain_file_is_neither_waited_for_nor_followed(lora_winner, tmp_path, name):
    folder = tmp_path / "winner"
    shutil.copytree(lora_winner, folder)
    for make in (
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
    ):
        path = folder / name
        path.rmdir() if path.is_dir() else path.unlink()
        make(path)
        with pytest.raises(UserInputError) as error:
            artifact.load(folder)
        assert name in str(error.value)


def test_a_pickle_is_never_read(lora_winner, tmp_path):
    folder = tmp_path / "winner"
    shutil.copytree(lora_winner, folder)
    torch.save(load_file(folder / PEFT_WEIGHTS), folder / "adapter_model.bin")
    assert artifact.load(folder).predict(["w1"])
    (folder / PEFT_WEIGHTS).unlink()
    with pytest.raises(UserInputError, match=r"must hold adapter_model\.safetensors, but does not"):
        artifact.load(folder)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "NaN", "[" * 100_000, '{"study": ' + "9" * 5_000, '{"study": 1}', "\ufeff{}", "\0"]
)
def test_evidence_that_is_none_is_refused_in_a_sentence(lora_winner, tmp_path, text):
    shutil.copy(lora_winner / CARD, tmp_path / CARD)
    (tmp_path / EVIDENCE).write_text(text)
    with pytest.raises(UserInputError, match=r"cannot be read: .*Remove it, or save the winner again") as error:
        artifact.load(tmp_path)
    assert "\n" not in str(error.value)


def test_outputs_that_are_no_numbers_are_no_prediction(lora_winner, tmp_path):
    folder = tmp_path / "winner"
    shutil.copytree(lora_winner, folder)
    rewrite(folder / PEFT_WEIGHTS, lambda kept: {name: tensor * 1e30 for name, tensor in kept.items()})
    forged(folder)
    with pytest.raises(DataError, match="finite outputs, but those for row 0 are not finite"):
        artifact.load(folder).predict(["w1"])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([["w1"], ["w2"]], 'row 0: every cell of the column "text" .* is a list'),
        (["w1", {"text": "w2"}], 'row 1: .*"text".* is a mapping'),
        (pd.DataFrame({"text": [b"w1", b"\xff"]}), "row 1: .* holds bytes that are not UTF-8"),
        (["w1", "\ud800"], r"row 1: .* holds \\ud800, which is half a character"),
        (["w1", 10**5000], "row 1: .* a whole number of thousands of digits"),
        (np.array([["w1"]]), "row 0: .* is an array"),
        (["w1", None], 'row 1 has an empty "text"'),
        (None, "put a single input into a list"),
        (b"w1", "put a single input into a list"),
        (pd.DataFrame([["w1", "w2"]], columns=["text", "text"]), "several columns 'text'"),
    ],
)
def test_a_cell_that_was_no_text_in_training_is_none_in_prediction(tiny_winner, rows, words):
    for predict in (tiny_winner.predict, mlflow_model.Model(tiny_winner).predict):
        with pytest.raises(DataError, match=words):
            predict(rows)


def test_bytes_are_the_text_that_they_hold(tiny_winner):
    np.testing.assert_array_equal(tiny_winner.predict_proba([b"w1 w2"]), tiny_winner.predict_proba(["w1 w2"]))


def test_the_command_line_names_the_row_of_the_file_that_is_no_text(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    trained_winner(tiny_study, "lora")
    rows = tiny_study.parent / "new.jsonl"
    rows.write_text('\ufeff{"text": "w1", "other": [1]}\n\n{"text": ["w2"]}\n')
    done = autopeft_here("predict", "lora", "--input", rows, cwd=tiny_study.parent)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'row 3: every cell of the column "text" must be one text or one value, but this one is a list' in done.stderr
    rows.write_text('\ufeff{"text": "w1", "other": [1]}\n\n{"text": "w2"}\n')
    assert len(autopeft_here("predict", "lora", "--input", rows, cwd=tiny_study.parent).stdout.splitlines()) == 3
    rows.write_text('{"words": "w1"}\n')
    done = autopeft_here("predict", "lora", "--input", rows, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert 'has no column "text"; known: words. Rename the right one.' in done.stderr
