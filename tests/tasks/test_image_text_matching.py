"""Images and texts that go together: ranks, the loss, and from a table to a winner, its report and its exports."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import autopeft as api
from autopeft.common.exceptions import DataError, SpecError
from autopeft.data.load import load_rows
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task
from autopeft.testing.task_case import TaskCase
from autopeft.training.batch_plan import Execution
from tests.conftest import DTYPE, HEAVY, autopeft_here
from tests.tiny_pairs import save_pairs, save_tiny

TASK = find_task("image-text-matching").configured({})

STUDY = f"""
name = "pairs"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "image-text-matching"
[data]
train = "pairs.csv"
[search]
methods = ["adapter", "lora", "prefix_tuning"]
trials = 4
portfolio = false
references = false
epochs = 6
batch_size = 16
learning_rate = 0.01
temperature = [0.02, 0.2]
[validation]
folds = 2
packing = "off"
"""


def embeds(images, texts):
    """Vectors of length 1, and what a task's loss is given of them."""
    made = [
        torch.nn.functional.normalize(torch.tensor(values, dtype=torch.float32), dim=-1) for values in (images, texts)
    ]
    outputs = type("Outputs", (), {"image_embeds": made[0], "text_embeds": made[1]})()
    return outputs, torch.cat(made, dim=-1).numpy()


def scores(answers, truths):
    return [TASK.score(metric, truths, answers) for metric in TASK.metrics]


def test_ranks_are_places_among_all_rows():
    _, answers = embeds([[1, 0], [0, 1], [1, 1]], [[1, 0.1], [1, 0.9], [0, 1]])
    truths = np.array([[0, 0], [1, 1], [2, 2]])
    # Images find theirs at 1, 2, 3; texts at 1 (of the first), 3 and 2.
    written = TASK.written(np.concatenate([answers, truths], axis=1), ())
    assert written == ["1 1", "2 3", "3 2"]
    assert scores(answers, truths) == pytest.approx([1 / 3, 1.0, 1.0, (1 + 1 + 1 / 2 + 1 / 3 + 1 / 3 + 1 / 2) / 6])


def test_what_equals_a_rows_own_is_right_too_and_counts_once():
    _, answers = embeds([[1, 0], [1, 0], [0, 1]], [[0.2, 1], [1, 0], [0.2, 1]])
    distinct = np.array([[0, 0], [1, 1], [2, 2]])
    assert TASK.score("recall_at_1", distinct, answers) < 1
    same_image = np.array([[0, 0], [0, 1], [1, 0]])  # the first two images are one, and the first and last text
    assert TASK.score("recall_at_1", same_image, answers) == 1


def test_the_baseline_is_chance():
    truths = np.stack([np.arange(50)] * 2, axis=1)
    name, answers = TASK.baseline(truths, truths, ())
    assert name == "order of the rows"
    expected = [0.02, 0.1, 0.2, (1 / np.arange(1, 51)).mean()]
    assert scores(answers, truths) == pytest.approx(expected)


def test_drawn_rows_keep_their_places():
    metric = TASK.metrics["recall_at_1"]
    draws = np.array([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0], [0.0, 0.0, 3.0]])
    found = metric.of_draws(["1 1", "1 2", "4 5"], ["1 1"] * 3, draws)
    assert found == pytest.approx([0.5, 1.0, 0.0])


def test_the_loss_is_clips():
    outputs, _ = embeds(np.random.default_rng(0).normal(size=(5, 4)), np.random.default_rng(1).normal(size=(5, 4)))
    batch = {name: torch.arange(5) for name in ("images", "texts")}
    logits = outputs.image_embeds @ outputs.text_embeds.T / 0.07
    clip = sum(torch.nn.functional.cross_entropy(each, torch.arange(5)) for each in (logits, logits.T)) / 2
    assert float(TASK.loss(outputs, batch)) == pytest.approx(float(clip))
    alike = {"images": torch.arange(5), "texts": torch.tensor([0, 0, 2, 3, 4])}
    less = logits.clone()
    less[0, 1] = less[1, 0] = -torch.inf
    clip = sum(torch.nn.functional.cross_entropy(each, torch.arange(5)) for each in (less, less.T)) / 2
    assert float(TASK.loss(outputs, alike)) == pytest.approx(float(clip))
    warmer = TASK.trying({"temperature": 0.5})
    assert float(warmer.loss(outputs, batch)) != pytest.approx(float(TASK.loss(outputs, batch)))


