import io
import sys

import pytest
from rich.table import Table

from autopeft.cli import app
from autopeft.common.console import make_console
from autopeft.common.streams import LONGEST_ERROR, for_stdout, plain_streams, tell_error
from autopeft.reporting import status
from tests.conftest import tiny_rows, trained_winner

COMMAND = "\x1b]0;owned\x07\x9b31m\u202e"
"""A window's new title, a colour, and text that runs backwards."""


class Stream(io.TextIOWrapper):
    def __init__(self, encoding, *, terminal=False):
        super().__init__(io.BytesIO(), encoding=encoding)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    @property
    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


def narrow(monkeypatch, encoding):
    """Have both streams in an encoding that lacks most characters; in the test itself, as pytest sets them before."""
    streams = {name: Stream(encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    return streams["stdout"], streams["stderr"]


NARROW = pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])


def show_a_table():
    table = Table("label", title="Labels …")
    table.add_row("日本 █ → é")
    console = make_console()
    console.print(table)
    console.print("Ω–β", style="bold")


@NARROW
def test_a_console_writes_to_a_stream_that_lacks_its_characters(monkeypatch, encoding):
    stdout, _ = narrow(monkeypatch, encoding)
    show_a_table()
    assert "\\u65e5\\u672c # ->" in stdout.text
    assert "Labels ..." in stdout.text or "Labels …" in stdout.text  # cp1252 has that one
    assert "\u2502" not in stdout.text  # no frames of lines


@NARROW
def test_the_command_line_writes_to_it_too(tmp_path, monkeypatch, encoding):
    stdout, stderr = narrow(monkeypatch, encoding)
    monkeypatch.setattr(sys, "argv", ["autopeft", "run", str(tmp_path / "日本.toml")])
    with pytest.raises(SystemExit):
        app.main()
    assert "\\u65e5\\u672c.toml does not exist" in stderr.text
    sys.stdout.write("日 → x\n")
    assert stdout.text == "\\u65e5 -> x\n"


def test_predictions_go_to_a_stream_that_lacks_their_characters(tiny_study, monkeypatch):
    monkeypatch.chdir(tiny_study.parent)
    rows = tiny_rows()
    rows["label"] = rows["label"].map(
        lambda label: f"{label} нет {COMMAND}"
    )  # which of them is predicted does not matter
    rows.to_csv(tiny_study.parent / "rows.csv", index=False)
    trained_winner(tiny_study, "lora")
    for stream, expected, absent in (
        (Stream("ascii"), "\\u043d\\u0435\\u0442", "нет"),
        (Stream("utf-8"), "нет", "\\u043d"),
        (Stream("utf-8", terminal=True), "\\x1b]0;owned\\x07\\x9b31m\\u202e", "\x1b"),
    ):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["autopeft", "predict", "lora", "--input", "rows.csv"])
        with pytest.raises(SystemExit) as done:
            app.main()
        monkeypatch.undo()
        assert not done.value.code
        monkeypatch.chdir(tiny_study.parent)
        assert expected in stream.text
        assert absent not in stream.text


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_in_a_label_reaches_a_terminal_as_a_command(monkeypatch, terminal):
    stream = Stream("utf-8", terminal=terminal)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    console = make_console()
    table = Table("label", COMMAND, title=COMMAND)
    table.add_row(COMMAND, COMMAND)
    console.print(table)
    console.print(COMMAND, style="bold red", soft_wrap=True)
    texts = dict.fromkeys(("name", "state", "stopped", "best", "race"), COMMAND)
    running = (status.Running(1, COMMAND, (0.5,)),)
    found = status.Status(
        trials=1, wanted=2, states={}, score=0.5, rise=(0.5,), running=running, seconds_left=1.0, **texts
    )
    console.print(status.show(found))
    text = stream.text
    assert not [command for command in ("\x1b]", "\x07", "\x9b", "\u202e") if command in text]
    assert "\\x1b]0;owned" in text
    assert ("\x1b[1;31m" in text) is terminal  # Rich's own colours stay


def test_an_error_is_written_out_and_cut(monkeypatch):
    stream = Stream("utf-8")
    monkeypatch.setattr(sys, "stderr", stream)
    tell_error(f'no label "{COMMAND}"' + "x" * 100_000 + "; do this instead.")
    assert "\x1b" not in stream.text
    assert stream.text.startswith('autopeft: no label "\\x1b]0;owned')
    assert stream.text.endswith("; do this instead.\n")
    assert len(stream.text) < LONGEST_ERROR + 100


def test_a_program_gets_rows_as_they_are(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Stream("utf-8"))
    assert for_stdout(COMMAND) == COMMAND
    plain_streams()
    assert sys.stdout.errors == "strict"


def test_an_error_on_a_terminal_is_wrapped_between_words_and_paths_stay_whole(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", out)
    monkeypatch.setenv("COLUMNS", "40")
    path = "/".join(["folder"] * 9)
    tell_error(f"the rows are wrong in many ways.\n{path} must be a file, but it is a folder with rows.")
    lines = out.getvalue().splitlines()
    assert path in lines
    assert max(len(line) for line in lines if line != path) <= 40
    assert (
        out.getvalue().split()
        == f"autopeft: the rows are wrong in many ways. {path} must be a file, but it is a folder with rows.".split()
    )
