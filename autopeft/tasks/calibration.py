"""Whether probabilities are reliable: of ten rows answered with probability 0.8, eight should be right."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.study.report_section import ReportPlot, ReportSection, ReportTable

if TYPE_CHECKING:
    import numpy as np

BINS = 10
"""Of equal width, from 0 to 1."""


def expected_calibration_error(answers: np.ndarray, truths: np.ndarray) -> float:
    """The mean difference between probability and share of right answers, over bins weighted by rows (Guo et al. 2017).

    Args:
        answers: probabilities, `[rows, labels]`; the largest of each row counts.
        truths: positions of the right labels, `[rows]`.
    """
    return sum(rows * abs(right - sure) for rows, sure, right in bins(answers, truths)) / max(1, len(truths))


def bins(answers: np.ndarray, truths: np.ndarray) -> list[tuple[int, float, float]]:
    """For each bin that has rows: how many, their mean probability, and the share of right answers."""
    import numpy as np

    sure, right = answers.max(-1).astype(float), answers.argmax(-1) == truths
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    found = ((places == place) for place in range(BINS))
    return [(int(own.sum()), float(sure[own].mean()), float(right[own].mean())) for own in found if own.any()]


def section(answers: np.ndarray, truths: np.ndarray) -> ReportSection:
    """The part of the report: a reliability diagram (DeGroot & Fienberg 1983) and its numbers."""
    found, error = bins(answers, truths), expected_calibration_error(answers, truths)
    most = max(rows for rows, *_ in found)
    points = tuple((sure, right, rows / most) for rows, sure, right in found)
    title = "Reliability diagram: below the line, the winner is more confident than it is right."
    plot = ReportPlot(title, "probability of the answer", "share of right answers", points, diagonal=True)
    lines = tuple((f"{sure:.4f}", f"{right:.4f}", f"{rows:,}") for rows, sure, right in found)
    table = ReportTable(("mean probability", "right", "rows"), lines, (0, 1, 2))
    told = f"The expected calibration error is {error:.4f}: on average, the probabilities are off by that much."
    return ReportSection("Are the winner's probabilities reliable?", told, table=table, plot=plot)
