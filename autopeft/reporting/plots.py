"""The pictures of a report, as SVG in the text colour of the page."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from autopeft.common.units import counted
from autopeft.study.states import PRUNED, STOPPED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from autopeft.reporting.comparison import Front
    from autopeft.reporting.content import Report
    from autopeft.study.report_section import ReportPlot

INK = "#010203"
"""Placeholder for the page's text colour: written by matplotlib, replaced by `currentColor`."""

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
"""Looks of the methods: the colours of Okabe & Ito 2008, which most colour-blind readers can tell apart, and shapes."""

STYLE: dict[Any, Any] = {  # matplotlib types its keys one by one
    "svg.fonttype": "none",
    "text.parse_math": False,  # a label may hold a dollar sign
    "svg.hashsalt": "autopeft",  # the same report gives the same file
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.15,
    "savefig.transparent": True,
    **dict.fromkeys(
        (
            "text.color",
            "axes.edgecolor",
            "axes.labelcolor",
            "axes.titlecolor",
            "xtick.color",
            "ytick.color",
            "grid.color",
        ),
        INK,
    ),
    "legend.frameon": False,
    "legend.labelcolor": INK,
}

MOST_CLASSES = 30
"""Most classes of a confusion matrix; with more it would be too fine to read."""


@dataclass(frozen=True)
class Plot:
    """A picture: its name, a title, a text for readers who cannot see it, and the SVG."""

    name: str
    title: str
    alt: str
    svg: str = field(repr=False)
    figure: Figure = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png()

    def png(self) -> bytes:
        """The picture on white, for programs that do not show SVG."""
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=150, facecolor="white", transparent=False)
        return file.getvalue()


def draw(report: Report) -> list[Plot]:
    """All pictures that are not empty."""
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        painters = (_leads, _fronts, _curves, _importance, _budget, _confusion, _residuals)
        own = [_points(section.title, section.plot) for section in report.sections if section.plot]
        return [*(plot for painter in painters if (plot := painter(report))), *own]


def name_of(section: str) -> str:
    """The name of the picture in a section that the kind of task adds to the report."""
    return "section_" + re.sub(r"[^a-z0-9]+", "_", section.lower()).strip("_")


def _points(section: str, content: ReportPlot) -> Plot:
    figure, axes = _figure(4.5, 4.2)
    if content.diagonal:
        axes.plot([0, 1], [0, 1], "--", color=INK, linewidth=1)
    x, y, sizes = zip(*content.points, strict=True) if content.points else ((), (), ())
    axes.plot(x, y, color=COLOURS[0], linewidth=1)
    axes.scatter(x, y, s=[20 + 160 * size for size in sizes], color=COLOURS[0], alpha=0.7)
    axes.set_xlabel(content.x)
    axes.set_ylabel(content.y)
    said = "; ".join(f"{content.x} {a:.3g}, {content.y} {b:.3g}" for a, b, _ in content.points)
    return _plot(figure, name_of(section), content.title, said)


def _leads(report: Report) -> Plot | None:
    tested = [c for c in report.comparisons if c.difference]
    if not tested:
        return None
    figure, axes = _figure(8, 1.1 + 0.4 * len(tested))
    for row, comparison in enumerate(tested):
        difference = comparison.difference
        assert difference is not None  # `tested` has no others
        colour = COLOURS[2] if comparison.real else COLOURS[1]
        axes.plot([difference.low, difference.high], [row, row], color=colour, linewidth=3, solid_capstyle="round")
        axes.plot([difference.mean], [row], "o", color=INK, markersize=6)
    axes.axvline(0, color=INK, linewidth=1, linestyle="--")
    names = [f"trial {c.ahead.number} ({c.ahead.method}) - trial {c.behind.number} ({c.behind.method})" for c in tested]
    axes.set_yticks(range(len(tested)), names)
    axes.set_ylim(len(tested) - 0.5, -0.5)
    axes.set_xlabel(f"difference in {report.metric}, with its 95% interval")
    return _plot(
        figure,
        "leads",
        "How sure each lead is: where the interval contains 0, the lead may be chance.",
        " ".join(comparison.verdict for comparison in tested),
    )


