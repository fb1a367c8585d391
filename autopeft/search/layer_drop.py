"""How many of the lowest layers of the winner lose their add-ons (AdapterDrop, Rücklé et al. 2021, arXiv:2010.11918).

Nothing is trained again. The folds of the winner's trial answer the rows that they validate, with more and more layers
left alone, as long as their mean score stays within one standard error of the winner's. Held-out rows have no part in
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import TYPE_CHECKING

from autopeft.budget.limits import SAVED
from autopeft.common.containment import heartbeat
from autopeft.common.exceptions import SpecError, StudyError, in_a_line
from autopeft.common.units import counted
from autopeft.reporting.statistics import standard_error
from autopeft.search.fold_models import fold_models, kept_folds
from autopeft.search.layer_cost import LayerCost, cost_of
from autopeft.search.served import REFIT
from autopeft.search.without_layers import CannotDropError, built, without_layers
from autopeft.study.report_section import ReportSection, ReportTable
from autopeft.training.learner import evaluate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import nn

    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.methods.contract import ModelSpec
    from autopeft.search.served import Served
    from autopeft.training.checkpoint import Checkpoint

AUTO = "auto"
"""The value of `drop_layers` in [winner] that lets the folds decide."""

Scores = dict[int, list[float]]
"""The scores of folds, by the number of layers without add-ons."""


@dataclass(frozen=True)
class LayerDrop:
    """How many layers lose their add-ons.

    Attributes:
        count: the number; 0 where none do.
        sections: of the report.
        told: why there are not as many as were asked for, as the end of a sentence; "" where there is nothing to say.
    """

    count: int = 0
    sections: tuple[ReportSection, ...] = ()
    told: str = ""


def require_layers(problem: Problem) -> None:
    """Check that low layers can be left alone if the study file asks for it.

    Raises:
        SpecError: the base model has not that many layers, or none that is the lowest.
    """
    wanted = problem.spec.winner.drop_layers
    for one in problem.each if wanted else ():
        spec = one.base.spec
        if not _one_stack(spec):
            raise SpecError(
                f"`drop_layers` in [winner] needs a model with one stack of different layers, but "
                f"{spec.architecture} has another structure; set it to 0."
            )
        if wanted != AUTO and int(wanted) >= len(spec.layers):
            raise SpecError(
                f"`drop_layers` in [winner] must be below the number of layers of {spec.architecture}, which is "
                f"{len(spec.layers)}, but is {wanted}; lower it."
            )


def _one_stack(spec: ModelSpec) -> bool:
    return len({layer.rpartition(".")[0] for layer in spec.layers}) == 1 and spec.num_hidden_layers == len(spec.layers)


def decide(problem: Problem, candidate: Candidate, say: Callable[[str], None]) -> LayerDrop:
    """How many layers the study file and the winner's folds leave without add-ons.

    Where it is the folds that decide, their checkpoint stays if the winner is made of them too. `say` prints why none
    do, if some were asked for.
    """
    wanted = problem.spec.winner.drop_layers
    if not wanted:
        return LayerDrop()
    counts, why = possible(problem, candidate, len(problem.base.spec.layers) - 1 if wanted == AUTO else int(wanted))
    if len(counts) == 1 or (wanted != AUTO and counts[-1] < int(wanted)):
        return _none(problem, f"{candidate.method.name} {why}" if why else "the base model has only one layer", say)
    if wanted != AUTO:
        return LayerDrop(int(wanted), (_section(problem, candidate, (0, int(wanted)), int(wanted), {}),))
    try:
        checkpoint = kept_folds(problem, candidate)
    except StudyError as error:  # the winner can do without
        return _none(problem, in_a_line(error).rstrip("."), say)
    try:
        scores = fold_scores(problem, candidate, checkpoint, counts)
    finally:
        if problem.spec.winner.form == REFIT:
            checkpoint.remove()
    if not scores[0]:
        return _none(problem, "all of its folds collapsed", say)
    count = chosen(scores)
    return LayerDrop(count, (_section(problem, candidate, counts, count, scores),))


def _none(problem: Problem, why: str, say: Callable[[str], None]) -> LayerDrop:
    told = f"all add-ons were kept, because {why}"
    say(f"`drop_layers` in [winner] is {problem.spec.winner.drop_layers}, but {told}.")
    return LayerDrop(told=told)


def possible(problem: Problem, candidate: Candidate, most: int) -> tuple[list[int], str]:
    """The numbers of layers, up to `most`, with which the method does less, 0 first; and why there are no more.

    A number of layers that have no add-on anyway is not among them.
    """
    counts, whole, why = [0], _parameters(problem, candidate, 0), ""
    for count in range(1, most + 1):
        try:
            if _parameters(problem, candidate, count) == whole:
                why = f"has no add-on in the lowest {counted(count, 'layer')} anyway"
                continue
        except CannotDropError as error:
            return counts, str(error).rstrip(".")
        counts.append(count)
    return counts, why


def _parameters(problem: Problem, candidate: Candidate, count: int) -> set[tuple[str, bool]]:
    """The names of the parameters with the lowest `count` layers left alone, and whether each is trained."""
    model = built(problem.base, candidate, count, meta=True)
    return {(name, one.requires_grad) for name, one in model.named_parameters(remove_duplicate=False)}


def fold_scores(problem: Problem, candidate: Candidate, checkpoint: Checkpoint, counts: Sequence[int]) -> Scores:
    """The score of each fold that learnt, on the rows that it validates, with each number of layers left alone."""
    folds, found = checkpoint.learnt(len(problem.folds)), {count: list[float]() for count in counts}
    task, rows = problem.setup(candidate).task, problem.train
    most = problem.cost_estimator(candidate).execution.micro_batch
    for fold, model in zip(folds, fold_models(problem, candidate, checkpoint, folds), strict=True):
        validated = problem.folds[fold].validation
        truths = rows.truths[rows.rows_of(validated)]
        for count in counts:
            heartbeat()
            lower = without_layers(problem.base, candidate, model, count)
            (answers,) = evaluate(lower, rows, [validated], task, problem.device, most)
            found[count].append(task.score_of_fold(problem.metric, truths, answers))
    return found


def chosen(scores: Mapping[int, Sequence[float]]) -> int:
    """How many layers can go, one after another, with a mean score within one standard error of that with all add-ons.

    A larger number whose score is within it again, behind one that is not, is good by chance. 0 where no fold learnt.

    Args:
        scores: of the folds, by the number of layers without add-ons, from 0 on.
    """
    if not scores[0]:
        return 0
    least = fmean(scores[0]) - _error(scores[0])
    return max(takewhile(lambda count: fmean(scores[count]) >= least, sorted(scores)))


def _error(scores: Sequence[float]) -> float:
    return standard_error(scores) if len(scores) > 1 else 0.0


def dropped(problem: Problem, candidate: Candidate, made: Served, count: int) -> Served:
    """The same models, whose lowest `count` layers have lost their add-ons."""
    from torch import nn

    if not count:
        return made
    if isinstance(made.models, nn.Module):
        return made._replace(models=without_layers(problem.base, candidate, made.models, count))
    return made._replace(models=_each(problem, candidate, made.models, count))


def _each(problem: Problem, candidate: Candidate, models: Iterable[nn.Module], count: int) -> Iterator[nn.Module]:
    for model in models:
        yield without_layers(problem.base, candidate, model, count)


def _section(
    problem: Problem, candidate: Candidate, counts: Sequence[int], count: int, scores: Mapping[int, Sequence[float]]
) -> ReportSection:
    """A table with a line for each number of layers."""
    lines = []
    for one in counts:
        model = built(problem.base, candidate, one).to(problem.device.type)
        cost = cost_of(problem, candidate, model, one)
        mean = f"{fmean(scores[one]):.4f}" if scores.get(one) else "–"
        lines.append((f"{one} (the winner)" if one == count else str(one), mean, *_cells(cost)))
    columns = (
        "layers without an add-on", f"{problem.metric} of the folds", "trained parameters", "file", "ms a row",
        "of these shared",
    )  # fmt: skip
    table = ReportTable(columns, tuple(lines), tuple(range(1, len(columns))))
    why = "The study file sets the number."
    if scores:
        error = _error(scores[0])
        why = (
            "Scores are means over the folds, on the rows that they validate. The winner has the largest number up to "
            f"which all are within one standard error ({error:.4f}) of the score with all add-ons; held-out rows had "
            "no part in it."
        )
    bare = f"The winner leaves the lowest {counted(count, 'layer')} as in the base model (AdapterDrop)"
    text = (
        f"{bare if count else 'The winner keeps the add-ons of all layers'}; nothing was trained again. {why} Times "
        "are of one pass on this machine; what is shared is the part below the lowest add-on, which several winners on "
        "one base model have in common."
    )
    return ReportSection("Low layers without add-ons", text, table=table)


def _cells(cost: LayerCost) -> tuple[str, ...]:
    return f"{cost.params:,}", SAVED.write(cost.saved), f"{cost.seconds * 1e3:.3g}", f"{cost.below * 1e3:.3g}"
