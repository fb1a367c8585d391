"""The limits of a study, and by how much a candidate breaks them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from autopeft.common.units import format_bytes, format_seconds
from autopeft.study.budget_section import BudgetSection
from autopeft.study.record import TrialRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from autopeft.budget.usage import Usage


@dataclass(frozen=True)
class Limit:
    """A limit of the budget: what a candidate needs of the limited thing, and how amounts and an excess are worded.

    A new one is an entry in `LIMITS`, and a setting of that name in `BudgetSection`.

    Attributes:
        name: of its setting.
        measure: what is limited, by its name in records, MLflow and tables.
        write: an amount as a person reads it.
        excess: what an amount over the limit does, with `{}` for the amount.
        need: what a candidate needs, known before it trains; None if only training shows it.
        least: a lower bound of a need that is slow to compute; it returns None if the need is known already.
        share: whether the setting may be a float, which is a share of the base model's parameters.

    >>> from autopeft.budget.usage import Usage, Weights
    >>> kept = Limit("max_kept", "kept_params", "{:,}".format, "keeps {} parameters", lambda u: u.weights.saved_params)
    >>> usage = Usage(2000, lambda: Weights(saved_params=1500, saved_bytes=6000, least_memory=0), fit_memory=None)
    >>> kept.needed(usage) > 1000, kept.named(1000)
    (True, 'max_kept = 1,000')
    >>> Budget(max_saved_size=4096).reason(usage)  # as `SAVED` words it
    'weighs 5.9 KiB when saved, over max_saved_size = 4.0 KiB'
    """

    name: str
    measure: str
    write: Callable[[float], str]
    excess: str
    need: Callable[[Usage], float] | None = None
    least: Callable[[Usage], float | None] | None = None
    share: bool = False

    @property
    def extra(self) -> bool:
        """Whether a trial's record has no field for it; then the need is among the record's `needs`."""
        return self.measure not in TrialRecord.__dataclass_fields__

    def amount(self, given: float, base_parameters: int) -> float:
        """The limit as a number, from its setting and the size of the base model."""
        return max(1, int(given * base_parameters)) if self._is_share(given) else given

    def given(self, setting: float) -> str:
        """Its setting as a person reads it."""
        return f"{setting:.4%} of the base model" if self._is_share(setting) else self.write(setting)

    def named(self, value: float) -> str:
        """The limit with its value, such as "max_gpu_memory = 2.0 GiB"."""
        return f"{self.name} = {self.write(value)}"

    def needed(self, usage: Usage) -> float:
        """What a candidate needs; computed once, and kept in its usage."""
        if self.measure not in usage.needs:
            assert self.need is not None
            usage.needs[self.measure] = self.need(usage)
        return usage.needs[self.measure]

    def cell(self, record: TrialRecord) -> str:
        """What a trial used, for a table."""
        used = record.used(self.measure)
        return "–" if used is None else self.write(used)

    def settled(self, usage: Usage, value: float) -> tuple[float, bool]:
        """What a candidate needs, and False; or its lower bound, and True, if that is already over `value`."""
        least = self.least(usage) if self.least else None
        return (least, True) if least is not None and least > value else (self.needed(usage), False)

    def _is_share(self, given: float) -> bool:
        return self.share and isinstance(given, float)


PARAMS = Limit(
    "max_trainable_params", "trainable_params", "{:,}".format, "trains {} parameters",
    need=lambda usage: usage.trainable_params, share=True,
)  # fmt: skip
SAVED = Limit(
    "max_saved_size", "saved_bytes", format_bytes, "weighs {} when saved", need=lambda usage: usage.weights.saved_bytes
)
MEMORY = Limit(
    "max_gpu_memory", "predicted_memory", format_bytes, "needs {} at its peak",
    need=lambda usage: usage.memory.peak,
    least=lambda usage: None if usage.memory_known else usage.weights.least_memory,
)  # fmt: skip
SECONDS = Limit("max_trial_seconds", "seconds", format_seconds, "would take {}")

LIMITS = {limit.name: limit for limit in (PARAMS, SAVED, MEMORY, SECONDS)}
"""Every limit by its name. Each takes longer to compute than the one before."""


class Budget:
    """The hard limits of a study.

    Args:
        workers: trials that run side by side.
        shared_gpu_memory: the study's `max_gpu_memory`, which the workers share.
        limits: what one trial may take, by the limit's name. Parameters are counted, memory and saved size are in
            bytes, time is in seconds; None means no limit.

    Attributes:
        values: the limits that are set, in the order of `LIMITS`.
    """

    def __init__(self, workers: int = 1, shared_gpu_memory: int | None = None, /, **limits: float | None) -> None:
        if unknown := limits.keys() - LIMITS.keys():
            raise TypeError(f"no limit is called {', '.join(sorted(unknown))}")
        self.workers, self.shared_gpu_memory = workers, shared_gpu_memory
        self.values = {name: value for name in LIMITS if (value := limits.get(name)) is not None}

    @property
    def max_gpu_memory(self) -> int | None:
        """Bytes that a step of one trial may take."""
        limit = self.values.get(MEMORY.name)
        return None if limit is None else int(limit)

    def violations(self, usage: Usage, *, cheap: bool = False, every: bool = False) -> dict[str, float]:
        """How far each limit is exceeded, as a share of it: `used / limit - 1`, at most 0 if it holds.

        This is the form of Optuna's constraints, normalised so that no unit outweighs another. Each limit takes longer
        to compute than the one before, so it is left out if an earlier one is broken already, unless `cheap` asks for
        all limits that are cheap to compute or `every` for all. Time is not known before the first steps: see
        `seconds_violation`.
        """
        found: dict[str, float] = {}
        for name, value in self.values.items():
            limit, holds = LIMITS[name], max(found.values(), default=0) <= 0
            if limit.need and (every or holds or (cheap and not limit.least)):
                need = limit.needed(usage) if every else limit.settled(usage, value)[0]
                found[name] = need / value - 1
        return found

    def admits(self, usage: Usage) -> bool:
        """Whether every limit that is known before training holds."""
        return all(violation <= 0 for violation in self.violations(usage).values())

    def lacks_memory(self, usage: Usage, most: float) -> bool:
        """Whether memory is the only limit that is exceeded, and there is a process with more, `most` bytes."""
        if self.max_gpu_memory is None or most <= self.max_gpu_memory:
            return False
        return [name for name, violation in self.violations(usage).items() if violation > 0] == [MEMORY.name]

    def reason(self, usage: Usage) -> str:
        """The first limit that `usage` breaks, as a sentence; empty if it breaks none."""
        for name, violation in self.violations(usage).items():
            if violation > 0:
                need, at_least = LIMITS[name].settled(usage, self.values[name])
                return self._excess(LIMITS[name], need, "at least " * at_least)
        return ""

    def seconds_violation(self, predicted: float) -> float | None:
        """How far a trial of `predicted` seconds exceeds `max_trial_seconds`, as in `violations`; None: no limit.

        `predict_seconds` gives the seconds, once the first steps have been timed.
        """
        limit = self.values.get(SECONDS.name)
        return None if limit is None else predicted / limit - 1

    def seconds_reason(self, predicted: float) -> str:
        """The sentence for a trial of `predicted` seconds; empty if the limit holds."""
        return self._excess(SECONDS, predicted) if (self.seconds_violation(predicted) or 0.0) > 0 else ""

    def _excess(self, limit: Limit, need: float, at_least: str = "") -> str:
        return f"{limit.excess.format(at_least + limit.write(need))}, over {self.named(limit.name)}"

    def to_dict(self) -> dict[str, float | None]:
        """For a script: every limit in the order of a study file, and who shares the memory."""
        shared = {"workers": self.workers, "shared_gpu_memory": self.shared_gpu_memory}
        return {**dict.fromkeys(BudgetSection.model_fields), **self.values, **shared}

    @property
    def limits(self) -> dict[str, str]:
        """The limits that are set, name → "name = value", as a person reads them."""
        return {name: self.named(name) for name in self.values}

    def named(self, name: str) -> str:
        """A limit as a person reads it, such as "max_gpu_memory = 2.0 GiB"."""
        limit, value = LIMITS[name], self.values[name]
        if limit is MEMORY and self.workers > 1:
            whole = self.shared_gpu_memory or value * self.workers
            return f"{limit.named(value)} ({limit.write(whole)} shared by {self.workers} workers)"
        return limit.named(value)


def extra_limits() -> list[Limit]:
    """Limits for which records have no field."""
    return [limit for limit in LIMITS.values() if limit.extra]


def extra_columns(records: Iterable[TrialRecord]) -> list[Limit]:
    """The extra limits for which any of these trials has a known use."""
    known = {measure for record in records for measure in record.needs}
    return [limit for limit in extra_limits() if limit.measure in known]


def extra_needs(usage: Usage) -> dict[Limit, float]:
    """What is known of a candidate's needs, by extra limit."""
    return {limit: usage.needs[limit.measure] for limit in extra_limits() if limit.measure in usage.needs}


def predict_seconds(per_step: float, steps_to_come: float, spent: float = 0.0) -> float:
    """Wall time of a whole trial, from its first steps.

    Args:
        per_step: seconds of a step, from the first ones.
        steps_to_come: remaining steps of all folds and epochs, and other work counted in steps.
        spent: seconds since the trial began.
    """
    return spent + per_step * steps_to_come
