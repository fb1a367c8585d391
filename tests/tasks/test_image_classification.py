"""One label for an image: from a folder to a winner, its report and its exports; and images that cannot be read."""

import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import autopeft
from autopeft.common.exceptions import DataError, ModelError, SpecError
from autopeft.data.load import load_rows
from autopeft.data.picture import Picture, as_picture
from autopeft.data.table import open_table
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.image_reader import ImageReader
from autopeft.study.file import StudySpec
from autopeft.study.report_section import Exhibit, ReportSection, read, write
from autopeft.tasks.registry import find_task
from autopeft.testing.tiny import SIDE
from tests.conftest import DTYPE, HEAVY, autopeft_here
from tests.tiny_images import COLOURS, save_pictures, save_tiny

STUDY = f"""
name = "colours"
[model]
name_or_path = "model"
dtype = "{DTYPE}"
[task]
kind = "image-classification"
[data]
train = "pictures"
[search]
methods = ["adapter", "lora", "prefix_tuning"]
trials = 4
references = false
epochs = 4
batch_size = 8
learning_rate = 0.02
[validation]
folds = 2
"""


@pytest.fixture(scope="module", params=HEAVY)
def study(tmp_path_factory):
    """The folder of a finished study."""
    place = tmp_path_factory.mktemp("images")
    save_tiny(place / "model")
    save_pictures(place / "pictures")
    (place / "pictures" / "red" / "notes.txt").write_text("of no use")
    (place / "study.toml").write_text(STUDY)
    done = autopeft_here("run", "study.toml", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    (place / "said.txt").write_text(done.stdout + done.stderr)
    return place


@pytest.fixture(scope="module")
def winner(study):
    return autopeft.load(study / "outputs" / "colours" / "winner")


def files(study):
    return [study / "pictures" / colour / f"{number}.png" for colour in COLOURS for number in range(3)]


def test_a_folder_of_images_becomes_a_winner(study, winner):
    result = json.loads((study / "outputs" / "colours" / "result.json").read_text())
    assert len(result["records"]) == 4
    assert all(record["state"] in ("complete", "pruned", "COMPLETE", "PRUNED") for record in result["records"])
    assert winner.card.labels == COLOURS
    assert (winner.card.max_length, winner.card.truncation, winner.card.inputs) == (None, None, ("image",))
    said = (study / "said.txt").read_text().replace("\n", " ")
    assert "1 file that is not an image by its name was left out, such as red/notes.txt" in said


def test_paths_bytes_arrays_and_images_are_answered_alike(study, winner):
    paths = files(study)
    expected = winner.predict_proba([str(path) for path in paths])
    images = [Image.open(path) for path in paths]
    for cells in (paths, [path.read_bytes() for path in paths], images, [np.asarray(image) for image in images]):
        np.testing.assert_allclose(winner.predict_proba(cells), expected, atol=1e-6)
    frame = pd.DataFrame({"image": [{"bytes": path.read_bytes(), "path": None} for path in paths]})
    np.testing.assert_allclose(winner.predict_proba(frame), expected, atol=1e-6)


def test_the_command_answers_a_folder_and_names_each_image(study, tmp_path):
    for path in files(study)[:2]:
        shutil.copy(path, tmp_path / f"{path.parent.name}-{path.name}")
    (tmp_path / "notes.txt").write_text("of no use")
    folder = study / "outputs" / "colours" / "winner"
    done = autopeft_here("predict", folder, "--input", tmp_path, cwd=study)
    table = pd.read_csv(io.StringIO(done.stdout))
    assert table["image"].tolist() == ["blue-0.png", "blue-1.png"]
    assert [*table.columns] == ["image", "label", "probability"]
    assert "1 file that is not an image by its name was left out, such as notes.txt" in done.stderr
    one = autopeft_here("predict", folder, "--json", "--input", tmp_path / "blue-0.png", cwd=study)
    answer = json.loads(one.stdout)
    assert answer["label"] == table["label"][0]
    assert answer["image"].endswith("blue-0.png")


def test_the_report_shows_what_was_answered_wrong(study):
    output = study / "outputs" / "colours"
    sections = find_task("image-classification").sections(
        pd.DataFrame({"image": [Picture(path, path.name) for path in files(study)[:3]]}),
        np.array([0, 0, 1]),
        np.array([[0.9, 0.1, 0.0], [0.3, 0.7, 0.0], [0.8, 0.2, 0.0]], np.float32),
        COLOURS,
    )
    captions = [one.caption for one in sections[-1].exhibits]
    assert captions == ["green, answered blue (80%): 2.png", "blue, answered green (70%): 1.png"]
    write(sections, output / "report_sections.json")
    done = autopeft_here("report", output, "--html", output / "page.html", cwd=study)
    assert done.returncode == 0, done.stderr
    assert "green, answered blue (80%): 2.png" in done.stdout
    page = (output / "page.html").read_text()
    assert page.count("data:image/png;base64,iVBOR") == 2
    told = json.loads(autopeft_here("report", output, "--json", cwd=study).stdout)
    assert told["sections"][-1]["exhibits"] == captions


def test_sections_are_read_back(tmp_path):
    given = [ReportSection("Title", "Text", (Exhibit("words", b"\x89PNG\x00\xff"),))]
    write(given, tmp_path / "sections.json")
    assert read(tmp_path / "sections.json") == given
    (tmp_path / "sections.json").write_text('[{"title": 1}]')
    with pytest.raises(ValueError, match="must hold sections"):
        read(tmp_path / "sections.json")


@pytest.mark.parametrize("form", ["merged", "mlflow", "onnx", "peft"])
def test_exports_answer_as_the_winner_does(form, study, winner, tmp_path):
    if form == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    if form in ("merged", "peft") and winner.card.method != "lora":
        problem = Problem.from_spec(StudySpec.from_file(study / "study.toml"), discover())
        from autopeft.search.refit import refit
        from autopeft.winner import winner as artifact

        lora = problem.space["lora"].default()
        card = artifact.Card(**{**vars(winner.card), "method": "lora", "params": dict(lora.params), "digests": {}})
        artifact.save(refit(problem, lora), lora.method, problem.reader, card, tmp_path / "lora")
        winner = autopeft.load(tmp_path / "lora")
    paths = files(study)
    expected = winner.predict_proba([str(path) for path in paths])
    folder = autopeft.export(winner, tmp_path / "made", form)
    images = [Image.open(path) for path in paths]
    if form == "mlflow":
        import mlflow.pyfunc

        table = mlflow.pyfunc.load_model(str(folder)).predict(
            pd.DataFrame({"image": [path.read_bytes() for path in paths]})
        )
        assert table["label"].tolist() == winner.predict(paths)
        return
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder)
    inputs = processor(images, return_tensors="pt")
    if form == "onnx":
        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        (logits,) = session.run(None, {"pixel_values": inputs["pixel_values"].numpy()})
        found = torch.from_numpy(logits)
    elif form == "merged":
        found = AutoModelForImageClassification.from_pretrained(folder).eval()(**inputs).logits.detach()
    else:
        from peft import PeftModel

        plain = AutoModelForImageClassification.from_pretrained(
            study / "model", ignore_mismatched_sizes=True,
            id2label=dict(enumerate(COLOURS)), label2id={c: i for i, c in enumerate(COLOURS)},
        )  # fmt: skip
        found = PeftModel.from_pretrained(plain, folder).eval()(**inputs).logits.detach()
    np.testing.assert_allclose(found.softmax(-1).numpy(), expected, atol=1e-4)
    readme = (folder / "README.md").read_text()
    assert "AutoImageProcessor" in readme
    assert "AutoTokenizer" not in readme
    assert "tokens" not in readme


