"""Shows a plan to a person: tables for the terminal, and a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from autopeft.budget.limits import LIMITS, MEMORY, SECONDS, extra_limits
from autopeft.common.files import whole
from autopeft.common.line_table import NOTHING, Column, LineTable, Row
from autopeft.common.units import format_bytes
from autopeft.reporting import wording
from autopeft.reporting.wrapped_table import WrappedTable

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.budget.limits import Budget
    from autopeft.budget.plan import MethodPlan, Planned

PARTS = {
    "weights": "#4c72b0",
    "gradients": "#dd8452",
    "optimizer": "#55a868",
    "activations": "#c44e52",
    "workspace": "#8172b3",
    "segments": "#937860",
    "context": "#8c8c8c",
}
"""The parts of a peak, in the order in which they are stacked, with their colours in the picture."""

SPARED = {"gradients": 4, "workspace": 5, "segments": 6, "context": 7}
"""Parts that a narrow screen leaves out, the highest number first; 1 for all others."""

SHOWN = 5
FAR = 10


def show(plans: list[MethodPlan], budget: Budget) -> RenderableType:
    """The plan as tables."""
    parts: list[Any] = ["Budget: " + (", ".join(budget.limits.values()) or "none")]
    if SECONDS.name in budget.values:
        parts.append(f"{SECONDS.name} is checked in the first steps of each trial, not here.")
    parts += [_shares(plans), *_largest(plans), _memory(plans, budget)]
    parts += [Text(f"\n{sentence}") for sentence in needs(plans)]
    for entry in plans:
        space = wording.Table("", ("dimension", "range"), list(entry.dimensions.items()))
        parts += [_title(f"{entry.name}: its search space"), WrappedTable(space)]
        parts += [_title(f"{entry.name}: its default and some random candidates"), _candidates(entry)]
    return Group(*parts)


def needs(plans: list[MethodPlan]) -> list[str]:
    """For each method for which nothing fits, the closest candidate and the limits that it needs."""
    told = []
    for entry in plans:
        if entry.closest is not None:
            wanted = [LIMITS[limit].named(entry.closest.need(limit)) for limit in entry.closest.broken]
            told.append(
                f"No candidate of {entry.name} fits. The closest is {entry.closest.candidate} with a batch of "
                f"{entry.closest.batch_size}; it needs {' and '.join(wanted)}."
            )
    return told


def remarks(plans: list[MethodPlan], budget: Budget) -> list[str]:
    """A limit that rules out every method because it leaves no room for the base model itself."""
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
    for part, colour in _parts(plans).items():
        values = [entry.default.memory[part] / 2**20 for entry in plans]
        right.barh(names, values, 0.6, starts, color=colour, label=part)
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    limit = (budget.max_gpu_memory or 0) / 2**20
    right.set(xlabel="predicted peak of the default, MiB", title="Memory")
    if limit > FAR * max(starts):  # a line there would leave no room for the bars
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


def _title(text: str) -> Text:
    return Text(f"\n{text}", "bold")


def _shares(plans: list[MethodPlan]) -> RenderableType:
    columns = ("method", *plans[0].shares, "all limits")
    rows = [(entry.name, *(f"{share:.0%}" for share in (*entry.shares.values(), entry.share))) for entry in plans]
    shares = wording.Table("", columns, rows, tuple(range(1, len(columns))))
    return Group(_title("What fits: the share of random candidates within each limit"), WrappedTable(shares))


def _largest(plans: list[MethodPlan]) -> list[RenderableType]:
    """For each method, the largest candidate that fits, with whole words on any screen."""
    told: list[RenderableType] = [_title("The largest candidate found to fit")]
    for entry in plans:
        if entry.largest is None:
            told.append(Text(f"{entry.name}: none"))
            continue
        trained, saved, peak = _cells(entry.largest)
        settings = _settings(entry, entry.largest).split(" lr=")[0]
        needed = f"{trained} params, {saved}, {peak} at a batch of {entry.largest.batch_size}"
        told += [Text(f"{entry.name}: {needed}"), Padding(Text(settings, "dim"), (0, 0, 0, 2))]
    return told


def _memory(plans: list[MethodPlan], budget: Budget) -> RenderableType:
    """A line for each method; if there is no room for all parts of the peak, the usually small ones are left out."""
    parts, limit = [*_parts(plans)], budget.max_gpu_memory
    columns = [Column("method"), *(Column(part, SPARED.get(part, 1), number=True) for part in parts)]
    columns += [Column("peak", number=True), Column("of the limit", 3, number=True)]
    rows = []
    for entry in plans:
        cells = [format_bytes(entry.default.memory[part]) for part in (*parts, "peak")]
        rows.append(Row((entry.name, *cells, f"{entry.default.memory['peak'] / limit:.0%}" if limit else NOTHING)))
    return LineTable(columns, rows, "Predicted memory of each default, at the peak of a step")


def _candidates(entry: MethodPlan) -> RenderableType:
    extra = [limit for limit in extra_limits() if limit.measure in entry.default.needs]
    columns = ("candidate", "trained", "saved", "predicted peak", *(limit.measure for limit in extra), "fits")
    rows = []
    for planned in (entry.default, *entry.sampled[:SHOWN]):
        more = (limit.write(planned.need(limit.name)) for limit in extra)
        fits = f"no: {', '.join(planned.broken)}" if planned.broken else "yes"
        rows.append((_settings(entry, planned), *_cells(planned), *more, fits))
    return WrappedTable(wording.Table("", columns, rows, tuple(range(1, len(columns) - 1))))


def _settings(entry: MethodPlan, planned: Planned) -> str:
    """A candidate without its method's name, which is above it."""
    return planned.candidate.removeprefix(f"{entry.name} ")


def _parts(plans: list[MethodPlan]) -> dict[str, str]:
    """The parts that are not empty: some exist only on a GPU."""
    return {part: colour for part, colour in PARTS.items() if any(entry.default.memory[part] for entry in plans)}


def _cells(planned: Planned) -> tuple[str, str, str]:
    return f"{planned.trainable_params:,}", format_bytes(planned.saved_bytes), format_bytes(planned.memory["peak"])
