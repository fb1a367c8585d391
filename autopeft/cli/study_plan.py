"""What `autopeft plan STUDY` does: what a search would face, and about how long it would take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from autopeft.cli.options import print_json
from autopeft.common.console import make_console
from autopeft.common.exceptions import UserInputError
from autopeft.common.paths import near
from autopeft.study.record import plain

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

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
    made, parts = _worked_out(spec, registry, samples, card)
    if drawn:
        plan_view.picture([entry for part in parts for entry in part.plans], made.budget, drawn)
    if as_json:
        told = {part.problem.label: part.as_json() for part in parts}
        print_json({"models": told} if made.models else told[""])
    else:
        console = make_console()
        why = "the GPU of the plan is not in this machine" if card else "no method's default fits and could be timed"
        for part in parts:
            part.show(console, why)
        console.print(f"Picture: {near(picture or spec.output / PLAN)}", soft_wrap=True)
    if all(entry.largest is None for part in parts for entry in part.plans):
        raise typer.Exit(2)


@dataclass(frozen=True)
class Part:
    """What is planned on one base model.

    Attributes:
        problem: of that model.
        plans: of each method.
        time: of a search on that model alone; None where it is not known.
    """

    problem: Problem
    plans: list[MethodPlan]
    time: TimeEstimate | None

    def as_json(self) -> dict[str, Any]:
        """For a script."""
        from autopeft.budget.limits import MEMORY

        return {
            "budget": self.problem.budget.to_dict(),
            "methods": [*map(plain, self.plans)],
            "refused": self.problem.refused,
            "workers": [
                {"gpu": str(share.card) if share.card else None, MEMORY.name: share.budget.max_gpu_memory}
                for share in self.problem.shares
            ],
            "remarks": self.remarks,
            "time": self.time.as_json() if self.time else None,
        }

    @property
    def remarks(self) -> list[str]:
        """What is wrong with a limit whatever the method."""
        from autopeft.reporting import plan_view

        return plan_view.remarks(self.plans, self.problem.budget)

    def show(self, console: Console, why: str) -> None:
        """Print it; `why` its time is not known, where it is not."""
        from autopeft.execution import shares
        from autopeft.reporting import plan_view

        if self.problem.label:
            console.print(f"If all trials are on {self.problem.spec.model.name_or_path}:", style="bold")
        console.print(plan_view.show(self.plans, self.problem.budget))
        for name, reason in self.problem.refused.items():
            console.print(f"{name} is left out: {reason}")
        console.print()
        told = self.time.sentences() if self.time else [f"How long a search takes is not known: {why}."]
        where = shares.where(self.problem)
        for sentence in filter(None, (where, *self.remarks, *told)):
            console.print(sentence, highlight=False)


def _worked_out(spec: StudySpec, registry: Registry, samples: int, card: int | None) -> tuple[Problem, list[Part]]:
    """The problem, and what is planned on each base model; a bar shows how far it is."""
    from rich.progress import Progress

    from autopeft.budget import plan as planning
    from autopeft.execution.preparation import in_parts, made_ready
    from autopeft.search import time_estimate
    from autopeft.search.resume import as_begun, commits_of

    console = make_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the rows and the model", total=None)
        made, _ = made_ready(spec if card else as_begun(spec), registry, card, commits_of(spec))
        bar.update(task, total=len(made.space) * (1 if card else 2))

        def step(what: str) -> None:
            bar.update(task, advance=1, description=what)

        parts = []
        for one in in_parts(made):
            plans = planning.plan(one, samples, lambda name: step(f"what {name} needs"))
            time = None if card else time_estimate.estimate(one, lambda name: step(f"timing steps of {name}"))
            parts.append(Part(one, plans, time))
    return made, parts
