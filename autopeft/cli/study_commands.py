"""Commands on a study: run, plan, recommend, report, status, ui, schema, sync."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autopeft.cli import architecture_plan, study_plan, without_file
from autopeft.cli.options import (
    EPILOG,
    AnyOfStudy,
    AsJson,
    Block,
    Quiet,
    Settings,
    StudyFile,
    Verbose,
    app,
    checked_study,
    find_plugins,
    print_json,
    with_methods,
)
from autopeft.common.console import make_console
from autopeft.common.exceptions import AutopeftError, StreamError, UserInputError
from autopeft.common.paths import near
from autopeft.study.place import output_of, place_of, study_file_of
from autopeft.study.record import plain

if TYPE_CHECKING:
    from rich.console import Console

    from autopeft.methods.registry import Registry
    from autopeft.study.file import StudySpec
    from autopeft.study.record import Result


@app.command(epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}")
def run(
    study: Annotated[
        Path | None,
        typer.Argument(metavar="STUDY", help="The study file (TOML). Without it, give --train.", show_default=False),
    ] = None,
    settings: Settings = None,
    model: without_file.Model = None,
    train: without_file.Train = None,
    test: without_file.Test = None,
    task: without_file.Task = None,
    text: without_file.Text = None,
    label: without_file.Label = None,
    output: without_file.Output = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    block: Block = None,
) -> None:
    """Search, refit the winner, score it on held-out rows and save it. After an interruption, run it again to go on.

    Without a study file, --train is enough: autopeft finds the task and its
    columns in the data, or you give --task, --text and --label. A study file
    with the same settings is kept in the output folder.
    """
    options = without_file.Options(model, train, test, task, text, label, output)
    if study is None:
        spec, registry = with_methods(
            *without_file.study_of(options, settings or (), block or ()), without_file.SOURCE, block
        )
        study = spec.output
    else:
        options.refuse(study)
        spec, registry = checked_study(study_file_of(study), settings, block)
    from autopeft.reporting.run_summary import tell
    from autopeft.study import finished

    result = finished.result_of(spec, registry.provenance)
    if result:
        make_console(stderr=as_json, quiet=quiet).print(finished.NOTHING_TO_DO)
    else:
        result = _result(spec, registry, make_console(stderr=as_json, quiet=quiet), study)
    if as_json:
        print_json(plain(result))
        return
    tell(result, study, make_console(stderr=as_json))


def _result(spec: StudySpec, registry: Registry, console: Console, study: Path) -> Result:
    """Run a study."""
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run as run_study

    gc.freeze()  # what the libraries made stays for good: no collection is to look through it
    try:
        return run_study(spec, registry, make_progress(console))
    except KeyboardInterrupt:
        raise AutopeftError(
            f"interrupted. All finished trials are kept; run `autopeft run {study}` to continue."
        ) from None
    except StreamError:
        raise AutopeftError(
            f"nobody reads the output any more. All finished trials are kept; run `autopeft run {study}` to continue."
        ) from None


@app.command(epilog=f'Example: autopeft plan studies/quickstart.toml --device "24 GiB". {EPILOG}')
def plan(
    study: Annotated[Path | None, typer.Argument(metavar="STUDY", help="The study file (TOML).")] = None,
    as_json: AsJson = False,
    samples: Annotated[int, typer.Option(min=1, help="Number of random candidates to draw of each method.")] = 24,
    device: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help='Plan for a GPU of this size, such as "24 GiB". You need not have one.'),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The PNG to write. Default: plan.png in the output folder.")
    ] = None,
    model_config: architecture_plan.ModelConfig = None,
    tokens: architecture_plan.Tokens = 2048,
    answer_tokens: architecture_plan.AnswerTokens = 512,
    quantization: architecture_plan.Quantization = "none",
    optimizer: architecture_plan.Optimizer = "adamw",
    method: architecture_plan.Method = "lora",
    settings: architecture_plan.Settings = None,
    batch: architecture_plan.Batch = None,
    block: Block = None,
) -> None:
    """Show what fits the budget: each method's share, its largest candidate, its memory, and the time of a search.

    A few steps of each method are timed; nothing else is trained. Exit code 2: nothing fits the budget.

    With --model-config, and without a study: show what one method needs on a
    GPU, for a language model whose weights you do not have.
    """
    if model_config:
        asked = architecture_plan.Asked(
            model_config,
            tokens,
            answer_tokens,
            quantization,
            optimizer,
            device,
            method,
            settings or (),
            batch or (),
            block,
        )
        architecture_plan.tell(asked, as_json=as_json)
        return
    if study is None:
        raise UserInputError("`autopeft plan` needs a study file, or --model-config and a model; give one of the two.")
    spec, registry = checked_study(study_file_of(study), settings, block)
    study_plan.tell(spec, registry, samples, device, picture, as_json=as_json)


@app.command(epilog=f"Example: autopeft recommend studies/quickstart.toml. {EPILOG}")
def recommend(study: StudyFile, as_json: AsJson = False, settings: Settings = None, block: Block = None) -> None:
    """Show what a search would try first, for how long, and what to expect, from recorded tasks. Trains nothing."""
    spec, registry = checked_study(study_file_of(study), settings, block)
    from autopeft.search import recommend as recommending

    found = recommending.recommend(spec, registry)
    if as_json:
        print_json(found.as_json())
    else:
        make_console().print(recommending.show(found))


@app.command(epilog=f"Example: autopeft report studies/quickstart.toml. {EPILOG}")
def report(
    study: AnyOfStudy,
    as_json: AsJson = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page to write. Default: report.html in the output folder."),
    ] = None,
) -> None:
    """Say which method won, how sure that is, and what it cost. Reads only the output folder, at any time."""
    output = output_of(study)
    from autopeft.reporting import gather, page, terminal
    from autopeft.study.folder import REPORT

    gathered = gather(output)
    path = html or (None if as_json else output / REPORT)
    if path:
        page.write(page.render(gathered), path)
    if as_json:
        print_json(gathered.as_json())
        return
    console = make_console()
    console.print(terminal.show(gathered))
    console.print(f"\nWith pictures: {near(html or output / REPORT)}", highlight=False, soft_wrap=True)


@app.command(epilog=f"Example: autopeft status studies/quickstart.toml. {EPILOG}")
def status(study: AnyOfStudy, as_json: AsJson = False) -> None:
    """Show the state of a study: from a second terminal while it runs, or afterwards."""
    output = output_of(study)
    from autopeft.reporting import status as standing

    found = standing.status(output)
    if as_json:
        print_json(found.to_dict())
    else:
        make_console().print(standing.show(found))


@app.command(epilog=f"Example: autopeft ui studies/quickstart.toml --port 5000. {EPILOG}")
def ui(
    study: AnyOfStudy,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port, open to this machine only; 0 takes a free one.")
    ] = 5000,
    private: Annotated[bool, typer.Option("--private", help="Use a socket that only your account can open.")] = False,
) -> None:
    """Serve the MLflow UI with the study's trials, on this machine only. Ctrl-C ends it."""
    place = place_of(study)
    from autopeft.tracking import serve

    serve(place.tracking_uri, place.output, place.name, port, private=private)


@app.command(epilog=f"Example: autopeft schema > study.schema.json. {EPILOG}")
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/study-file.md instead.")] = False,
    block: Block = None,
) -> None:
    """Print the JSON Schema of study files, with which editors complete and check them."""
    from autopeft.methods.reference import search_schema, training_schema
    from autopeft.study.schema import json_schema, reference

    if markdown:
        sys.stdout.write(reference(training_schema()))
    else:
        print_json(json_schema(search_schema(find_plugins(block))))


@app.command(epilog=f"Example: autopeft sync studies/quickstart.toml. {EPILOG}")
def sync(study: AnyOfStudy) -> None:
    """Send MLflow what it missed while its server was unreachable. A running study does this by itself."""
    place = place_of(study)
    from autopeft.tracking import TrackingError
    from autopeft.tracking import sync as send

    console = make_console()
    left = send(place.tracking_uri, place.output, place.name, lambda text: console.print(text))
    if left:
        raise TrackingError(
            f"MLflow has not accepted everything yet: {left} calls are left; run the same command again."
        )
    console.print("MLflow has everything this study logged.")
