"""Tags for words, from files of several forms to entities with the characters they stand for."""

import csv
import json

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from autopeft_tokens.cells import placed, spans, tags, words
from autopeft_tokens.encoding import align
from autopeft_tokens.metrics import METRICS
from autopeft_tokens.tags import entities, strict_entities, tags_of

import autopeft as api
from autopeft.common.exceptions import DataError
from autopeft.data.cells import CellError
from autopeft.data.load import load_rows
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from tests.conftest import DTYPE, HEAVY, WORDS, autopeft_here
from tests.tiny_tokenizers import BACKENDS

TASK = find_task("token-classification")


def tagged(count: int = 90) -> pd.DataFrame:
    """Sentences in which w0 begins a name that w1 goes on with, and w2 is a place."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(count):
        said, named = [], []
        for _ in range(generator.integers(2, 5)):
            match generator.integers(3):
                case 0:
                    length = int(generator.integers(1, 3))
                    said += ["w0", "w1"][:length]
                    named += ["B-PER", "I-PER"][:length]
                case 1:
                    said.append("w2")
                    named.append("B-LOC")
                case _:
                    said += list(generator.choice(WORDS[10:], 2))
                    named += ["O", "O"]
        rows.append({"tokens": said, "tags": named})
    return pd.DataFrame(rows)


def specify(folder, content, suffix="jsonl", **data):
    (folder / f"rows.{suffix}").write_text(content)
    study = {
        "name": "tags",
        "model": {"name_or_path": "model"},
        "task": {"kind": TASK.kind},
        "data": {"train": f"rows.{suffix}", **data},
        "validation": {"folds": 2},
    }
    return StudySpec.from_mapping(study, folder=folder)


def load(spec):
    return load_rows(spec, TASK.taking(spec.data.named))


def as_lines(rows):
    return "\n".join(json.dumps(row) for row in rows.to_dict("records"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("B-A I-A O", [(0, 2, "A")]),
        ("B-A B-A", [(0, 1, "A"), (1, 2, "A")]),
        ("I-A I-A O I-B", [(0, 2, "A"), (3, 4, "B")]),
        ("B-A I-B", [(0, 1, "A"), (1, 2, "B")]),
        ("B-A I-A E-A S-A O", [(0, 3, "A"), (3, 4, "A")]),
        ("B-A L-A U-B", [(0, 2, "A"), (2, 3, "B")]),
        ("E-A I-A", [(0, 1, "A"), (1, 2, "A")]),
        ("A A O B", [(0, 2, "A"), (3, 4, "B")]),
        ("O O", []),
        ("B-NP-SBJ I-NP-SBJ", [(0, 2, "NP-SBJ")]),
    ],
)
def test_entities_are_read_as_conlleval_reads_them(given, expected):
    assert entities(given.split()) == expected


def test_the_strict_rule_asks_for_a_beginning():
    assert strict_entities(["I-A", "O", "B-A", "I-A", "S-B"]) == [(2, 4, "A"), (4, 5, "B")]
    assert strict_entities(["A", "A", "NP-SBJ"]) == [(0, 2, "A"), (2, 3, "NP-SBJ")]


def test_tags_of_entities_are_read_back_as_these():
    found = [(0, 2, "A"), (2, 3, "A"), (5, 6, "B")]
    assert tags_of(map(entity, found), 7) == ["B-A", "I-A", "B-A", "O", "O", "B-B", "O"]
    assert entities(tags_of(map(entity, found), 7)) == found


def entity(found):
    return entities(["B-x"])[0]._replace(start=found[0], end=found[1], type=found[2])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("entity_f1", 2 * 2 / (3 + 4)),
        ("entity_precision", 2 / 3),
        ("entity_recall", 2 / 4),
        ("entity_f1_macro", (2 / 4 + 1 + 0) / 3),
        ("entity_f1_strict", 2 * 1 / (2 + 4)),
        ("tag_accuracy", 5 / 9),
    ],
)
def test_metrics_by_hand(name, expected):
    truths = ["B-A I-A O B-B", "B-A O B-C O O"]  # four entities
    answers = ["I-A I-A O B-B", "O B-A"]  # the words behind the second have no answer
    assert METRICS[name](answers, truths) == pytest.approx(expected)
    assert METRICS[name](truths, truths) == 1.0


@pytest.mark.parametrize(
    "cell", [["New York", "is"], ("New York", "is"), np.array(["New York", "is"]), '["New York", "is"]']
)
def test_words_are_read_from_lists(cell):
    assert words(cell) == ("New York", "is")


def test_words_are_read_from_text_and_kept_as_json():
    assert words("New York is") == ("New", "York", "is")
    assert words("[unk] is no list") == ("[unk]", "is", "no", "list")
    assert words(json.dumps(words("a b"))) == ("a", "b")
    given = [{"start": 4, "end": 6, "label": "B"}, {"start": 0, "end": 3, "label": "A", "text": "New"}]
    assert spans(given) == ((0, 3, "A"), (4, 6, "B"))
    assert spans(json.dumps(spans(given))) == spans(given)
    assert spans([]) == ()


@pytest.mark.parametrize(
    ("read", "cell", "said"),
    [
        (words, [], "holds no word"),
        (words, ["a", " "], "holds an empty word"),
        (words, [["a"]], "is a list"),
        (words, {"a": 1}, "is a value of type dict"),
        (words, 3, "is a value of type int"),
        (tags, ["first name"], "has the tag 'first name'"),
        (spans, "PER", "is a text"),
        (spans, [3], "has a span without `start`"),
        (spans, [{"start": 0}], "has a span without `start`"),
        (spans, [[2, 1, "A"]], "has a span from 2 to 1"),
        (spans, [[True, 2, "A"]], "has a span from True to 2"),
        (spans, [[0, 2, ""]], "has the label ''"),
        (spans, [[0, 3, "A"], [2, 4, "B"]], "has spans that overlap"),
        (spans, [[0, 2, ["A"]]], "is a list"),
    ],
)
def test_a_cell_that_is_none_of_these_is_refused(read, cell, said):
    with pytest.raises(CellError, match=said.replace("(", r"\(")):
        read(cell)


CONLL = "-DOCSTART- -X- O\n\nEU NNP B-ORG\nrejects VBZ O\n\nPeter NNP B-PER\nBlackburn NNP I-PER\n\n"
UNER = "# sent_id = 1\n1\tEU\tB-ORG\t-\n2\trejects\tO\t-\n\n# text = x\n1\tPeter\tB-PER\t-\n2\tBlackburn\tI-PER\t-\n\n"


def many(content):
    return "".join(content.replace("EU", f"EU{n}").replace("Peter", f"Peter{n}") for n in range(10))


@pytest.mark.parametrize(("content", "suffix"), [(CONLL, "conll"), (UNER, "iob2")])
def test_files_of_tagged_words_are_read(content, suffix, tmp_path):
    found = load(specify(tmp_path, many(content), suffix))
    rows = pd.concat([found.train, found.test])
    assert len(rows) == 20
    assert {("EU3", "rejects"), ("Peter4", "Blackburn")} < {*rows["tokens"]}
    assert {*rows["tags"]} == {("B-ORG", "O"), ("B-PER", "I-PER")}
    assert set(found.labels) == {"O", "B-ORG", "I-ORG", "B-PER", "I-PER"}
    assert found.labels[0] == "O"


def test_other_columns_of_such_a_file_can_be_named(tmp_path):
    found = load(specify(tmp_path, many(CONLL), "conll", tags="column_2"))
    assert {*found.train["tags"], *found.test["tags"]} == {("NNP", "VBZ"), ("NNP", "NNP")}
    assert "NNP" in found.labels


def test_a_word_may_be_a_hash_and_comments_are_left_out(tmp_path):
    content = "".join(f"# a remark\n# O\nEU{n} B-ORG\n\n# id = {n}\nPeter{n} B-PER\n\n" for n in range(10))
    found = load(specify(tmp_path, content, "conll"))
    rows = {*found.train["tokens"], *found.test["tokens"]}
    assert {("#", "EU3"), ("Peter4",)} < rows
    assert len(rows) == 20


def test_a_line_of_another_width_is_told(tmp_path):
    with pytest.raises(DataError, match=r"rows\.conll, line 2: every line must have 3 fields .* but this one has 2"):
        load(specify(tmp_path, "EU NNP B-ORG\nrejects VBZ\n", "conll"))


def test_spans_of_a_text_become_tags_of_its_words(tmp_path):
    text = "Ada Lovelace, of London."
    rows = [{"said": f"{text} {n}", "entities": [[0, 12, "PER"], [17, 23, "LOC"]]} for n in range(20)]
    spec = specify(tmp_path, "\n".join(map(json.dumps, rows)), text="said", spans="entities")
    found = load(spec)
    assert TASK.taking(spec.data.named).inputs == ("text",)
    assert set(found.labels) == {"O", "B-LOC", "I-LOC", "B-PER", "I-PER"}
    assert not [note for note in found.notes if "inside a word" in note]
    task = TASK.taking(spec.data.named).knowing({}, found.labels)
    data = task.encode(found.train[:1], RowTokenizer(BACKENDS["bert"](), 32), found.labels)
    (written,) = task.written_truths(data.truths, found.labels)
    assert written.split()[:6] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]


def test_a_span_that_cuts_a_word_takes_all_of_it_and_is_told(tmp_path):
    rows = [{"text": f"Londoners {n}", "spans": [[0, 6, "LOC"]]} for n in range(20)]
    found = load(specify(tmp_path, "\n".join(map(json.dumps, rows)), text="text"))
    assert "16 spans begin or end inside a word; the whole words are taken." in found.notes


def row(text, *found):
    return json.dumps({"text": text, "spans": list(found)})


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            '{"tokens": ["a", "b"], "tags": ["O"]}',
            "line|row 1: every word must have a tag, but there are 2 words and 1 tags",
        ),
        ('{"tokens": ["a"], "tags": null}', 'the column "tags" must not be empty'),
        ('{"tokens": "", "tags": ["O"]}', 'the column "tokens" must not be empty|holds no word'),
        ('{"tokens": {"a": 1}, "tags": ["O"]}', 'every cell of the column "tokens" must be a list of words'),
    ],
)
def test_bad_rows_are_one_sentence(bad, said, tmp_path):
    with pytest.raises(DataError, match=said):
        load(specify(tmp_path, bad + "\n" + as_lines(tagged(30))))


def test_bad_spans_are_one_sentence(tmp_path):
    good = "\n".join(row(f"Ada {n}", [0, 3, "PER"]) for n in range(20))
    with pytest.raises(DataError, match=r'row 1: every span must lie within its text of 3 characters, but "LOC" goes'):
        load(specify(tmp_path, row("Ada", [0, 9, "LOC"]) + "\n" + good, text="text"))


def test_a_type_of_the_test_rows_that_nothing_teaches_is_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"tokens": ["w0"], "tags": ["B-PERS"]}\n')
    with pytest.raises(DataError, match=r'test\.jsonl, row 1: the type "PERS" does not occur .* did you mean "PER"'):
        load(specify(tmp_path, as_lines(tagged(30)), test="test.jsonl"))


def test_rows_without_any_entity_are_refused(tmp_path):
    lines = "\n".join(json.dumps({"tokens": ["a", str(n)], "tags": ["O", "O"]}) for n in range(20))
    with pytest.raises(DataError, match="at least two tags, but every word has O"):
        load(specify(tmp_path, lines))


@pytest.mark.parametrize("family", BACKENDS)
def test_the_first_token_of_each_word_is_found_with_every_tokenizer(family):
    rows = [{"tokens": ("Hello", "New York", "(", "unbelievable", ")", "caf\u00e9")}, {"tokens": ("a",)}]
    texts = [placed(row) for row in rows]
    reader = RowTokenizer(BACKENDS[family](), 64)
    found = reader.located([text for text, _ in texts])
    aligned = align(found, [places for _, places in texts])
    for place, (text, places) in enumerate(texts):
        own = aligned[found.offsets[place] : found.offsets[place + 1]]
        first = own[own[:, 0] >= 0]
        assert first[:, 0].tolist() == list(range(len(places)))
        assert [text[begin:end] for _, begin, end in first] == list(rows[place]["tokens"])
    assert np.array_equal(found.columns["input_ids"], reader([text for text, _ in texts]).columns["input_ids"])


@pytest.mark.parametrize("truncation", ["head", "tail", "both"])
def test_words_that_are_cut_off_are_not_taught_and_count_as_outside(truncation):
    rows = pd.DataFrame({"tokens": [tuple(WORDS[:20])], "tags": [("B-A",) * 20]})
    reader = RowTokenizer(BACKENDS["bert"](), 10, truncation)
    task = TASK.knowing({}, ("O", "B-A", "I-A"))
    data = task.encode(rows, reader, task.names)
    assert data.truncated.cut_rows == 1
    assert 0 < data.units[0] == (data.batch([0])["labels"] == 1).sum() < 20
    logits = torch.zeros(1, len(data.fields["input_ids"].values), 3)
    logits[..., 1] = 1
    answers = task.answer(type("Outputs", (), {"logits": logits})(), data.batch([0])).numpy()
    written = task.written(answers, task.names)
    assert METRICS["entity_recall"](written, ["B-A " * 20]) == pytest.approx(data.units[0] / 20)


def test_an_entity_has_the_characters_it_stands_for():
    case = TaskCase(TASK)
    task, labels = case.task, case.labels
    text, places = placed({"tokens": ("Ada", "Lovelace", "is", "here")})
    answer = np.full((6, 4), -1, np.float32)
    for word, (start, end) in enumerate(places):
        tag = ["B-PER", "I-PER", "O", "B-LOC"][word]
        answer[word] = labels.index(tag), 0.5 + word / 10, start, end
    found = task.as_json(answer, labels)
    assert [text[one["start"] : one["end"]] for one in found["entities"]] == ["Ada Lovelace", "here"]
    assert [one["type"] for one in found["entities"]] == ["PER", "LOC"]
    assert found["entities"][0]["score"] == pytest.approx(0.5)
    assert found["entities"][0]["words"] == [0, 2]
    assert found["tags"] == ["B-PER", "I-PER", "O", "B-LOC"]


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory, tiny_model):
    folder = tmp_path_factory.mktemp("tags")
    (folder / "model").symlink_to(tiny_model)
    (folder / "rows.jsonl").write_text(as_lines(tagged()))
    (folder / "study.toml").write_text(
        f"""
