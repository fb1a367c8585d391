"""Commands on a winner that writes texts: generate, chat."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli.options import ANY_OF_WINNER, EPILOG, AsJson, Trust, app
from autopeft.cli.stdin_lines import lines_of_stdin
from autopeft.common.exceptions import UserInputError
from autopeft.common.streams import for_stdout, tell

if TYPE_CHECKING:
    from autopeft.winner.winner import Winner

Folder = Annotated[Path, typer.Argument(metavar="WINNER", help=ANY_OF_WINNER)]
MaxNewTokens = Annotated[
    int | None,
    typer.Option(metavar="N", help="Maximum number of tokens of a text. Default: as many as the training rows need."),
]
Temperature = Annotated[
    float,
    typer.Option(metavar="T", help="Draw tokens at this temperature, such as 0.7; 0: take the most probable token."),
]


@app.command(
    epilog=f"Example: autopeft generate outputs/replies/winner --input rows.jsonl --json > texts.jsonl. {EPILOG}"
)
def generate(
    winner: Folder,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="Rows to write texts for: a file as for a study. Default: stdin, one prompt a line."
        ),
    ] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    top_p: Annotated[
        float, typer.Option(metavar="P", help="Draw from the most probable tokens whose probabilities sum to P.")
    ] = 1.0,
    top_k: Annotated[int, typer.Option(metavar="K", help="Draw from the K most probable tokens; 0: from all.")] = 0,
    seed: Annotated[
        int, typer.Option(metavar="S", help="Seed for drawing: the same seed and rows give the same texts.")
    ] = 0,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    r"""Write texts with a saved winner: for the rows of a file, or for one prompt a line on stdin.

    For a winner trained on conversations, a line is one message of the user;
    give whole conversations in a file.

    Texts for a file are a table (CSV) with a column `text`. The text for a
    line is one line too, so that lines correspond: line ends in it are written
    \n and \r, backslashes \\, and `printf '%b\n'` turns them back. With --json
    every text is a line {"text": "…"}.
    """
    import pandas as pd

    from autopeft.cli.answer_files import as_csv
    from autopeft.data.asked_rows import open_rows

    loaded = _load(winner, trust_remote_code)
    converses = loaded.writer.task.converses
    if input_file is not None:
        frame = open_rows(input_file, loaded.input_names, loaded.columns, tell).inputs()
    elif len(loaded.inputs) > 1:
        needed = ", ".join(loaded.input_names.values())
        raise UserInputError(f"this winner needs the columns {needed}; give a file with --input.")
    else:
        lines = lines_of_stdin()
        if not lines:
            return
        cells = [[{"role": "user", "content": line}] for line in lines] if converses else lines
        frame = pd.DataFrame({loaded.inputs[0]: pd.Series(cells, dtype=object, index=range(1, len(lines) + 1))})
    texts = loaded.write(
        frame, tell, max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, seed=seed
    )
    if as_json:
        told = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    elif input_file is not None:
        told = as_csv(pd.DataFrame({"text": texts}))
    else:
        told = "".join(f"{_in_a_line(text)}\n" for text in texts)
    sys.stdout.write(for_stdout(told))


@app.command(epilog=f"Example: autopeft chat outputs/replies/winner --base. {EPILOG}")
def chat(
    winner: Folder,
    base: Annotated[bool, typer.Option("--base", help="Show the base model's answer to the same message too.")] = False,
    system: Annotated[
        str, typer.Option(metavar="TEXT", help="The system message. Default: the one in the study.")
    ] = "",
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = 0.0,
    trust_remote_code: Trust = False,
) -> None:
    """Chat with a saved winner that was trained on conversations: on the terminal, or one message a line on a pipe.

    /reset starts again, /undo takes the last turn back, /exit or Ctrl-D ends;
    Ctrl-C stops an answer. When the model can no longer read all turns, the
    oldest are dropped, and a message says so.
    """
    from autopeft.cli.chat_loop import ChatLoop
    from autopeft.models.sampling import Sampling
    from autopeft.winner.chat import Chat

    sampling = Sampling(temperature, seed=None)
    loaded = _load(winner, trust_remote_code)
    made = Chat(loaded.writer, sampling, tell, system=system, max_new_tokens=max_new_tokens)
    ChatLoop(made, tell, base=base).run()


def _load(folder: Path, trust_remote_code: bool) -> Winner:
    """A winner, on the GPU where there is one: a text takes a pass of the model for each of its tokens."""
    from autopeft.study.place import winner_of

    found = winner_of(folder)
    import torch

    from autopeft.winner import winner as artifact

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return artifact.load(found, device, trust_remote_code=trust_remote_code)


def _in_a_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
