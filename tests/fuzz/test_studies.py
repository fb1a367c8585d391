"""Study files, mutated: whatever a person may write, one sentence and exit code 2, or a study that can start."""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout

import pytest

from autopeft.cli import app
from autopeft.common.exceptions import UserInputError
from autopeft.common.locate import locate
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.methods.search_space import SearchSpace
from autopeft.study.file import StudySpec
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.tasks.registry import find_task, task_kinds
from autopeft.tasks.study_check import mistakes_in

CASES, SLICE, PART = 1000, 40, 20
"""Mutated files in all; how many `make test` runs; how many a test has, as what a test costs by itself is more."""

SECONDS = 10

STUDY: dict[str, object] = {
    "name": "study",
    "seed": 3,
    "model": {"name_or_path": "model", "dtype": "float32", "max_length": 32},
    "task": {"kind": "text-classification"},
    "data": {"train": "rows.csv", "test_fraction": 0.25, "text": "text", "label": "label", "max_rows": 50},
    "search": {
        "methods": ["lora", "prefix_tuning"],
        "trials": 3,
        "timeout": "10m",
        "workers": 1,
        "epochs": 2,
        "learning_rate": [1e-4, 1e-2],
        "lora": {"r": [4, 32], "target_modules": ["attention", "all_linear"], "lora_dropout": 0.1},
        "prefix_tuning": {"prefix_projection": True, "encoder_hidden_size": 64},
    },
    "validation": {"folds": 2, "metric": "accuracy"},
    "budget": {"max_trainable_params": "1%", "max_gpu_memory": "2 GiB", "max_trial_seconds": 60},
    "tracking": {"uri": "sqlite:///all.db", "system_metrics": False},
}

SCALARS = (
    "0", "-1", "1", "2", "1.5", "-0.0", "nan", "inf", "-inf", "1e999", "1e-320", "true", "false", "9" * 400, "9" * 5000,
    "-" + "9" * 30, "0x7fffffffffffffff", "2147483648", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '""', '" "',
    '"auto"', '"none"', '"1%"', '"10m"', '"2 GiB"', '"-5 MB"', '"~no-such-user/x"', '"~"', '"."', '".."', '"/"',
    '"/dev/null"', '"package:autopeft/py.typed"', '"package:no_such_package/x"', '"org/name"', '"https://a:b@c/d"',
    '"sqlite:///x?password=secret"', '"a\\u0000b"', '"\\u001b[31m\\u202e"', '"\\U0001F600"', '"%s %d {x} {0}"',
    '"' + "x" * 300 + '"', '"' + "x" * 100_000 + '"', "'''a\nb'''", '"lora"', '"accuracy"', "[]", "{}", "[[]]", "[1]",
    "[1, 2, 3, 4, 5]", "[2, 1]", "[1, 1]", '["a", 1]', "[true, false]", "[nan, 1]", "{ a = 1 }", "[" * 500 + "]" * 500,
)  # fmt: skip
"""What stands in the place of a value, as TOML."""

KEYS = (
    "lora", "mixed", "adapter", "epochs", "batch_size", "learning_rate", "r", "warmup_ratio", "weight_decay", "trials",
    "test", "group", "encoding", "config", "pruner", "warm_start", "exclude", "hang_timeout", "quantization", "output",
    "packing", "max_saved_size", "overrides", "text", "folder", "model", "search", '""', '"a b"', '"\\u001b"', "0",
    '"' + "k" * 100_000 + '"', ".".join("a" * 300),
)  # fmt: skip

NOISE = (
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\x80",
    b"\r",
    b"#",
    b"[",
    b"]",
    b"=",
    b'"',
    b"\n",
    b"'''",
    b".",
)


