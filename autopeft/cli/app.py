"""The command line: parse, call, print. Heavy modules are imported inside the command that needs them."""

from __future__ import annotations

import json
import os
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.common import machine
from autopeft.common.console import make_console
from autopeft.common.exceptions import AutopeftError, StreamError, UserInputError, in_a_line
from autopeft.common.streams import for_stdout, plain_streams, tell_error

if TYPE_CHECKING:
    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec

EPILOG = "Exit codes: 0 done, 2 the input is wrong, 1 anything else."
app = typer.Typer(
    name="autopeft",
    help="Find out how to fine-tune a transformer cheaply: which method, where, and how large.",
    epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StudyFile = Annotated[Path, typer.Argument(metavar="STUDY", help="The study file (TOML).", show_default=False)]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that its base model brings, where its study did.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
Block = Annotated[list[str] | None, typer.Option("--block", metavar="NAME", help="Leave out a plugin's entry point.")]


@app.command(epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}")
def run(study: StudyFile, as_json: AsJson = False, block: Block = None) -> None:
    """Search, refit the winner, score it on held-out rows and save it. Run again to go on after an interruption."""
    spec = _spec(study)
    console = make_console(stderr=as_json)
    registry = _registry(block, spec)
    from autopeft.reporting.leaderboard import summary
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run as run_study

    try:
        result = run_study(spec, registry, make_progress(console))
    except KeyboardInterrupt:
        raise AutopeftError(
            f"interrupted. Every finished trial is kept; `autopeft run {study}` goes on from here."
        ) from None
    except StreamError:
        raise AutopeftError(
            f"nobody reads the output any more. Every finished trial is kept; `autopeft run {study}` goes on from here."
        ) from None
    if as_json:
        _print_json(asdict(result))
        return
    console.print(
        summary(result.records, result.best, result.test, result.metric, result.winner_folder, result.stopped)
    )
    console.print(f"Is it real, and what did it cost? autopeft report {study}")
    console.print(f"Browse the trials: autopeft ui {study}")


@app.command(epilog=f"Example: autopeft methods --json. {EPILOG}")
def methods(
    as_json: AsJson = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Print which works on which model type, in Markdown.")
    ] = False,
    block: Block = None,
) -> None:
    """List the methods that were found: where each comes from, its tasks and its search space."""
    console = make_console()
    registry = _registry(block, silent=True)
    if matrix:
        from autopeft.testing.matrix import matrix as support

        sys.stdout.write(support(registry.methods))
        return
    rows = [
        {
            "name": name,
            "plugin": str(registry.origins[name]),
            "tasks": list(method.tasks) or "every task",
            "paper": method.paper,
            "search_space": {key: str(dimension) for key, dimension in method.search_space().items()},
            "training_space": {key: str(dimension) for key, dimension in method.training_space().items()},
        }
        for name, method in registry.methods.items()
    ]
    if as_json:
        _print_json({"methods": rows, "broken": [str(fault) for fault in registry.faults]})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("method", "plugin", "tasks", "search space", show_lines=True)
    for row in rows:
        space = "\n".join(f"{key}: {text}" for key, text in {**row["search_space"], **row["training_space"]}.items())  # type: ignore[dict-item]
        tasks = row["tasks"] if isinstance(row["tasks"], str) else ", ".join(row["tasks"])
        table.add_row(f"{row['name']}\n{row['paper']}", str(row["plugin"]), tasks, space)
    console.print(table)
    if registry.faults:
        broken = Table("plugin", "why it is left out", title="Broken plugins", title_justify="left", show_lines=True)
        for fault in registry.faults:
            broken.add_row(Text(str(fault.origin)), Text(fault.reason))
        console.print(broken)


@app.command(epilog=f"Example: autopeft check lora --family bert. {EPILOG}")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The method.", show_default=False)],
    family: Annotated[list[str] | None, typer.Option(metavar="TYPE", help="A model type; default: all.")] = None,
    as_json: AsJson = False,
    block: Block = None,
) -> None:
    """Test a method against every rule of the contract, on tiny models of many families. Exit code 2: a rule broke."""
    method = _registry(block)[name]
    from rich.progress import Progress

    from autopeft import testing
    from autopeft.testing.view import show

    steps = testing.plan(family)
    with Progress(console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=len(steps))
        findings = testing.check(
            method, family, lambda rule, at: bar.update(task, advance=1, description=f"{rule} {at}".strip())
        )
    broken = [finding for finding in findings if finding.state == testing.FAILED]
    if as_json:
        _print_json({"method": name, "findings": [asdict(finding) for finding in findings]})
    else:
        make_console().print(show(name, findings))
        for finding in broken:
            make_console().print(f"\n{finding}", highlight=False)
    if broken:
        raise typer.Exit(2)


