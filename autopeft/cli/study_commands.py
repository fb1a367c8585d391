"""Commands on a study: run, plan, recommend, report, status, ui, schema, sync."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autopeft.cli import architecture_plan
from autopeft.cli.options import EPILOG, AsJson, Block, StudyFile, app, find_plugins, print_json, read_spec
from autopeft.common.console import make_console
from autopeft.common.exceptions import AutopeftError, StreamError, UserInputError
from autopeft.study.record import plain


@app.command(epilog=f"Example: autopeft run studies/quickstart.toml. {EPILOG}")
def run(study: StudyFile, as_json: AsJson = False, block: Block = None) -> None:
    """Search, refit the winner, score it on held-out rows and save it. Run again to go on after an interruption."""
    spec = read_spec(study)
    console = make_console(stderr=as_json)
    registry = find_plugins(block, spec)
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
        print_json(plain(result))
        return
    console.print(
        summary(
            result.records, result.best, result.test, result.metric, result.winner_folder, result.stopped, result.race
        )
    )
    console.print(f"Is it real, and what did it cost? autopeft report {study}")
    console.print(f"Browse the trials: autopeft ui {study}")


@app.command(epilog=f'Example: autopeft plan studies/quickstart.toml --device "24 GiB". {EPILOG}')
def plan(
    study: Annotated[Path | None, typer.Argument(metavar="[STUDY]", help="The study file (TOML).")] = None,
    as_json: AsJson = False,
    samples: Annotated[int, typer.Option(min=1, help="Random candidates drawn of each method.")] = 24,
    device: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help='Plan for a GPU of that size, such as "24 GiB"; none need be here.'),
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the PNG goes; default: plan.png in the output folder.")
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
    """Train nothing; show the share of each method's space in the budget, the largest that fits, and its memory.

    With --model-config, and without a study: what one method takes on a card, for a language model of which there are
    no weights here.
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
        raise UserInputError("`autopeft plan` needs a study file, or --model-config with a model; give one of them.")
    _plan_study(study, samples, device, picture, block, as_json=as_json)


def _plan_study(
    study: Path, samples: int, device: str | None, picture: Path | None, block: list[str] | None, *, as_json: bool
) -> None:
    """Show what a search would face."""
    spec = read_spec(study)
    console = make_console()
    registry = find_plugins(block, spec)
    from autopeft.budget import plan as planning
    from autopeft.common.units import parse_bytes
    from autopeft.execution.preparation import in_parts, made_ready
    from autopeft.reporting import plan_view
    from autopeft.search.resume import as_begun, commits_of
    from autopeft.study.folder import PLAN
    from autopeft.study.output import require

    try:
        card = parse_bytes(device) if device else None
    except ValueError as error:
        raise UserInputError(f"`--device` {error}.") from None
    drawn = picture or (None if as_json else spec.output / PLAN)
    if drawn and not picture:
        require(spec.output)
    made, _ = made_ready(spec if card else as_begun(spec), registry, card, commits_of(spec))
    found = [(one, planning.plan(one, samples)) for one in in_parts(made)]
    if drawn:
        plan_view.picture([entry for _, plans in found for entry in plans], made.budget, drawn)
    if as_json:
        told = {
            one.label: {"budget": one.budget.to_dict(), "methods": [*map(plain, plans)], "refused": one.refused}
            for one, plans in found
        }
        print_json({"models": told} if made.models else told[""])
        return
    for problem, plans in found:
        if problem.label:
            console.print(f"On {problem.spec.model.name_or_path}:", style="bold")
        console.print(plan_view.show(plans, problem.budget))
        for name, reason in problem.refused.items():
            console.print(f"{name} is left out: {reason}")
    console.print(f"Picture: {drawn}", soft_wrap=True)


@app.command(epilog=f"Example: autopeft recommend studies/quickstart.toml. {EPILOG}")
def recommend(study: StudyFile, as_json: AsJson = False, block: Block = None) -> None:
    """Train nothing; show what a search would try first, how long, and what to expect of it, by recorded tasks."""
    spec = read_spec(study)
    registry = find_plugins(block, spec)
    from autopeft.search import recommend as recommending

    found = recommending.recommend(spec, registry)
    if as_json:
        print_json(found.as_json())
    else:
        make_console().print(recommending.show(found))


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
    output = study if study.is_dir() else read_spec(study).output
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
    console.print(f"\nWith pictures: {path}", highlight=False, soft_wrap=True)


@app.command(epilog=f"Example: autopeft status studies/quickstart.toml. {EPILOG}")
def status(study: StudyFile, as_json: AsJson = False) -> None:
    """Say where a study stands, from a second terminal while it runs, or afterwards."""
    output = read_spec(study).output
    from autopeft.reporting import status as standing

    found = standing.status(output)
    if as_json:
        print_json(found.to_dict())
    else:
        make_console().print(standing.show(found))


@app.command(epilog=f"Example: autopeft ui studies/quickstart.toml --port 5000. {EPILOG}")
def ui(
    study: StudyFile,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On the loopback interface; 0 takes a free one.")] = 5000,
    private: Annotated[bool, typer.Option("--private", help="On a socket that this account alone can open.")] = False,
) -> None:
    """Serve the MLflow UI on the study's store, on this machine alone. Ctrl-C ends it."""
    spec = read_spec(study)
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
        print_json(json_schema())


@app.command(epilog=f"Example: autopeft sync studies/quickstart.toml. {EPILOG}")
def sync(study: StudyFile) -> None:
    """Send MLflow what a study could not tell it while its server was away. A study that runs does so by itself."""
    spec = read_spec(study)
    from autopeft.tracking import TrackingError
    from autopeft.tracking import sync as send

    console = make_console()
    left = send(spec.tracking.uri, spec.output, spec.name, lambda text: console.print(text))
    if left:
        raise TrackingError(f"MLflow has not taken everything yet: {left} calls are left; run the same command again.")
    console.print("MLflow has everything this study logged.")
