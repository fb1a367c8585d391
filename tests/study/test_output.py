"""What is in an output folder and not from a study stays there as it is."""

import pandas as pd
import pytest

import autopeft as api
from autopeft.common.exceptions import SpecError, StudyError, UserInputError
from autopeft.study.folder import CHECKPOINTS, JOURNAL, OUTBOX, PHASE
from autopeft.study.output import require, taken
from autopeft.training.checkpoint import Checkpoint
from tests.conftest import autopeft_here, tiny_rows, trained_winner
from tests.reporting.test_report import record, running, store
from tests.search.test_run import edit, run_study


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["report.html", "winner/notes.md", "checkpoint/best.pt", "result.json", "x/y/z"])
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_folder_with_somebodys_files_and_no_study_is_refused_and_stays_as_it_is(tiny_study, name, command):
    output = tiny_study.parent / "outputs" / "tiny"
    (output / name).parent.mkdir(parents=True)
    (output / name).write_text("mine")
    before = everything(output)
    done = autopeft_here(command, tiny_study.name, cwd=tiny_study.parent)
    assert done.returncode == 2
    assert f"holds {name.split('/')[0]}, and no study; give another `output`" in done.stderr
    assert everything(output) == before


def test_tune_writes_no_rows_beside_somebodys_files(tiny_study):
    output = tiny_study.parent / "mine"
    output.mkdir()
    (output / "thesis.tex").touch()
    with pytest.raises(SpecError, match=r"holds thesis\.tex, and no study"):
        api.tune(model=tiny_study.parent / "model", data=tiny_rows(), output=output, progress=False)
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]


def test_what_a_study_or_a_system_puts_there_first_is_no_bar(tmp_path):
    for name in (".gitignore", ".DS_Store", "plan.png", "study.lock"):
        (tmp_path / name).touch()
    (tmp_path / "rows").mkdir()
    require(tmp_path)
    require(tmp_path / "nowhere")
    (tmp_path / "a").touch()
    for name in "bcde":
        (tmp_path / name).touch()
    with pytest.raises(SpecError, match="holds a, b, c and 2 more, and no study"):
        require(tmp_path)
    (tmp_path / JOURNAL).touch()
    require(tmp_path)
    with pytest.raises(SpecError, match=r"must be a folder, but .* is a file"):
        require(tmp_path / "a")


def test_what_killed_processes_left_is_cleared_away(tmp_path):
    (tmp_path / JOURNAL).touch()
    gone = 2**31 - 1  # no system has so many processes
    left = [f".winner.{gone}-0123abcd.draft", f".report.html.{gone}-0123abcd.draft", ".winner-ab_c1234"]
    for name in (*left, ".report.html.draft", ".winner-of-the-cup", f"rows/.0123.parquet.{gone}-0123abcd.draft"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with taken(tmp_path):
        found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if "lock" not in path.name}
    assert found == {JOURNAL, PHASE, ".winner-of-the-cup", "rows"}
    assert not (tmp_path / PHASE).exists()


@pytest.mark.exhaustive
def test_a_persons_files_among_a_studys_own_survive_another_winner(tiny_study):
    edit(
        tiny_study,
        ("trials = 4", "trials = 1"),
        ('methods = ["adapter", "lora", "prefix_tuning"]', 'methods = ["adapter"]'),
    )
    run_study(tiny_study)
    output = tiny_study.parent / "outputs" / "tiny"
    mine = [
        output / name
        for name in ("notes.md", "winner/notes.md", "mlflow_model/notes.md", "mlflow_model/data/winner/notes.md",
                     "checkpoint/notes.md", "checkpoint/0123456789abcdef/notes.md", "artifacts/notes.md",
                     "winner/earlier/autopeft.json", "winner/earlier/README.md", "mlflow_model/old/addon.safetensors")
    ]  # fmt: skip
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    # The same folder with another study's winner: what is left of the first one must not be taken for a part of it.
    edit(tiny_study, ('methods = ["adapter"]', 'methods = ["lora"]'))
    (output / JOURNAL).write_bytes(b"")
    result = run_study(tiny_study)
    assert result["best"]["method"] == "lora"
    assert {path: path.read_text() for path in mine} == dict.fromkeys(mine, "mine")
    assert not (output / "winner" / "addon.safetensors").exists()
    assert not (output / "mlflow_model" / "data" / "winner" / "addon.safetensors").exists()
    winner = api.load(output / "winner")
    assert winner.card.method == "lora"
    assert winner.predict(["w1 w2"]) == api.load(output / "mlflow_model" / "data" / "winner").predict(["w1 w2"])


def test_clearing_checkpoints_removes_what_trials_wrote_and_nothing_else(tmp_path):
    trial = Checkpoint.of(tmp_path, {"method": "lora"})
    trial.folder.mkdir(parents=True)
    ours = [trial.folder / name for name in ("0.safetensors", "1.draft", ".0.safetensors.7-0123abcd.draft")]
    mine = [trial.folder / "notes.md", tmp_path / CHECKPOINTS / "last.ckpt"]
    for path in (*ours, *mine):
        path.touch()
    Checkpoint.clear(tmp_path)
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in mine)


def test_a_winner_is_saved_in_a_new_folder_or_over_a_winner(tiny_study, tmp_path):
    adapter, lora = trained_winner(tiny_study, "adapter"), trained_winner(tiny_study, "lora")
    project = tmp_path / "project"
    project.mkdir()
    (project / "README.md").write_text("mine")
    with pytest.raises(
        UserInputError, match=r"new or empty folder, or over another winner, but .*project is none of these"
    ):
        lora.save(project)
    assert everything(project) == {project / "README.md": b"mine"}
    target = tmp_path / "a" / "target"
    lora.save(target)
    (target / "notes.md").write_text("mine")
    adapter.save(target)
    assert (target / "notes.md").read_text() == "mine"
    again = api.load(target)
    assert again.card.method == "adapter"
    rows = pd.DataFrame({"text": ["w1 w2 w30"]})
    assert (again.predict_proba(rows) == adapter.predict_proba(rows)).all()
    assert {path.name for path in target.parent.iterdir()} == {"target"}


def test_export_over_a_file_is_refused_before_anything_is_loaded(tiny_study):
    with pytest.raises(UserInputError, match="must be new or empty"):
        api.export(tiny_study.parent / "nowhere", tiny_study, "peft")


def test_commands_on_a_study_that_runs(tiny_study):
    output = store(tiny_study.parent / "outputs" / "tiny", [record(0)])
    (output / OUTBOX).touch()
    with running(output):
        for command in ("run", "sync"):
            done = autopeft_here(command, tiny_study.name, cwd=tiny_study.parent)
            assert done.returncode == 1
            assert "one process at a time may run a study, but process" in done.stderr
        for command in ("status", "report"):
            done = autopeft_here(command, tiny_study.name, cwd=tiny_study.parent)
            assert done.returncode == 0, done.stderr
        with pytest.raises(StudyError, match="one process at a time"):
            api.tune(model=tiny_study.parent / "model", data=str(tiny_study.parent / "rows.csv"), output=output)