def test_a_table_of_paths_and_rows_in_memory_hold_the_same_images(tmp_path):
    save_pictures(tmp_path / "pictures", 5)
    task = find_task("image-classification")

    def rows(train):
        tables = {"model": {"name_or_path": "m"}, "task": {"kind": task.kind}, "data": {"train": str(train)}}
        return load_rows(StudySpec.from_mapping({"name": "t", **tables}, "t"), task)

    folder = rows(tmp_path / "pictures")
    frame = pd.DataFrame(
        [(f"pictures/{colour}/{n}.png", colour) for colour in COLOURS for n in range(5)], columns=["image", "label"]
    )
    frame.to_csv(tmp_path / "rows.csv", index=False)
    assert rows(tmp_path / "rows.csv").fingerprint == folder.fingerprint
    renamed = {"name": "t", "model": {"name_or_path": "m"}, "task": {"kind": task.kind}}
    frame.rename(columns={"image": "file", "label": "colour"}).to_csv(tmp_path / "named.csv", index=False)
    named = {"train": str(tmp_path / "named.csv"), "image": "file", "label": "colour"}
    found = load_rows(StudySpec.from_mapping({**renamed, "data": named}, "t"), task)
    assert found.fingerprint == folder.fingerprint
    content = frame.assign(image=[{"bytes": (tmp_path / name).read_bytes(), "path": name} for name in frame["image"]])
    content.to_parquet(tmp_path / "rows.parquet")
    assert rows(tmp_path / "rows.parquet").fingerprint == folder.fingerprint


