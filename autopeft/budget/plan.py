"""What a search would meet, without training: how much of each method's space fits the budget, and which candidates."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from autopeft.budget.feasibility import cheapest, closest, smallest_batch
from autopeft.budget.limits import LIMITS, MEMORY, PARAMS, SAVED, extra_needs
from autopeft.common.containment import guarded, unguarded
from autopeft.common.exceptions import MethodError, in_a_line
from autopeft.methods.dimensions import Integer, enabling

if TYPE_CHECKING:
    from collections.abc import Callable

    from autopeft.budget.cost_estimator import CostEstimator
    from autopeft.budget.limits import Budget
    from autopeft.common.plugins import Origin
    from autopeft.methods.candidate import Candidate, CandidateSpace, MethodSpace
    from autopeft.methods.search_space import SearchSpace
    from autopeft.study.file import StudySpec

SAMPLES = 24
GROWN = 3
"""How many candidates are grown in search of the largest that fits."""


@dataclass(frozen=True)
class Planned:
    """One candidate and what it would need.

    Attributes:
        candidate: its name for people.
        batch_size: rows of a step.
        trainable_params: parameters trained.
        saved_params: parameters saved.
        saved_bytes: size of the file that holds them.
        memory: bytes at the peak of a training step, in its parts and as `peak`.
        broken: the limits that it breaks.
        needs: what it uses of limits without a field here, by their measure.
    """

    candidate: str
    batch_size: int
    trainable_params: int
    saved_params: int
    saved_bytes: int
    memory: dict[str, int]
    broken: tuple[str, ...]
    needs: dict[str, float] = field(default_factory=dict)

    def need(self, limit: str) -> float:
        """What it uses of this limit."""
        fields = {PARAMS: self.trainable_params, SAVED: self.saved_bytes, MEMORY: self.memory["peak"]}
        found = LIMITS[limit]
        return fields[found] if found in fields else self.needs[found.measure]


@dataclass(frozen=True)
class MethodPlan:
    """One method's part of the space.

    Attributes:
        name: the method.
        dimensions: name → range, its own and the training ones.
        default: the method's default.
        sampled: candidates drawn evenly from the space.
        shares: limit → share of the sampled candidates within it.
        share: share of them within every limit.
        largest: of the candidates found to fit, at the smallest batch, the one that trains most parameters; None:
            none fits.
        closest: if none fits, the one that is least over a limit.
    """

    name: str
    dimensions: dict[str, str]
    default: Planned
    sampled: list[Planned]
    shares: dict[str, float]
    share: float
    largest: Planned | None
    closest: Planned | None


class Problem(Protocol):
    """What a plan needs of the study's problem."""

    @property
    def spec(self) -> StudySpec:
        """The study file."""

    @property
    def space(self) -> CandidateSpace:
        """Every method's part of the search space."""

    @property
    def cost_estimator(self) -> CostEstimator:
        """Estimates what a candidate needs."""

    @property
    def budget(self) -> Budget:
        """The limits."""

    @property
    def origins(self) -> dict[str, Origin]:
        """Method → the plugin it comes from."""

    @property
    def refused(self) -> dict[str, str]:
        """Method → why it is not searched."""


@unguarded()
def plan(
    problem: Problem, samples: int = SAMPLES, progress: Callable[[str], object] = lambda name: None
) -> list[MethodPlan]:
    """Estimate the default and `samples` random candidates of every method, and look for the largest that fits.

    A method that cannot say what a candidate needs is entered in the problem's `refused`, with the reason. `progress`
    gets the name of each method before its turn.

    Raises:
        MethodError: no method can say it.
    """
    found = []
    for name, part in problem.space.items():
        progress(name)
        try:
            with guarded(problem.spec.search.hang_timeout):
                found.append(_plan(problem, name, part, samples))
        except Exception as error:  # a method may do anything
            problem.refused[name] = f"its plugin is at fault, {problem.origins[name]}: {in_a_line(error)}"
    if not found:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in problem.refused.items())
        raise MethodError(f"a plan needs at least one method whose needs can be computed, but there is none. {reasons}")
    return found