@app.command(epilog=f"Example: autopeft new-plugin low_rank plugins/low-rank. {EPILOG}")
def new_plugin(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the method, such as low_rank.", show_default=False)],
    folder: Annotated[
        Path | None, typer.Argument(metavar="[DIR]", help="Where it goes; default: autopeft-NAME.", show_default=False)
    ] = None,
) -> None:
    """Write a plugin to start from: a small method that works, its tests, and all that makes it a distribution."""
    from autopeft.cli import new_plugin as plugin

    folder = folder or Path(f"autopeft-{name.replace('_', '-')}")
    console = make_console()
    for path in plugin.write(name, folder, _registry(None)):
        console.print(str(path), highlight=False, soft_wrap=True)
    console.print(f'Next: pip install -e "{folder}[dev]", then autopeft check {name}', soft_wrap=True)


@app.command(epilog=f'Example: autopeft plan studies/quickstart.toml --device "24 GiB". {EPILOG}')
def plan(
    study: StudyFile,
    as_json: AsJson = False,
    samples: Annotated[int, typer.Option(min=1, help="Random candidates drawn of each method.")] = 24,
    device: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help='Plan for a GPU of that size, such as "24 GiB"; none need be here.'),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the PNG goes; default: plan.png in the output folder.")
    ] = None,
    block: Block = None,
) -> None:
    """Train nothing; show the share of each method's space in the budget, the largest that fits, and its memory."""
    spec = _spec(study)
    console = make_console()
    registry = _registry(block, spec)
    from autopeft.budget import plan as planning
    from autopeft.common.units import parse_bytes
    from autopeft.execution.problem import Problem
    from autopeft.reporting import plan_view
    from autopeft.study.output import PLAN, require

    try:
        card = parse_bytes(device) if device else None
    except ValueError as error:
        raise UserInputError(f"`--device` {error}.") from None
    drawn = picture or (None if as_json else spec.output / PLAN)
    if drawn and not picture:
        require(spec.output)
    problem = Problem.from_spec(spec, registry, card)
    plans = planning.plan(problem, samples)
    if drawn:
        plan_view.picture(plans, problem.budget, drawn)
    if as_json:
        methods = [asdict(entry) for entry in plans]
        _print_json({"budget": asdict(problem.budget), "methods": methods, "refused": problem.refused})
        return
    console.print(plan_view.show(plans, problem.budget))
    for name, reason in problem.refused.items():
        console.print(f"{name} is left out: {reason}")
    console.print(f"Picture: {drawn}", soft_wrap=True)


@app.command(epilog=f"Example: autopeft predict outputs/quickstart/winner --input rows.csv > labels.csv. {EPILOG}")
def predict(
    winner: Annotated[Path, typer.Argument(metavar="WINNER_DIR", help="The folder `autopeft run` saved.")],
    input_file: Annotated[
        Path | None, typer.Option("--input", help="Rows to label (csv, tsv, jsonl, parquet); default: texts on stdin.")
    ] = None,
    as_json: AsJson = False,
    trust_remote_code: Trust = False,
) -> None:
    """Label rows with a saved winner: a table with columns named as its inputs, or one text a line on stdin."""
    import pandas as pd

    from autopeft.data.table import read_table
    from autopeft.winner import winner as artifact

    loaded = artifact.load(winner, trust_remote_code=trust_remote_code)
    if input_file is not None:
        frame = read_table(input_file, loaded.inputs)
    elif len(loaded.inputs) > 1:
        raise UserInputError(f"this winner needs the columns {', '.join(loaded.inputs)}; give a file with --input.")
    else:
        lines = _lines_of_stdin()
        frame = pd.DataFrame({loaded.inputs[0]: lines}, index=range(1, len(lines) + 1))
    probabilities = loaded.predict_proba(frame, lambda told: typer.echo(f"autopeft: {told}", err=True))
    labels = [loaded.card.labels[index] for index in probabilities.argmax(axis=-1)]
    if as_json:
        for label, row in zip(labels, probabilities.tolist(), strict=True):
            sys.stdout.write(
                json.dumps({"label": label, "scores": dict(zip(loaded.card.labels, row, strict=True))}) + "\n"
            )
        return
    out = pd.DataFrame({"label": labels, "probability": probabilities.max(axis=-1).round(6)})
    sys.stdout.write(for_stdout(out.to_csv(index=False)))


@app.command(epilog=f"Example: autopeft report studies/quickstart.toml. {EPILOG}")
def report(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", help="The study file (TOML), or its output folder.", show_default=False)
    ],
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the page goes; default: report.html in the output folder."),
    ] = None,
) -> None:
    """Say which method won, whether that is real and what it cost, from the output folder alone; at any time."""
    output = study if study.is_dir() else _spec(study).output
    from autopeft.reporting import gather, page, terminal

    gathered = gather(output)
    path = html or (None if as_json else output / page.FILE)
    if path:
        page.write(page.render(gathered), path)
    if as_json:
        _print_json(gathered.as_json())
        return
    console = make_console()
    console.print(terminal.show(gathered))
    console.print(f"\nWith pictures: {path}", highlight=False, soft_wrap=True)