def test_rows_in_memory_are_kept_and_read_again(tmp_path):
    from autopeft.tuning import specify

    save_pictures(tmp_path / "pictures", 5)
    arrays = [
        (np.asarray(Image.open(tmp_path / "pictures" / colour / f"{n}.png")), colour) for colour in COLOURS
        for n in range(5)
    ]  # fmt: skip
    tables = {"model": {"name_or_path": "m"}, "task": {"kind": "image-classification"}}
    spec = specify({"name": "t", "output": str(tmp_path / "out"), **tables}, arrays, None)
    rows = load_rows(spec, find_task("image-classification"))
    image, _ = rows.train["image"].iloc[0].opened()
    assert image.size == (24, 20)
    assert len(rows.train) + len(rows.test) == 15


def test_an_image_that_comes_twice_is_left_out_whatever_its_name(tmp_path):
    save_pictures(tmp_path / "pictures", 6)
    shutil.copy(tmp_path / "pictures" / "red" / "0.png", tmp_path / "pictures" / "red" / "copy.png")
    tables = {"model": {"name_or_path": "m"}, "task": {"kind": "image-classification"}}
    spec = StudySpec.from_mapping({"name": "t", **tables, "data": {"train": str(tmp_path / "pictures")}}, "t")
    found = load_rows(spec, find_task("image-classification"))
    assert any(note.startswith("1 training row that repeat") for note in found.notes)


def saved(folder, name, image, **options):
    image.save(folder / name, **options)
    return Picture(folder / name, name)


def test_odd_modes_are_told_or_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 4), np.uint8)
    colours = Image.fromarray(noise[..., :3])
    clear = Image.fromarray(np.concatenate([noise[..., :3], np.zeros((20, 20, 1), np.uint8)], axis=-1))
    pictures = [
        saved(tmp_path, "plain.png", colours),
        saved(tmp_path, "grey.png", colours.convert("L")),
        saved(tmp_path, "clear.png", clear),
        saved(tmp_path, "print.jpg", colours.convert("CMYK")),
        saved(tmp_path, "palette.gif", colours.convert("P")),
    ]
    from transformers import ViTImageProcessorPil

    reader = ImageReader(ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}), 4)
    pixels = reader(pictures)
    assert pixels.values.shape == (5, 3, SIDE, SIDE)
    assert (pixels.values[2] == 255).all()  # all transparent: white
    told = " ".join(reader.told(None))
    for words in ("mode RGBA (such as clear.png)", "mode CMYK (such as print.jpg)", "mode P (such as palette.gif)"):
        assert words in told
    assert "plain.png" not in told
    assert "grey.png" not in told
    deep = saved(tmp_path, "deep.png", Image.fromarray(np.full((20, 20), 40_000, np.uint16)))
    with pytest.raises(DataError, match=r"image deep\.png must have 8 bits per channel"):
        reader([deep])


@pytest.mark.parametrize("content", [b"", b"words", b"\x89PNG\r\n\x1a\n", "cut", b"<svg xmlns='http://w3.org'/>"])
def test_a_file_that_is_no_image_is_named(content, tmp_path):
    path = tmp_path / "odd.png"
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"the image odd\.png cannot be read as an image") as raised:
        Picture(path, "odd.png").opened()
    assert len(str(raised.value)) < 300


def test_a_photograph_that_was_turned_is_put_upright(tmp_path):
    image = Image.fromarray(np.zeros((10, 30, 3), np.uint8))
    tags = image.getexif()
    tags[0x0112] = 6  # the camera lay on its side
    image.save(tmp_path / "turned.jpg", exif=tags)
    upright, _ = Picture(tmp_path / "turned.jpg", "turned.jpg").opened()
    assert upright.size == (10, 30)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("none.png", "which does not exist"),
        (" ", "is empty"),
        (3, "value of type int"),
        (np.zeros((3, 3)), "array"),
        ("a\0b", "does not exist"),
    ],
)
def test_a_cell_that_is_no_image_is_told(value, words, tmp_path):
    from autopeft.data.cells import CellError

    with pytest.raises(CellError, match=words):
        as_picture(value, tmp_path)


def test_a_row_that_names_no_file_is_told_by_its_number(tmp_path):
    save_pictures(tmp_path / "pictures", 5)
    (tmp_path / "rows.csv").write_text("image,label\npictures/red/0.png,red\npictures/red/99.png,red\n")
    tables = {"model": {"name_or_path": "m"}, "task": {"kind": "image-classification"}}
    spec = StudySpec.from_mapping({"name": "t", **tables, "data": {"train": str(tmp_path / "rows.csv")}}, "t")
    with pytest.raises(DataError, match=r'row 3: every cell of the column "image" must be an image, but .*99\.png'):
        load_rows(spec, find_task("image-classification"))