name = "tags"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "token-classification"
[data]
train = "rows.jsonl"
[search]
methods = ["lora", "adapter"]
trials = 3
references = false
epochs = 8
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""
    )
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_a_study_of_tags_finds_entities(study):
    folder, result = study
    assert result["metric"] == "entity_f1"
    assert result["test"]["baseline"] == 0.0
    assert result["test"]["baseline_name"] == "no entities"
    assert result["test"]["winner"] > 0.8
    with (folder / "outputs" / "tags" / "test_predictions.csv").open() as file:
        _, *rows = csv.reader(file)
    assert METRICS["entity_f1"]([r[2] for r in rows], [r[1] for r in rows]) == pytest.approx(result["test"]["winner"])


def test_its_report_shows_types_and_what_is_taken_for_what(study):
    folder, _ = study
    report = json.loads(autopeft_here("report", "study.toml", "--json", cwd=folder).stdout)
    section = report["sections"][0]
    assert section["title"] == "Entities by type"
    assert {line[0] for line in section["table"]["rows"]} == {"PER", "LOC"}
    shown = autopeft_here("report", "study.toml", cwd=folder).stdout
    assert "Entities by type" in shown
    page = (folder / "outputs" / "tags" / "report.html").read_text()
    assert "<caption>Entities by type</caption>" in page