@app.command(epilog=f"Example: autopeft status studies/quickstart.toml. {EPILOG}")
def status(study: StudyFile, as_json: AsJson = False) -> None:
    """Say where a study stands, from a second terminal while it runs, or afterwards."""
    output = _spec(study).output
    from autopeft.reporting import status as standing

    found = standing.status(output)
    if as_json:
        _print_json(found.to_dict())
    else:
        make_console().print(standing.show(found))


@app.command(epilog=f"Example: autopeft export outputs/quickstart --to tickets --format merged. {EPILOG}")
def export(
    winner: Annotated[Path, typer.Argument(metavar="DIR", help="A winner, or the output folder of its study.")],
    form: Annotated[str, typer.Option("--format", help="peft, merged, adapterhub, mlflow or onnx.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write, empty or not there.")],
    repo: Annotated[str | None, typer.Option("--push-to-hub", metavar="REPO", help="Put it on the hub too.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is new.")] = False,
    trust_remote_code: Trust = False,
) -> None:
    """Write a winner for peft, transformers, the adapters library, MLflow or ONNX, with a README on how to load it."""
    from autopeft.winner import hub
    from autopeft.winner.export import export as write

    console = make_console()
    write(winner, to, form, trust_remote_code=trust_remote_code)
    console.print(f"Written to {to}; {to / 'README.md'} says how to load it.", soft_wrap=True)
    if repo:
        address = hub.push(to, repo, private=private or None)
        console.print(f"On the hub: {address}", soft_wrap=True)


@app.command(epilog=f"Example: autopeft ui studies/quickstart.toml --port 5000. {EPILOG}")
def ui(
    study: StudyFile,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback interface; 0 takes a free one.")] = 5000,
    private: Annotated[bool, typer.Option("--private", help="On a socket that this account alone can open.")] = False,
) -> None:
    """Serve the MLflow UI on the study's store, on this machine alone. Ctrl-C ends it."""
    spec = _spec(study)
    from autopeft.tracking import serve

    serve(spec.tracking.uri, spec.output, spec.name, port, private=private)


@app.command(epilog=f"Example: autopeft schema > study.schema.json. {EPILOG}")
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="The page docs/study-file.md instead.")] = False,
) -> None:
    """Print what a study file may say, as JSON Schema for editors to complete and check it."""
    from autopeft.study.schema import json_schema, reference

    if markdown:
        sys.stdout.write(reference())
    else:
        _print_json(json_schema())


@app.command(epilog=f"Example: autopeft sync studies/quickstart.toml. {EPILOG}")
def sync(study: StudyFile) -> None:
    """Send MLflow what a study could not tell it while its server was away. A study that runs does so by itself."""
    spec = _spec(study)
    from autopeft.tracking import TrackingError
    from autopeft.tracking import sync as send

    console = make_console()
    left = send(spec.tracking.uri, spec.output, spec.name, lambda text: console.print(text))
    if left:
        raise TrackingError(f"MLflow has not taken everything yet: {left} calls are left; run the same command again.")
    console.print("MLflow has everything this study logged.")


def main() -> None:
    """Run the command line; an error of ours is one sentence on stderr, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    plain_streams()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # libraries warn their developers; the user can do nothing about it
    try:
        app()
    except StreamError:  # as of `| head`: who closed it does not want to be told
        raise SystemExit(1) from None
    except AutopeftError as error:
        tell_error(str(error))
        raise SystemExit(error.exit_code) from None
    except (MemoryError, RuntimeError) as error:
        if not (why := machine.fault(error)):
            raise
        sys.stderr.write(f"autopeft: {why}. Then run the same command again.\n")
        raise SystemExit(1) from None
    except OSError as error:  # a full disk, a folder that is not the user's: nothing that a traceback would explain
        tell_error(f"{in_a_line(error)}. Fix that and run the same command again.")
        raise SystemExit(1) from None


def _spec(study: Path) -> StudySpec:
    from autopeft.study.file import StudySpec

    return StudySpec.from_file(study)


def _registry(block: list[str] | None, spec: StudySpec | None = None, *, silent: bool = False) -> Registry:
    """The methods found; those that cannot be used are told, unless nobody asks for them anyway."""
    from autopeft.methods.registry import LOADING_SECONDS, discover

    seconds = min(LOADING_SECONDS, spec.search.hang_timeout) if spec else LOADING_SECONDS
    unwanted = spec.search.exclude if spec else ()
    registry = discover(block or (), seconds)
    for fault in registry.faults:
        if not silent and not any(map(fault.concerns, unwanted)):
            make_console(stderr=True).print(f"A plugin is left out. {fault}", style="yellow", soft_wrap=True)
    return registry


def _lines_of_stdin() -> list[str]:
    """A text a line; an empty one is a text too, so that labels stay beside their lines."""
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise UserInputError(f"the texts on stdin must be in {error.encoding}, but are not: {error.reason}.") from None
    text = text.removeprefix("\ufeff")  # a byte-order mark, which PowerShell puts there
    return text.removesuffix("\n").split("\n") if text else []


def _print_json(content: Any) -> None:
    sys.stdout.write(json.dumps(content, indent=2) + "\n")
