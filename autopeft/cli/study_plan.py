"""What `autopeft plan STUDY` does: what a search would face, and about how long it would take."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from autopeft.cli.options import print_json
from autopeft.common.console import make_console
from autopeft.common.exceptions import UserInputError
from autopeft.common.paths import near
from autopeft.study.record import plain

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.budget.plan import MethodPlan
    from autopeft.execution.problem import Problem
    from autopeft.methods.registry import Registry
    from autopeft.search.time_estimate import TimeEstimate
    from autopeft.study.file import StudySpec


def tell(
    spec: StudySpec, registry: Registry, samples: int, device: str | None, picture: Path | None, *, as_json: bool
) -> None:
    """Print the plan, and draw it.

    Raises:
        UserInputError: an option is wrong.
        Exit: with code 2, where nothing of the space fits the budget.
    """
    from autopeft.common.units import parse_bytes
    from autopeft.reporting import plan_view
    from autopeft.study.folder import PLAN
    from autopeft.study.output import require

    try:
        card = parse_bytes(device) if device else None
    except ValueError as error:
        raise UserInputError(f"`--device` {error}.") from None
    drawn = picture or (None if as_json else spec.output / PLAN)
    if drawn and not picture:
        require(spec.output)
    problem, plans, time = _worked_out(spec, registry, samples, card)
    if drawn:
        plan_view.picture(plans, problem.budget, drawn)
    remarks = plan_view.remarks(plans, problem.budget)
    if as_json:
        methods = [plain(entry) for entry in plans]
        told = {"budget": problem.budget.to_dict(), "methods": methods, "refused": problem.refused}
        print_json({**told, "remarks": remarks, "time": time.as_json() if time else None})
    else:
        console = make_console()
        console.print(plan_view.show(plans, problem.budget))
        for name, reason in problem.refused.items():
            console.print(f"{name} is left out: {reason}")
        why = "the card that is planned for is not here" if card else "no method's default fits and could be timed"
        for sentence in (*remarks, *(time.sentences() if time else [f"How long a search takes is not known: {why}."])):
            console.print(sentence, highlight=False)
        console.print(f"Picture: {near(picture or spec.output / PLAN)}", soft_wrap=True)
    if all(entry.largest is None for entry in plans):
        raise typer.Exit(2)


def _worked_out(
    spec: StudySpec, registry: Registry, samples: int, card: int | None
) -> tuple[Problem, list[MethodPlan], TimeEstimate | None]:
    """The problem, the plan of each method and, where the device is here, the time; a bar shows how far it is."""
    from rich.progress import Progress

    from autopeft.budget import plan as planning
    from autopeft.execution.precision import settle
    from autopeft.execution.problem import Problem
    from autopeft.search import time_estimate
    from autopeft.search.resume import as_begun

    console = make_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the rows and the model", total=None)
        problem = Problem.from_spec(spec, registry, card) if card else settle(as_begun(spec), registry)[0]
        bar.update(task, total=len(problem.space) * (1 if card else 2))

        def step(what: str) -> None:
            bar.update(task, advance=1, description=what)

        plans = planning.plan(problem, samples, lambda name: step(f"what {name} needs"))
        time = None if card else time_estimate.estimate(problem, lambda name: step(f"timing steps of {name}"))
    return problem, plans, time