def written(content: dict, path: tuple[str, ...] = ()) -> list[str]:
    """A study as TOML, a line a setting."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in content.items() if not isinstance(value, dict)]
    lines = ["[" + ".".join(path) + "]", *plain] if path else plain
    for key, value in content.items():
        if isinstance(value, dict):
            lines += written(value, (*path, key))
    return lines


def mutated(number: int) -> bytes:
    """The study with one to four changes, the same for the same number; one in five in its bytes."""
    draw = random.Random(number)
    lines = written(STUDY)
    for _ in range(draw.choice((1, 1, 1, 2, 2, 3, 4))):
        settings = [place for place, line in enumerate(lines) if " = " in line]
        place = draw.choice(settings or [0])
        key = lines[place].partition(" = ")[0]
        match draw.randrange(8):
            case 0 | 1 | 2:
                lines[place] = f"{key} = {draw.choice(SCALARS)}"
            case 3:
                lines[place] = f"{draw.choice(KEYS)} = {lines[place].partition(' = ')[2]}"
            case 4:
                lines.insert(draw.randrange(len(lines) + 1), f"{draw.choice(KEYS)} = {draw.choice(SCALARS)}")
            case 5:
                del lines[draw.randrange(len(lines))]
            case 6:
                lines.insert(place, draw.choice(lines))
            case 7:
                lines[place] = f"{key}.{draw.choice(KEYS)} = {draw.choice(SCALARS)}"
    raw = bytearray("\n".join(lines).encode())
    if number % 5 == 4:
        for _ in range(draw.randint(1, 6)):
            place = draw.randrange(len(raw))
            raw[place : place + draw.randint(0, 3)] = draw.choice(NOISE)
    if number % 50 == 7:
        raw += b"\nx = " + draw.choice((b"[" * 100_000, b"{a=" * 100_000, b'"' + b"\\" * 100_000, b"#" * 2**21))
    return bytes(raw)


@contextlib.contextmanager
def limited(seconds: int):
    """A case that takes longer has hung."""

    def end(*_):
        raise AssertionError(f"a case took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def prepared(path) -> None:
    """All that is made of a study file before its data and its model are read."""
    spec = StudySpec.from_file(path)
    registry = discover()
    for told in mistakes_in(spec, registry):  # which raises nothing
        assert 10 < len(told) < 1500
        assert "\x1b" not in told
    names = spec.search.methods or [name for name in registry.methods if name not in spec.search.exclude]
    space = CandidateSpace.build([registry[name] for name in names], None, spec.search.overrides, FIXED_SEARCH_KEYS)
    if spec.task.kind in task_kinds():
        find_task(spec.task.kind).configured(spec.task.options).metric(spec.validation.metric)
    for reference in (spec.model.name_or_path, spec.data.train):
        locate(reference, spec.folder)
    json.dumps(spec.to_dict())
    for part in space.values():
        part.default()
        for candidate in part.sample(2, seed=0):
            assert candidate.hyper.epochs >= 1
            assert candidate.hyper.batch_size >= 1
            assert candidate.hyper.learning_rate > 0
        assert isinstance(part.own, SearchSpace)


def command(path, *arguments: str) -> tuple[int, str]:
    """The exit code of a command on a study, and what it wrote to stderr."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(path.parent)
        patch.setattr(sys, "argv", ["autopeft", *arguments, str(path)])
        try:
            app.main()
        except SystemExit as done:
            return int(done.code or 0), err.getvalue()
    return 0, err.getvalue()


def check(number: int, path) -> str:
    """Try one file; returns how it ended."""
    path.write_bytes(mutated(number))
    path.with_name("model").mkdir(exist_ok=True)
    path.with_name("rows.csv").touch()
    ended = "can start"
    with limited(SECONDS):
        try:
            prepared(path)
        except UserInputError as error:
            ended, told = "refused", str(error)
            first, *others = told.splitlines()
            for line in others or [first]:
                assert 10 < len(line) < 1500, f"case {number}: {len(line)} characters: {line[:300]}"
                assert line.endswith((".", "?")), f"case {number}: {told}"
                assert not others or line.startswith("- "), f"case {number}: {told}"
            assert not others or first.endswith(":"), f"case {number}: {told}"
            assert "\x1b" not in told, f"case {number}: {told!r}"
            assert "secret" not in told, f"case {number}: {told}"
        except Exception as error:
            raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error
    with limited(SECONDS):
        code, told = command(path, "status")  # of no study: it reads the file, and finds none
    assert code == 2, f"case {number}: exit code {code}: {told[:300]}"
    assert "Traceback" not in told
    assert all(line.startswith("- ") for line in told.splitlines()[1:]), f"case {number}: {told}"
    return ended


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory):
    """What the first study of a process imports takes seconds, which are not case's."""
    path = tmp_path_factory.mktemp("plain") / "study.toml"
    path.write_text("\n".join(written(STUDY)))
    with contextlib.suppress(UserInputError):
        prepared(path)
    command(path, "status")


def parts(first: int, last: int) -> list[range]:
    return [range(start, min(start + PART, last)) for start in range(first, last, PART)]


@pytest.mark.parametrize("numbers", parts(0, SLICE), ids=str)
def test_a_mutated_study_file_is_refused_in_a_sentence_or_can_start(tmp_path, numbers):
    ends = [check(number, tmp_path / "study.toml") for number in numbers]
    assert "refused" in ends


@pytest.mark.fuzz
@pytest.mark.parametrize("numbers", parts(SLICE, CASES), ids=str)
def test_a_thousand_mutated_study_files(tmp_path, numbers):
    for number in numbers:
        check(number, tmp_path / "study.toml")


def test_some_mutations_leave_a_study_that_can_start(tmp_path):
    """Otherwise what comes behind the file's check would never be tried."""
    assert any(check(number, tmp_path / "study.toml") == "can start" for number in range(CASES, CASES + 100))