def test_a_batch_whose_loss_compares_rows_is_never_cut():
    ways = [Execution(16, folds=3, whole=True)]
    while (way := ways[-1].smaller) is not None:
        ways.append(way)
    assert [(way.micro_batch, way.folds, way.checkpointing) for way in ways] == [
        (16, 3, False), (16, 1, False), (16, 1, True)
    ]  # fmt: skip


def test_towers_have_widths_and_heads_of_their_own():
    from autopeft.models.architecture import describe

    spec = describe(TaskCase(TASK).model, TASK.kind, None)
    assert set(spec.head) == {"visual_projection", "text_projection"}
    widths = {linear.name.split(".")[0]: linear.in_features for linear in spec.linears if linear.role == "query"}
    assert widths == {"vision_model": 32, "text_model": 48}
    assert {spec.heads_of(linear.layer)[0] for linear in spec.linears if linear.name.startswith("vision")} == {2}
    assert {spec.heads_of(linear.layer)[0] for linear in spec.linears if linear.name.startswith("text")} == {4}
    for tower in ("vision_model", "text_model"):
        roles = {linear.role for linear in spec.linears if linear.name.startswith(tower)}
        assert {"query", "key", "value", "attention_output", "feed_forward_up", "feed_forward_down"} == roles


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory):
    """The folder of a finished study."""
    place = tmp_path_factory.mktemp("pairs")
    save_tiny(place / "model")
    save_pairs(place)
    (place / "study.toml").write_text(STUDY)
    done = autopeft_here("run", "study.toml", "--json", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    (place / "result.json").write_text(done.stdout)
    return place


@pytest.fixture(scope="module")
def winner(study):
    return api.load(study / "outputs" / "pairs" / "winner")


def some(study):
    rows = pd.read_csv(study / "pairs.csv").iloc[::9]
    return rows.assign(image=[str(study / name) for name in rows["image"]])


def test_a_table_of_pairs_becomes_a_winner(study, winner):
    result = json.loads((study / "result.json").read_text())
    assert result["metric"] == "recall_at_1"
    assert result["test"]["baseline_name"] == "order of the rows"
    assert result["test"]["winner"] > result["test"]["baseline"]
    assert (winner.card.inputs, winner.card.max_length, winner.card.image_size) == (("image", "text"), 32, None)
    with (study / "outputs" / "pairs" / "test_predictions.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:3] == ["row", "label", "winner"]
    places = np.array([row[2].split() for row in rows], int)
    assert (places == 1).mean() == pytest.approx(result["test"]["winner"])


def test_its_report_shows_images_whose_text_was_found_late(study):
    output = study / "outputs" / "pairs"
    done = autopeft_here("report", output, "--html", output / "page.html", "--json", cwd=study)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert all(0 < one["difference"]["p"] <= 1 for one in report["test"]["comparisons"])
    assert report["sections"][0]["title"] == "Images that were matched wrong"
    assert "is number" in report["sections"][0]["exhibits"][0]
    assert "data:image/png;base64," in (output / "page.html").read_text()


def test_the_winner_says_how_alike_the_two_of_a_row_are(study, winner):
    rows = some(study)
    expected = winner.predict(rows)
    assert all(-1 <= value <= 1 for value in expected)
    rows.to_csv(study / "some.csv", index=False)
    done = autopeft_here("predict", "outputs/pairs/winner", "--input", "some.csv", cwd=study)
    table = pd.read_csv(io.StringIO(done.stdout))
    assert table["similarity"].tolist() == pytest.approx(expected, abs=1e-5)
    done = autopeft_here("predict", "outputs/pairs/winner", "--input", "some.csv", "--json", cwd=study)
    found = [json.loads(line)["similarity"] for line in done.stdout.splitlines()]
    assert found == pytest.approx(expected, abs=1e-5)
    with pytest.raises(DataError, match=r'row \d+ has an empty "text"'):
        winner.predict(rows.assign(text=None))
    with pytest.raises(DataError, match="image"):
        winner.predict(rows.assign(image="nowhere.png"))


def of_lora(study, winner, folder):
    """The winner, or one of LoRA in its place, which every form can hold."""
    if winner.card.method == "lora":
        return winner
    from autopeft.search.refit import refit
    from autopeft.winner import winner as artifact

    problem = Problem.from_spec(StudySpec.from_file(study / "study.toml"), discover())
    lora = problem.space["lora"].default()
    card = replace(winner.card, method="lora", params=dict(lora.params), digests={})
    artifact.save(refit(problem, lora), lora.method, problem.reader, card, folder)
    return api.load(folder)


@pytest.mark.exhaustive
@pytest.mark.parametrize("form", ["merged", "peft", "mlflow", pytest.param("onnx", marks=pytest.mark.exhaustive)])
def test_exports_answer_as_the_winner_does(form, study, winner, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime") if form == "onnx" else None
    if onnxruntime:
        pytest.importorskip("onnxscript")
    winner, rows = of_lora(study, winner, tmp_path / "lora"), some(study)
    expected = winner.predict(rows)
    folder = api.export(winner, tmp_path / "made", form)
    if form == "mlflow":
        import mlflow.pyfunc

        content = rows.assign(image=[Path(name).read_bytes() for name in rows["image"]])
        found = mlflow.pyfunc.load_model(str(folder)).predict(content)["similarity"]
        assert found.tolist() == pytest.approx(expected, abs=1e-4)
        return
    from transformers import AutoModel, AutoProcessor

    images = [Image.open(name).convert("RGB") for name in rows["image"]]
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(text=rows["text"].tolist(), images=images, padding=True, truncation=True, return_tensors="pt")
    if onnxruntime:
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        made = session.run(None, {one.name: inputs[one.name].numpy() for one in session.get_inputs()})
        image, text = map(torch.from_numpy, made)
    else:
        model = AutoModel.from_pretrained(folder if form == "merged" else study / "model")
        if form == "peft":
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, folder)
        outputs = model.eval()(**inputs)
        image, text = outputs.image_embeds.detach(), outputs.text_embeds.detach()
    assert (image * text).sum(-1).tolist() == pytest.approx(expected, abs=1e-4)
    readme = (folder / "README.md").read_text()
    assert form == "peft" or "similarity = (image_embeds * text_embeds).sum(-1)" in readme
    assert "AutoProcessor" in readme
    assert "AutoTokenizer" not in readme


def specify(folder, rows, **more):
    rows.to_csv(folder / "rows.csv", index=False)
    content = {
        "name": "pairs",
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "task": {"kind": TASK.kind},
        "data": {"train": "rows.csv"},
        "validation": {"folds": 2},
        **more,
    }
    return StudySpec.from_mapping(content, folder=folder)


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("image", "pictures/none.png", "row 7"),
        ("image", "", 'row 7: every cell of the column "image" must be an image'),
        ("text", " ", 'row 7: the column "text" must not be empty'),
    ],
)
def test_a_bad_row_is_named(tmp_path, column, cell, said):
    save_pairs(tmp_path, 1)
    rows = pd.read_csv(tmp_path / "pairs.csv")
    rows.loc[5, column] = cell
    with pytest.raises(DataError, match=said) as caught:
        load_rows(specify(tmp_path, rows), TASK)
    assert "\n" not in str(caught.value)