def test_folders_of_other_things_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="nor a folder of images with a sub-folder for each class"):
        open_table(tmp_path / "empty")
    save_pictures(tmp_path / "pictures", 5)
    shutil.copy(tmp_path / "pictures" / "red" / "0.png", tmp_path / "pictures" / "loose.png")
    tables = {"model": {"name_or_path": "m"}, "task": {"kind": "image-classification"}}
    spec = StudySpec.from_mapping({"name": "t", **tables, "data": {"train": str(tmp_path / "pictures")}}, "t")
    with pytest.raises(DataError, match=r"row 11 \(loose\.png\): the column .label. must not be empty"):
        load_rows(spec, find_task("image-classification"))


@pytest.mark.parametrize(
    ("line", "words"),
    [("image_size = 64", "must be a size that the model reads"), ("max_length = 40", "is for texts")],
)
def test_settings_that_do_not_fit_images_are_told(line, words, tmp_path):
    save_tiny(tmp_path / "model", "vit")
    save_pictures(tmp_path / "pictures", 5)
    (tmp_path / "study.toml").write_text(STUDY.replace('"model"\n', f'"model"\n{line}\n'))
    with pytest.raises((SpecError, ModelError), match=words):
        Problem.from_spec(StudySpec.from_file(tmp_path / "study.toml"), discover())


def test_images_of_another_size_are_read_where_the_model_can(tmp_path):
    save_tiny(tmp_path / "model", "dinov2")
    save_pictures(tmp_path / "pictures", 5)
    (tmp_path / "study.toml").write_text(STUDY.replace('"model"\n', '"model"\nimage_size = 32\n'))
    problem = Problem.from_spec(StudySpec.from_file(tmp_path / "study.toml"), discover())
    assert problem.train.fields["pixel_values"].values.shape[1:] == (3, 32, 32)
    assert problem.train.lengths.tolist() == [65] * len(problem.train)
    problem.reader.save(tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "preprocessor_config.json").read_text())
    assert kept["size"] == {"height": 32, "width": 32}


@pytest.mark.parametrize(
    "kind", ["BitImageProcessorPil", "ConvNextImageProcessorPil", "DeiTImageProcessorPil", "SiglipImageProcessorPil",
             "MobileViTImageProcessorPil"],
)  # fmt: skip
def test_pixels_are_what_the_image_processor_makes(kind, tmp_path):
    import transformers

    processor = getattr(transformers, kind)()
    picture = saved(
        tmp_path, "one.png", Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 80, 3), np.uint8))
    )
    for size in (None, 48):
        reader = ImageReader(processor, 16, size)
        pixels = reader([picture])
        found = pixels.values[0] * pixels.scale + pixels.shift
        expected = reader.processor(images=[picture.opened()[0]], return_tensors="np")["pixel_values"][0]
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert size is None or found.shape == (3, 48, 48)


def test_the_lower_layers_run_once_and_give_the_same(tmp_path):
    save_tiny(tmp_path / "model", "vit")
    save_pictures(tmp_path / "pictures", 6)
    (tmp_path / "study.toml").write_text(STUDY.replace(f'"{DTYPE}"', '"float32"'))
    problem = Problem.from_spec(StudySpec.from_file(tmp_path / "study.toml"), discover())
    from autopeft.training.trunk_cache import lowest_trained

    head = problem.base.copy()
    assert lowest_trained(head, problem.base.spec) == 3
    data, undo = problem.trunk.prepare("head", head)
    assert data.states is not None
    assert data.states.values.shape == (len(problem.train), 17, 32)
    assert problem.trunk.shape(5) == (5, 17, 32)
    rows = np.arange(4)
    with torch.no_grad():
        cut = head.eval()(**problem.task.model_inputs(data.batch(rows))).logits
        undo()
        whole = head(**problem.task.model_inputs(problem.train.batch(rows))).logits
    torch.testing.assert_close(cut, whole, rtol=1e-4, atol=1e-5)


def test_a_linked_folder_of_a_class_is_told(tmp_path):
    save_pictures(tmp_path / "elsewhere", 3)
    save_pictures(tmp_path / "pictures", 3)
    (tmp_path / "pictures" / "yellow").symlink_to(tmp_path / "elsewhere" / "red")
    told = []
    open_table(tmp_path / "pictures", note=told.append)
    assert told == ["1 link to a folder was not followed, such as yellow; put the images themselves there."]


def test_the_parts_of_a_data_set_are_no_classes(tmp_path):
    for part in ("train", "val"):
        save_pictures(tmp_path / "data" / part, 3)
    with pytest.raises(DataError, match=r"has train and val, which are parts of a data set; .*`train = \"data/"):
        open_table(tmp_path / "data")
    assert {*next(open_table(tmp_path / "data" / "train").blocks(["label"]))["label"]} == {*COLOURS}