def test_the_winner_predicts_entities_of_words_and_of_lines(study):
    folder, _ = study
    winner = api.load(folder / "outputs" / "tags" / "winner")
    (found,) = winner.as_json([["w0", "w1", "w20", "w2"]])
    assert [(one["type"], one["start"], one["end"]) for one in found["entities"]] == [("PER", 0, 5), ("LOC", 10, 12)]
    (folder / "some.jsonl").write_text('{"tokens": ["w0", "w1", "w20", "w2"]}\n{"tokens": ["w30", "w31"]}\n')
    done = autopeft_here("predict", "outputs/tags/winner", "--input", "some.jsonl", "--json", cwd=folder)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["tags"] == found["tags"]
    assert [one["type"] for one in lines[0]["entities"]] == ["PER", "LOC"]
    assert lines[1]["entities"] == []
    table = autopeft_here("predict", "outputs/tags/winner", "--input", "some.jsonl", cwd=folder).stdout
    assert table.splitlines()[0] == "tokens,entities,tags"


def test_its_exports_give_the_same_tags(study):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    folder, _ = study
    winner = api.load(folder / "outputs" / "tags" / "winner")
    for form in ("merged", "peft", "mlflow"):
        done = autopeft_here("export", "outputs/tags", "--format", form, "--to", form, cwd=folder)
        assert done.returncode in (0, 2), done.stderr
    readme = (folder / "merged" / "README.md").read_text()
    assert "AutoModelForTokenClassification" in readme
    assert "pipeline_tag: token-classification" in readme
    model = AutoModelForTokenClassification.from_pretrained(folder / "merged").eval()
    inputs = AutoTokenizer.from_pretrained(folder / "merged")(["w0 w1 w20 w2"], return_tensors="pt")
    with torch.no_grad():
        best = model(**inputs).logits[0, 1:-1].argmax(-1).tolist()
    assert [model.config.id2label[tag] for tag in best] == winner.as_json([["w0", "w1", "w20", "w2"]])[0]["tags"]
    import mlflow.pyfunc

    served = mlflow.pyfunc.load_model(str(folder / "mlflow"))
    answered = served.predict(pd.DataFrame({"tokens": [["w0", "w1", "w20", "w2"]]}))
    assert json.loads(answered["entities"][0])[0]["type"] == "PER"


