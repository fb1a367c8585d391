"""A text for a text, by models with an encoder and a decoder: from rows to what is learnt, written and exported."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import torch
from autopeft_prefix_tuning.places import attentions

import autopeft as api
from autopeft.common.exceptions import DataError, ModelError, SpecError
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from tests.conftest import DTYPE, HEAVY, WORDS, autopeft_here
from tests.tiny_language_models import language_model
from tests.writing_study import better_than_the_base_model, run_readme, run_study

ANSWERS = ("yes", "no", "maybe okay")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for family in ("t5", "bart", "gpt2"):
        language_model(folder / family, family)
    return folder


def rows_of(count=90, seed=0):
    """Which of three words begins a source tells the target."""
    generator = np.random.default_rng(seed)
    rest = [
        " ".join(WORDS[word] for word in generator.integers(4, len(WORDS), 1 + place % 6)) for place in range(count)
    ]
    sources = [f"{WORDS[place % 3]} {text}" for place, text in enumerate(rest)]
    return pd.DataFrame({"source": sources, "target": [ANSWERS[place % 3] for place in range(count)]})


def problem_of(folder, model, rows, data=None, section=None, **task):
    rows.to_json(folder / "rows.jsonl", orient="records", lines=True)
    content = {
        "name": "writes",
        "model": {"name_or_path": str(model), "dtype": DTYPE, **(section or {})},
        "task": {"kind": "seq2seq", **task},
        "data": {"train": "rows.jsonl", **(data or {})},
        "validation": {"folds": 2},
    }
    return Problem.from_spec(StudySpec.from_mapping(content, folder=folder), discover())


def words_of(problem, field, row):
    """What a field holds of a training row, as tokens."""
    ids = [max(int(token), 0) for token in problem.train.fields[field].of([row])[0]]
    return problem.reader.tokenizer.convert_ids_to_tokens(ids)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_decoder_reads_the_target_one_place_on(tmp_path, models, family):
    problem = problem_of(tmp_path, models / family, rows_of(), prefix="w9 ")
    row = problem.rows.train.iloc[0]
    lead = ["[CLS]"] * (family == "bart")
    assert words_of(problem, "input_ids", 0) == [*lead, "w9", *row["source"].split(), "[SEP]"]
    assert words_of(problem, "labels", 0) == [*lead, *row["target"].split(), "[SEP]"]
    assert words_of(problem, "decoder_input_ids", 0) == ["[PAD]", *lead, *row["target"].split()]
    limits = problem.task.limits
    assert problem.reader.tokenizer.convert_ids_to_tokens(limits.begin) == ["[PAD]", *lead]
    assert limits.ends == (3,)
    assert problem.train.units.tolist() == problem.train.fields["labels"].lengths.tolist()


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_what_is_told_is_the_models_own_cross_entropy(tmp_path, models, family):
    problem = problem_of(tmp_path, models / family, rows_of(), section={"dtype": "float32"})
    batch = problem.train.batch(np.arange(8))
    with torch.no_grad():
        ours = problem.task.loss(problem.task.run(problem.base.module, batch), batch)
        plain = problem.base.copy()
        problem.task.restore(plain)
        given = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
        theirs = plain.eval()(**given).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


FORMS = {
    "document": ("document", "summary"),
    "article": ("article", "highlights"),
    "question": ("question", "answer"),
    "text": ("text", "summary"),
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_are_found_by_what_tables_call_them(tmp_path, models, form):
    rows = rows_of().rename(columns=dict(zip(("source", "target"), FORMS[form], strict=True)))
    problem = problem_of(tmp_path, models / "t5", rows)
    assert {*problem.test.truths} <= {*ANSWERS}
    assert problem.task.inputs == ("source",)
    (told,) = [note for note in problem.rows.notes if note.startswith("The rows are read as")]
    assert all(f"`{name}`" in told for name in FORMS[form])


def test_columns_may_be_named(tmp_path, models):
    rows = rows_of().rename(columns={"source": "asked", "target": "said"}).assign(source="w1", target="w2")
    problem = problem_of(tmp_path, models / "t5", rows, data={"source": "asked", "target": "said"})
    assert {*problem.test.truths} <= {*ANSWERS}


def translated():
    """Texts, and the same in another language, which a first word tells."""
    texts = rows_of()["source"]
    return pd.DataFrame({"translation": [{"en": f"w1 {text}", "de": f"w0 {text}"} for text in texts]})


def first_words(texts):
    return {text.split()[0] for text in texts}


@pytest.mark.parametrize(("task", "first"), [({}, "en"), ({"source_language": "de", "target_language": "en"}, "de")])
def test_translations_are_read_from_one_language_to_the_other(tmp_path, models, task, first):
    problem = problem_of(tmp_path, models / "t5", translated(), **task)
    assert problem.task.inputs == ("source",)
    assert first_words(problem.test.truths) == {"w0" if first == "en" else "w1"}
    assert first_words(problem.rows.test["source"]) == {"w1" if first == "en" else "w0"}
    assert problem.task.notes == (f'Rows are translated from "{first}" to "{"de" if first == "en" else "en"}".',)


def test_a_column_of_translations_may_have_any_name(tmp_path, models):
    rows = translated().rename(columns={"translation": "pairs"})
    problem = problem_of(tmp_path, models / "t5", rows, data={"translation": "pairs"})
    assert first_words(problem.test.truths) == {"w0"}
    with pytest.raises(SpecError, match='"translations" in \\[data\\] is neither a setting nor a column'):
        problem_of(tmp_path, models / "t5", rows, data={"translations": "pairs"})


def test_long_targets_lose_their_end_and_are_counted(tmp_path, models):
    rows = rows_of()
    rows.loc[3, "target"] = " ".join(WORDS[:20])
    problem = problem_of(tmp_path, models / "t5", rows, max_target_length=5, data={"test_fraction": 0.05})
    lengths = problem.train.fields["labels"].lengths
    place = problem.rows.train["target"].tolist().index(rows.loc[3, "target"])
    assert lengths.max() == lengths[place] == 5
    assert words_of(problem, "labels", place) == [*WORDS[:4], "[SEP]"]
    (told,) = problem.task.notes
    assert told.startswith("1 training target has more than 5 tokens; only the beginning is learnt")


@pytest.mark.parametrize(
    ("task", "told"),
    [
        ({"max_target_length": 500}, "must be at most 128, the number of positions of the model's decoder"),
        ({"max_target_length": 2}, "must be at least 3, as the tokenizer adds 2 tokens"),
        ({"source_language": "en"}, "`source_language` in \\[task\\] is for tokenizers that know language codes"),
        ({"scores": ["rouge_n"]}, 'the score of texts "rouge_n" is not known'),
    ],
)
def test_settings_that_will_not_do_are_refused(tmp_path, models, task, told):
    with pytest.raises(SpecError, match=told):
        problem_of(tmp_path, models / "bart", rows_of(), **task)


@pytest.mark.parametrize("column", ["source", "target"])
def test_empty_texts_are_refused(tmp_path, models, column):
    rows = rows_of()
    rows.loc[4, column] = " "
    with pytest.raises(DataError, match=f'row 5: the column "{column}" must not be empty'):
        problem_of(tmp_path, models / "t5", rows)


def test_models_of_one_stack_are_refused(tmp_path, models, tiny_model):
    with pytest.raises(ModelError, match="gpt2 continues a text; give another model, or set the kind causal-lm"):
        problem_of(tmp_path, models / "gpt2", rows_of())
    with pytest.raises(ModelError, match=r"reads one text and writes another, .* but bert fills in words of a text"):
        problem_of(tmp_path, tiny_model, rows_of())


def test_a_tokenizer_that_marks_no_end_is_refused(tmp_path, models):
    case = TaskCase(find_task("seq2seq"), "t5")
    case.reader.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ModelError, match="must put a mark behind a text to write"):
        case.task.facts_of_model(case._built, case.rows, case.reader)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_prefixes_go_to_the_attention_of_the_encoder_of_the_decoder_and_between_them(tmp_path, models, family):
    spec = problem_of(tmp_path, models / family, rows_of()).base.spec
    names = [place.name for place in attentions(spec)]
    assert len(names) == len({*names}) == 6  # of two layers of an encoder, and twice of two of a decoder
    assert sum("EncDec" in name or "encoder_attn" in name for name in names) == 2


def test_batches_are_of_rows_whose_texts_and_targets_are_long(tmp_path, models):
    rows = rows_of()
    rows["target"] = [" ".join(WORDS[: 1 + place % 7]) for place in range(len(rows))]
    data = problem_of(tmp_path, models / "t5", rows).train
    both = data.fields["input_ids"].lengths + data.fields["labels"].lengths
    assert data.extents.tolist() == both.tolist()
    few = np.array([0, 1, 2])
    assert data.places_of(few) == 3 * (data.lengths[few].max() + data.fields["labels"].lengths[few].max())


def test_targets_are_not_taken_from_what_is_kept_of_sources(tmp_path, models):
    from autopeft.models.token_cache import CachedRowTokenizer

    tokenizer = RowTokenizer.load(models / "t5")
    reader = CachedRowTokenizer(tokenizer, 20)
    texts = ["w1 w2", "w3"]
    plain, keys = reader(texts), {reader._key((texts,))}
    reader.of_targets = True
    keys.add(reader._key((texts,)))
    assert len(keys) == 2
    assert reader(texts).columns["input_ids"].tolist() == plain.columns["input_ids"].tolist()


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("study")
    rows_of(120).to_csv(folder / "rows.csv", index=False)
    search = {"epochs": 12, "batch_size": 4, "learning_rate": 0.005}
    return folder, run_study(folder, models / "t5", "rows.csv", {"kind": "seq2seq", "prefix": "w9 "}, search)


@pytest.fixture(scope="module")
def winner(study):
    return api.load(study[0] / "outputs" / "writes" / "winner")


def test_a_study_is_better_than_the_base_model(study):
    assert better_than_the_base_model(study[1]) > 1


def test_the_report_sets_copies_of_the_sources_beside_what_was_written(study):
    done = autopeft_here("report", "study.toml", cwd=study[0])
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    winner, copied = (next(line for line in lines if line.startswith(name)) for name in ("winner: lora", "source cop"))
    assert float(re.findall(r"(\S+) \(", winner)[-1]) > 0.6
    assert re.findall(r"(\S+) \(", copied) == ["0.0000", "0.0000"]
    assert "–" in copied  # nobody chose by it
    header = next(line for line in done.stdout.splitlines() if re.match(r"prompt +target ", line))
    assert "source copied" not in header


def test_the_winner_writes_for_rows_of_a_file(study, winner):
    folder = study[0]
    rows = rows_of(9, seed=1)
    rows[["source"]].to_csv(folder / "some.csv", index=False)
    done = autopeft_here("predict", "outputs/writes/winner", "--input", "some.csv", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    texts = [json.loads(line)["text"] for line in done.stdout.splitlines()]
    assert texts == winner.predict(rows["source"].tolist())
    assert texts == [winner.predict([text])[0] for text in rows["source"]], "padding must not bear on what is written"
    assert np.mean([text == target for text, target in zip(texts, rows["target"], strict=True)]) > 0.6
    assert winner.answers(rows).shape == (9, 3)


@pytest.mark.parametrize("form", ["merged", "peft"])
def test_exports_write_the_same_by_their_readme(models, winner, form, tmp_path, monkeypatch):
    folder = api.export(winner, tmp_path / "made", form)
    sources = rows_of(12, seed=2)["source"].tolist()
    shown, asked = 'sources = ["w9 a text", "w9 another one"]', f"sources = {[f'w9 {text}' for text in sources]}"
    made = run_readme(folder, models / "t5", monkeypatch, {shown: asked})
    assert made["texts"] == winner.predict(sources)


def test_rows_in_memory_are_recognised(tmp_path, models):
    from autopeft.tuning import specify

    content = {"name": "writes", "output": str(tmp_path / "out"), "task": {"kind": "seq2seq"}}
    content["model"] = {"name_or_path": str(models / "t5"), "dtype": DTYPE}
    spec = specify(content, translated().assign(id=1), None)
    assert pd.read_parquet(spec.data.train).columns.tolist() == ["translation"]
    problem = Problem.from_spec(spec, discover())
    assert first_words(problem.test.truths) == {"w0"}


def test_what_a_user_should_know_of_sources_is_told(winner):
    told = []
    long = " ".join(WORDS[:50] * 2)
    texts = winner.write([long, "w1 w2"], told.append, max_new_tokens=3)
    assert len(texts) == 2
    assert all(len(text.split()) <= 3 for text in texts)
    assert len(told) == 1
    assert "1 of 2" in told[0]
    assert "64 tokens" in told[0]
    assert winner.write(["w1 w2"], base=True) != winner.write(["w1 w2"])
    told.clear()
    winner.write(["w1 w2"], told.append, max_new_tokens=500)
    assert told == ["Texts have at most 127 tokens, the most that the model's decoder has positions for."]
