"""A plan as a person sees it: tables for the terminal, and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopeft.budget.limits import LIMITS, MEMORY, SECONDS, extra_limits
from autopeft.common.files import whole
from autopeft.common.units import format_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.budget.limits import Budget
    from autopeft.budget.plan import MethodPlan, Planned

PARTS = {
    "weights": ("#4c72b0", "blue"),
    "gradients": ("#dd8452", "yellow"),
    "optimizer": ("#55a868", "green"),
    "activations": ("#c44e52", "red"),
    "workspace": ("#8172b3", "magenta"),
    "segments": ("#937860", "cyan"),
    "context": ("#8c8c8c", "bright_black"),
}
"""The parts of a peak, in the order they are stacked, with their colour in the picture and on a terminal."""

SHOWN = 5
WIDTH = 40
FAR = 10


def show(plans: list[MethodPlan], budget: Budget) -> RenderableType:
    """The plan as tables."""
    parts: list[Any] = ["Budget: " + (", ".join(budget.limits.values()) or "none")]
    if SECONDS.name in budget.values:
        parts.append(f"{SECONDS.name} is judged from the first steps of each trial, not here.")
    parts += [_shares(plans), _memory(plans, budget)]
    parts += [Text(sentence) for sentence in needs(plans)]
    for entry in plans:
        space = Table("dimension", "range", title=f"{entry.name}: its space", title_justify="left")
        for name, text in entry.dimensions.items():
            space.add_row(name, text)
        extra = [limit for limit in extra_limits() if limit.measure in entry.default.needs]
        columns = (limit.measure for limit in extra)
        table = Table("candidate", "trained", "saved", "predicted peak", *columns, "fits")
        for planned in (entry.default, *entry.sampled[:SHOWN]):
            more = (limit.write(planned.need(limit.name)) for limit in extra)
            table.add_row(planned.candidate, *_cells(planned), *more, ", ".join(planned.broken) or "yes")
        parts += [space, table]
    return Group(*parts)


def needs(plans: list[MethodPlan]) -> list[str]:
    """For each method of which nothing was found to fit, the candidate that comes closest and the limits it needs."""
    told = []
    for entry in plans:
        if entry.closest is not None:
            wanted = [LIMITS[limit].named(entry.closest.need(limit)) for limit in entry.closest.broken]
            told.append(
                f"Nothing of {entry.name} fits. The closest is {entry.closest.candidate} with a batch of "
                f"{entry.closest.batch_size}; it needs {' and '.join(wanted)}."
            )
    return told


def remarks(plans: list[MethodPlan], budget: Budget) -> list[str]:
    """What is wrong with a limit whatever the method: it leaves no room for the base model itself."""
    limit, least = budget.max_gpu_memory, min(entry.default.memory["weights"] for entry in plans)
    if limit is None or limit >= least:
        return []
    return [
        f"{budget.named(MEMORY.name)} is less than the model's weights alone take, {format_bytes(least)}, so no "
        "candidate can fit. Raise it in [budget], or give a smaller model, `dtype` or `quantization` in [model]."
    ]


def picture(plans: list[MethodPlan], budget: Budget, path: Path) -> None:
    """Draw the shares and the defaults' memory to a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [entry.name for entry in plans]
    limits = [*plans[0].shares, "all limits"]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 1.6 + 0.8 * len(plans)), layout="constrained")
    height = 0.8 / len(limits)
    for index, name in enumerate(limits):
        values = [100 * entry.shares.get(name, entry.share) for entry in plans]
        places = [row + height * (index - (len(limits) - 1) / 2) for row in range(len(plans))]
        left.barh(places, values, height, label=name)
    left.set(yticks=range(len(plans)), yticklabels=names, xlim=(0, 100), xlabel="share of the space inside, %")
    left.set_title("What fits")
    starts = [0.0] * len(plans)
    for part, (colour, _) in _parts(plans).items():
        values = [entry.default.memory[part] / 2**20 for entry in plans]
        right.barh(names, values, 0.6, starts, color=colour, label=part)
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    limit = (budget.max_gpu_memory or 0) / 2**20
    right.set(xlabel="predicted peak of the default, MiB", title="Memory")
    if limit > FAR * max(starts):  # drawn, it would leave the bars no room
        right.set_title(f"Memory ({budget.named(MEMORY.name)})")
    elif limit:
        right.axvline(limit, color="black", linestyle="--", label=MEMORY.name)
    for axes in (left, right):
        axes.invert_yaxis()
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as draft:
        figure.savefig(draft, dpi=130, format="png")
    plt.close(figure)


def _shares(plans: list[MethodPlan]) -> Table:
    limits = list(plans[0].shares)
    table = Table("method", *limits, "all limits", "largest found to fit", title="What fits", title_justify="left")
    for entry in plans:
        shares = [_bar(share) for share in (*entry.shares.values(), entry.share)]
        largest = "nothing"
        if entry.largest is not None:
            trained, saved, peak = _cells(entry.largest)
            largest = (
                f"{entry.largest.candidate.split(' lr=')[0]}\n"
                f"{trained} params, {saved}, {peak} at a batch of {entry.largest.batch_size}"
            )
        table.add_row(entry.name, *shares, largest)
    return table


def _memory(plans: list[MethodPlan], budget: Budget) -> Table:
    most = max([budget.max_gpu_memory or 0, *(entry.default.memory["peak"] for entry in plans)])
    table = Table(title="Predicted memory of each default, at the peak of a step", title_justify="left")
    table.add_column("method")
    parts = _parts(plans)
    for part, (_, colour) in parts.items():
        table.add_column(Text(part, colour), justify="right")
    table.add_column("peak", justify="right")
    table.add_column("of the budget" if most == budget.max_gpu_memory else "")
    for entry in plans:
        memory = entry.default.memory
        bar = Text()
        for part, (_, colour) in parts.items():
            bar.append("█" * round(WIDTH * memory[part] / most), colour)
        table.add_row(entry.name, *(format_bytes(memory[part]) for part in (*parts, "peak")), bar)
    return table


def _parts(plans: list[MethodPlan]) -> dict[str, tuple[str, str]]:
    """The parts that there are: some are a GPU's alone."""
    return {part: look for part, look in PARTS.items() if any(entry.default.memory[part] for entry in plans)}


def _bar(share: float) -> Text:
    return Text("█" * round(10 * share), "green") + Text("░" * (10 - round(10 * share)), "dim") + Text(f" {share:.0%}")


def _cells(planned: Planned) -> tuple[str, str, str]:
    return f"{planned.trainable_params:,}", format_bytes(planned.saved_bytes), format_bytes(planned.memory["peak"])