@pytest.mark.exhaustive
def test_rows_in_memory_are_the_same_as_in_a_file(tmp_path, tiny_model):
    rows = [(list(r.tokens), list(r.tags)) for r in tagged(60).itertuples()]
    found = api.tune(
        model=tiny_model,
        data=rows,
        task=TASK.kind,
        search={"methods": ["lora"], "trials": 1, "epochs": 1},
        validation={"folds": 2},
        output=tmp_path / "out",
        progress=False,
    )
    assert found.winner.inputs == ("tokens",)


@pytest.mark.parametrize("cell", ["['EU', 'rejects']", "['EU' 'rejects']", '["EU" "rejects"]'])
def test_a_list_as_python_or_numpy_prints_it_is_refused(cell):
    for read in (words, tags):
        with pytest.raises(CellError, match="is a list as Python"):
            read(cell)
    with pytest.raises(CellError, match="is a list as Python or numpy prints it"):
        tags("[0 3 0]")


def test_a_word_in_brackets_stays_one():
    assert words("[54]") == ("[54]",)
    assert words("see [54] and [55]") == ("see", "[54]", "and", "[55]")
    assert words('["54", "x"]') == ("54", "x")
    assert tags("[0, 3]") == ("0", "3")


@pytest.mark.parametrize("metric", ["entity_f1", "tag_accuracy"])
def test_numbers_for_tags_have_no_entities(metric, tmp_path):
    lines = "\n".join(json.dumps({"tokens": ["a", f"b{n}"], "tags": [0, n % 3]}) for n in range(30))
    spec, task = specify(tmp_path, lines), find_task("token-classification").maximising(metric)
    if metric == "tag_accuracy":
        assert load_rows(spec, task).labels == ("0", "1", "2")
        return
    with pytest.raises(DataError, match=r'tags must be names, with O for .*`metric = "tag_accuracy"`'):
        load_rows(spec, task)


def test_names_of_tags_in_a_parquet_file_of_datasets_are_read(tmp_path):
    features = datasets.Features(
        {
            "tokens": datasets.List(datasets.Value("string")),
            "tags": datasets.List(datasets.ClassLabel(names=["O", "B-A"])),
        }
    )
    content = {"tokens": [["a", f"b{n}"] for n in range(30)], "tags": [[0, n % 2] for n in range(30)]}
    datasets.Dataset.from_dict(content, features).to_parquet(str(tmp_path / "rows.parquet"))
    spec = specify(tmp_path, "", train="rows.parquet")
    assert set(load(spec).labels) == {"O", "B-A", "I-A"}


def test_a_span_beside_all_words_is_told(tmp_path):
    lines = [row(f"Ada  sees Bob {n}", [0, 3, "PER"], [3, 5, "LOC"]) for n in range(20)]
    found = load(specify(tmp_path, "\n".join(lines), text="text"))
    assert "16 spans touch no word and taught nothing; check where they begin and end." in found.notes