def _plan(problem: Problem, name: str, part: MethodSpace, samples: int) -> MethodPlan:
    candidates = part.sample(samples, problem.spec.seed)
    sampled = [_planned(problem, candidate) for candidate in candidates]
    largest = _largest(problem, part, candidates)
    near = None
    if largest is None:
        near = _planned(
            problem, closest(cheapest(part, problem.cost_estimator), problem.cost_estimator, problem.budget)
        )
    return MethodPlan(
        name=name,
        dimensions={**_shown(part.own), **_shown(part.training), **_shown(part.task)},
        default=_planned(problem, part.default()),
        sampled=sampled,
        shares={
            limit: sum(limit not in planned.broken for planned in sampled) / len(sampled)
            for limit in problem.budget.values
            if LIMITS[limit].need  # known before the first steps of a trial
        },
        share=sum(not planned.broken for planned in sampled) / len(sampled),
        largest=None if largest is None else _planned(problem, largest),
        closest=near,
    )


def _planned(problem: Problem, candidate: Candidate) -> Planned:
    usage = problem.cost_estimator(candidate)
    violations = problem.budget.violations(usage, every=True)
    return Planned(
        candidate=str(candidate),
        batch_size=candidate.hyper.batch_size,
        trainable_params=usage.trainable_params,
        saved_params=usage.weights.saved_params,
        saved_bytes=usage.weights.saved_bytes,
        memory=usage.memory.to_dict(),
        broken=tuple(limit for limit, violation in violations.items() if violation > 0),
        needs={limit.measure: need for limit, need in extra_needs(usage).items()},
    )


def _largest(problem: Problem, part: MethodSpace, drawn: list[Candidate]) -> Candidate | None:
    """The candidate that trains most: the largest corners, defaults and sampled ones that fit, grown while they fit."""
    training = smallest_batch(part)
    points = [part.own.defaults(), *part.own.corners(), *(candidate.params for candidate in drawn)]
    by_size: dict[int, Candidate] = {}
    for params in points:
        candidate = part.candidate(params, training)
        by_size.setdefault(_size(problem, candidate), candidate)
    fitting: list[Candidate] = []
    for size in sorted(by_size, reverse=True):
        if _fits(problem, by_size[size]):
            fitting.append(by_size[size])
        if len(fitting) == GROWN:
            break
    if not fitting:
        return None
    grown = [_grow(problem, part, candidate) for candidate in fitting]
    return _plainest(problem, part, max(grown, key=lambda candidate: _size(problem, candidate)))


def _plainest(problem: Problem, part: MethodSpace, candidate: Candidate) -> Candidate:
    """The candidate with every dimension that does not affect its size at its default."""
    for name in candidate.params:
        plainer = replace(candidate, params={**candidate.params, name: part.own[name].default})
        same = part.own.holds(plainer.params) and _size(problem, plainer) == _size(problem, candidate)
        if same and _fits(problem, plainer):
            candidate = plainer
    return candidate


def _grow(problem: Problem, part: MethodSpace, candidate: Candidate) -> Candidate:
    """Move one whole-number dimension after another, by bisection, as far as the candidate grows and still fits."""
    for name, dimension in part.own.items():
        if not isinstance(dimension, Integer) or name not in candidate.params:
            continue
        values = range(dimension.low, dimension.high + 1, dimension.step)
        for towards in (values, values[::-1]):

            def at(index: int, path: range = towards, key: str = name, start: Candidate = candidate) -> Candidate:
                return replace(start, params={**start.params, key: path[index]})

            fits, over = towards.index(int(candidate.params[name])), len(towards)
            if _size(problem, at(over - 1)) <= _size(problem, candidate):
                continue
            while over - fits > 1:
                middle = (fits + over) // 2
                fits, over = (middle, over) if _fits(problem, at(middle)) else (fits, middle)
            candidate = at(fits)
    return candidate


def _fits(problem: Problem, candidate: Candidate) -> bool:
    return problem.budget.admits(problem.cost_estimator(candidate))


def _size(problem: Problem, candidate: Candidate) -> int:
    return problem.cost_estimator(candidate).trainable_params


def _shown(space: SearchSpace) -> dict[str, str]:
    shown = {name: str(dimension) for name, dimension in space.items()}
    for name, dimension in space.items():
        if dimension.when:
            shown[name] += f"  (where {dimension.when[0]} is {' or '.join(map(str, enabling(dimension)))})"
    return shown