def _fronts(report: Report) -> Plot | None:
    if not report.fronts:
        return None
    looks = _looks(report)
    columns = 2 if len(report.fronts) > 1 else 1
    rows = -(-len(report.fronts) // columns)
    figure, _ = _figure(9, 3.1 * rows, bare=True)
    for place, front in enumerate(report.fronts, 1):
        axes = figure.add_subplot(rows, columns, place)
        by_number = {point.number: point for point in front.points}
        steps = [by_number[number] for number in front.best]
        scale, unit = _unit(front)
        x, y = [point.cost / scale for point in steps], [point.score for point in steps]
        axes.plot(x, y, color=INK, linewidth=1, alpha=0.6, drawstyle="steps-post")
        for method, (colour, marker) in looks.items():
            own = [point for point in front.points if point.method == method]
            if own:
                costs, scores = [point.cost / scale for point in own], [point.score for point in own]
                axes.plot(costs, scores, marker, color=colour, label=method, markersize=7, alpha=0.9)
        for number, place_of in zip(front.best, zip(x, y, strict=True), strict=True):
            axes.annotate(str(number), place_of, (5, 5), textcoords="offset points", fontsize=8)
        axes.margins(0.12)
        axes.set(xlabel=front.cost + f", {unit}" * bool(unit), ylabel=f"mean {report.metric}")
        axes.locator_params(axis="x", nbins=5)
        axes.xaxis.set_major_formatter("{x:,.6g}")
    _legend(figure)
    best = "; ".join(f"for {front.cost}: {', '.join(map(str, front.best))}" for front in report.fronts)
    return _plot(
        figure,
        "fronts",
        "Score against cost: complete trials, and the line that no other trial lies above and left of.",
        f"Score against each cost. Trials on the Pareto front, the cheapest first, {best}.",
    )


def _curves(report: Report) -> Plot | None:
    if not report.curves:
        return None
    looks = _looks(report)
    figure, axes = _figure(8, 4)
    for curve in report.curves:
        colour, marker = looks[curve.method]
        pruned, stopped = curve.state == PRUNED, curve.state == STOPPED
        axes.plot(
            curve.epochs,
            curve.scores,
            color=colour,
            marker=marker,
            markersize=4,
            alpha=0.55 if pruned or stopped else 1,
            linestyle=":" if pruned else "--" if stopped else "-",
            linewidth=1.2 if pruned or stopped else 2,
        )
        if pruned:
            axes.plot(curve.epochs[-1:], curve.scores[-1:], "x", color=colour, markersize=8)
        elif curve.number == (report.winner.number if report.winner else None):
            text = f"trial {curve.number}"
            axes.annotate(text, (curve.epochs[-1], curve.scores[-1]), (4, 4), textcoords="offset points", fontsize=9)
    for method, (colour, marker) in looks.items():
        axes.plot([], [], color=colour, marker=marker, label=method)
    axes.set_xscale("log", base=2)
    ends = sorted({end for curve in report.curves for end in curve.epochs})
    axes.set_xticks(ends, [f"{end:g}" for end in ends])
    axes.set(xlabel="epochs", ylabel=f"mean {report.metric} over the folds")
    _legend(figure)
    states = [curve.state for curve in report.curves]
    told = f"Mean score after each rung of {counted(len(states), 'trial')}; pruned: {states.count(PRUNED)}"
    told += f"; stopped by the timeout: {states.count(STOPPED)}." if STOPPED in states else "."
    if report.winner:
        steps = ", ".join(f"{score:.4f}" for score in report.winner.curve)
        told += f" The best, trial {report.winner.number}, went through {steps}."
    title = "Learning curves; dotted lines that end in a cross were pruned there."
    if STOPPED in states:
        title += " Dashed ones were stopped by the timeout."
    return _plot(figure, "curves", title, told)


def _importance(report: Report) -> Plot | None:
    told = [importance for importance in report.importances if importance.shares]
    if not told:
        return None
    heights = [len(importance.shares) for importance in told]
    figure, _ = _figure(8, 0.9 * len(told) + 0.27 * sum(heights), bare=True)
    grid = figure.add_gridspec(len(told), 1, height_ratios=[height + 1.5 for height in heights])
    for place, importance in enumerate(told):
        axes = figure.add_subplot(grid[place])
        axes.barh(list(importance.shares), list(importance.shares.values()), color=COLOURS[0])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.set_title(importance.scope, loc="left", fontsize=10)
    alt = " ".join(
        f"For {importance.scope}: "
        + ", ".join(f"{name} {share:.0%}" for name, share in importance.shares.items())
        + "."
        for importance in told
    )
    return _plot(figure, "importance", "Which settings mattered: shares of importance by PED-ANOVA.", alt)


def _budget(report: Report) -> Plot | None:
    limits = report.budget.limits
    if not limits:
        return None
    figure, axes = _figure(8, 1.4 + 0.6 * len(limits))
    for row, use in enumerate(limits):
        axes.plot(use.admitted_shares, [row] * len(use.admitted_shares), "o", color=COLOURS[2], alpha=0.6, markersize=7)
        axes.plot(use.refused_shares, [row] * len(use.refused_shares), "x", color=COLOURS[4], markersize=8)
    axes.plot([], [], "o", color=COLOURS[2], label="admitted")
    axes.plot([], [], "x", color=COLOURS[4], label="refused")
    axes.axvline(1, color=INK, linestyle="--", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.xaxis.set_minor_formatter(lambda share, _: "")
    axes.set_yticks(range(len(limits)), [f"{use.limit}\n{use.value}" for use in limits])
    axes.set_ylim(len(limits) - 0.5, -0.5)
    axes.set_xlabel("share of the limit that a proposal needs")
    _legend(figure)
    return _plot(
        figure,
        "budget",
        "What proposals needed of each limit. The dashed line is the limit.",
        report.budget.verdict,
    )


def _confusion(report: Report) -> Plot | None:
    test = report.test
    if test is None or not test.confusion or len(test.labels) > MOST_CLASSES:
        return None
    from matplotlib.colors import LinearSegmentedColormap

    size = len(test.labels)
    figure, axes = _figure(2.5 + 0.55 * size, 1.8 + 0.45 * size)
    of_class = [[count / (sum(row) or 1) for count in row] for row in test.confusion]
    # From clear to opaque, so that an empty cell has the colour of the page.
    shades = LinearSegmentedColormap.from_list("counts", [(0.0, 0.45, 0.7, 0.0), (0.0, 0.45, 0.7, 0.75)])
    axes.pcolormesh(of_class, cmap=shades, vmin=0, vmax=1)
    for row, counts in enumerate(test.confusion):
        for column, count in enumerate(counts):
            axes.text(column + 0.5, row + 0.5, str(count), ha="center", va="center", fontsize=9)
    middle = [place + 0.5 for place in range(size)]
    axes.set_xticks(middle, test.labels, rotation=45 if size > 4 else 0, ha="right" if size > 4 else "center")
    axes.set_yticks(middle, test.labels)
    axes.grid(visible=False)
    axes.invert_yaxis()
    axes.set(xlabel="predicted", ylabel="true")
    alt = " ".join(
        f"Of {counted(sum(row), 'row')} of {label}: "
        + ", ".join(f"{n} as {p}" for n, p in zip(row, test.labels, strict=True))
        + "."
        for label, row in zip(test.labels, test.confusion, strict=True)
    )
    return _plot(figure, "confusion", "Where the winner is wrong: rows of each class, by the predicted class.", alt)


def _residuals(report: Report) -> Plot | None:
    test = report.test
    if test is None or not test.numbers:
        return None
    truths, answers = zip(*test.numbers, strict=True)
    low, high = min(*truths, *answers), max(*truths, *answers)
    off = [answer - truth for truth, answer in test.numbers]
    figure, axes = _figure(5, 4.2)
    axes.plot([low, high], [low, high], color=INK, linewidth=1, linestyle="--")
    axes.plot(truths, answers, "o", color=COLOURS[0], markersize=4, alpha=0.5)
    axes.set(xlabel="true", ylabel="predicted")
    alt = (
        f"{counted(len(off), 'row')}: the winner is off by {sum(map(abs, off)) / len(off):.4g} on average, by at most "
        f"{max(map(abs, off)):.4g}; true numbers go from {min(truths):.4g} to {max(truths):.4g}."
    )
    return _plot(figure, "residuals", "Where the winner is wrong: true and predicted numbers.", alt)


def _looks(report: Report) -> dict[str, tuple[str, str]]:
    """Each method's colour and marker, the same in every picture."""
    methods = sorted({trial.method for trial in report.trials})
    return {
        m: (COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]) for i, m in enumerate(methods)
    }


def _figure(width: float, height: float, *, bare: bool = False) -> tuple[Figure, Any]:
    """A figure made without pyplot, whose state the whole process shares; and its axes, unless it is `bare`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes: Axes | None = None if bare else figure.add_subplot()
    return figure, axes


def _legend(figure: Figure) -> None:
    """One legend above all axes."""
    seen: dict[str, Any] = {}
    for axes in figure.axes:
        seen |= {str(label): handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(list(seen.values()), list(seen), loc="outside upper left", ncols=6)


def _unit(front: Front) -> tuple[float, str]:
    """A divisor for a cost and the unit it is then in, so that ticks are round numbers."""
    if front.unit != "bytes":
        return 1.0, front.unit
    power = min(3, int(math.log(max(1.0, *(point.cost for point in front.points)), 1024)))
    return 1024.0**power, ("bytes", "KiB", "MiB", "GiB")[power]


def _plot(figure: Figure, name: str, title: str, alt: str) -> Plot:
    """Write the figure as SVG for a page: no prolog, no metadata, and identifiers that no other picture has."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    figure.set_layout_engine("none")  # the layout is done; a PNG need not repeat it
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'id="([a-z]+_[0-9]+)"', rf'id="{name}_\1"', svg)
    return Plot(name, title, alt, svg.replace(INK, "currentColor"), figure)