def test_an_image_with_several_texts_is_on_one_side(tmp_path):
    save_pairs(tmp_path, 1)
    rows = pd.read_csv(tmp_path / "pairs.csv")
    (tmp_path / "copies").mkdir()
    copied = []
    for name in rows["image"]:
        copied.append(name.replace("pictures", "copies"))
        (tmp_path / copied[-1]).write_bytes((tmp_path / name).read_bytes())
    again = rows.assign(image=copied, text=rows["text"] + " and")
    found = load_rows(specify(tmp_path, pd.concat([rows, again])), TASK)
    train, test = ({picture.digest for picture in part["image"]} for part in (found.train, found.test))
    assert not train & test
    assert len(found.train) + len(found.test) == 2 * len(rows)


def test_texts_that_are_all_the_same_teach_nothing(tmp_path):
    save_pairs(tmp_path, 1)
    rows = pd.read_csv(tmp_path / "pairs.csv").assign(text="red")
    with pytest.raises(DataError, match="at least 2 different texts"):
        load_rows(specify(tmp_path, rows), TASK)


def test_a_batch_of_one_row_and_a_model_without_towers_are_refused(study, tiny_model, tmp_path):
    spec = StudySpec.from_file(study / "study.toml")
    search = spec.search.model_copy(update={"overrides": {"batch_size": 1}})
    with pytest.raises(SpecError, match=r"`batch_size` in .* must be at least 2"):
        Problem.from_spec(spec.model_copy(update={"search": search}), discover())
    model = spec.model.model_copy(update={"name_or_path": str(tiny_model)})
    with pytest.raises(api.AutopeftError) as caught:
        Problem.from_spec(spec.model_copy(update={"model": model}), discover())
    assert "\n" not in str(caught.value)
