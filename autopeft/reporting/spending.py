"""What the search spent and saved, and what its budget refused."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from autopeft.budget.limits import LIMITS, MEMORY
from autopeft.common.units import counted, format_seconds
from autopeft.reporting.statistics import TIED
from autopeft.study.choice import Choice
from autopeft.study.raced import Raced
from autopeft.study.sections import LOCAL_BACKEND
from autopeft.study.states import COMPLETE, FAIL, INFEASIBLE, PRUNED, STOPPED

if TYPE_CHECKING:
    from autopeft.study.archive import Archive


@dataclass(frozen=True)
class LimitUse:
    """One limit: its value, how many proposals it refused, and what the admitted ones used of it, as shares.

    A proposal over several limits counts for the first one that it was found to break. `refused_shares` may be lower
    bounds of what was needed.
    """

    limit: str
    value: str
    refused: int
    admitted_shares: list[float]
    refused_shares: list[float]

    @property
    def closest(self) -> float | None:
        """The share of the admitted trial that came nearest to the limit."""
        return max(self.admitted_shares, default=None)


@dataclass(frozen=True)
class BudgetUse:
    """What the budget refused, and what the admitted proposals used of it."""

    proposals: int
    refused: int
    refused_by_method: dict[str, int]
    limits: list[LimitUse]
    verdict: str


@dataclass(frozen=True)
class Cost:
    """Wall seconds by purpose, and what pruning saved.

    Attributes:
        seconds: of trials by their state; of the refits and their scoring under "refits", if they were kept.
        epochs: epochs of cross-validation that were trained.
        spared: epochs that pruned trials did not train.
        samples_spared: rows that therefore did not run through the model; None where the number of rows was not kept.
        verdict: the result in words.
    """

    seconds: dict[str, float]
    epochs: float
    spared: float
    samples_spared: int | None
    verdict: str


def budget_use(archive: Archive) -> BudgetUse:
    """How the budget shaped the search."""
    infeasible = {record.number for record in archive.records if record.state == INFEASIBLE}
    shares: dict[str, tuple[list[float], list[float]]] = {}
    for record in archive.records:
        found = archive.trials[record.number].constraints
        broken = next((limit for limit in LIMITS if found.get(limit, 0.0) > 0), None)
        for limit, violation in found.items():
            admitted, refused = shares.setdefault(limit, ([], []))
            if record.number not in infeasible:
                admitted.append(1 + violation)
            elif limit == broken:
                refused.append(1 + violation)
    limits = [
        LimitUse(limit, _value(archive, limit), len(shares[limit][1]), *shares[limit])
        for limit in LIMITS
        if limit in shares
    ]
    methods = [record.method for record in archive.records if record.state == INFEASIBLE]
    by_method = {method: methods.count(method) for method in sorted(set(methods))}
    proposals = len(archive.records)
    return BudgetUse(proposals, len(methods), by_method, limits, _shaped(proposals, len(methods), limits))


def _shaped(proposals: int, refused: int, limits: list[LimitUse]) -> str:
    if not limits:
        return "No limit was set, so the budget refused nothing."
    by = ", ".join(f"{use.refused} by {use.limit}" for use in limits if use.refused)
    told = f"The budget refused {refused or 'none'} of {counted(proposals, 'proposal')}"
    told += f" ({refused / proposals:.0%}): {by}. " if refused else ". "
    near = [f"{use.closest:.0%} of {use.limit}" for use in limits if use.closest is not None]
    return told + (f"The largest admitted proposals used {' and '.join(near)}." if near else "None was admitted.")


def _value(archive: Archive, name: str) -> str:
    """A limit for a person to read; a share of the base model is shown as a number, which any trial gives.

    With several base models it stays a share.
    """
    limit, value, search = LIMITS[name], archive.given["budget"].get(name), archive.given["search"]
    if limit.share and isinstance(value, float):
        if archive.given["model"].get("candidates"):
            return limit.given(value)
        for record in archive.records:
            violation, used = archive.trials[record.number].constraints.get(name), record.used(limit.measure)
            if violation is not None and used:
                return limit.write(round(used / (1 + violation)))
    here = search.get("backend", LOCAL_BACKEND) == LOCAL_BACKEND
    shared = limit is MEMORY and here and search.get("workers", 1) != 1  # a trial may then take its worker's share
    return (limit.write(value) + " shared by the workers on a device" * shared) if value is not None else ""


def cost(archive: Archive) -> Cost:
    """What the search cost."""
    names = {COMPLETE: "complete", PRUNED: "pruned", STOPPED: "stopped", FAIL: "failed", INFEASIBLE: "refused"}
    seconds = {
        name: round(sum(record.seconds for record in archive.records if record.state == state), 3)
        for state, name in names.items()
        if state != STOPPED or any(record.state == STOPPED for record in archive.records)
    }
    if choice := Choice.read(archive.attrs):
        seconds["choice"] = choice.seconds
    if raced := Raced.read(archive.attrs):
        seconds["race"] = raced.seconds
    refits = archive.attrs.get("test_scores", {}).get("scores", {}).get("seconds")
    if refits is not None:
        seconds["refits"] = refits
    pruned = [record for record in archive.records if record.state == PRUNED]
    epochs = sum(record.epochs_trained for record in archive.records)
    spared = sum(record.epochs - record.epochs_trained for record in pruned)
    rows, folds = archive.attrs.get("rows", {}).get("train"), archive.given["validation"]["folds"]
    samples = round(spared * rows * (folds - 1)) if rows else None  # each of k folds trains on (k-1)/k of the rows
    verdict = f"The search took {format_seconds(sum(seconds.values()))}" + _shares(seconds) + "."
    if pruned:
        share = spared / (epochs + spared)
        verdict += (
            f" Pruning cut {counted(len(pruned), 'trial')} short and saved {spared:g} of {epochs + spared:g} epochs"
        )
        verdict += f" ({share:.0%})" + (f", or {samples:,} samples." if samples else ".")
    return Cost(seconds, epochs, spared, samples, verdict + _plain_default(archive))


def _shares(seconds: dict[str, float]) -> str:
    parts = [f"{format_seconds(value)} in {_what(name)}" for name, value in seconds.items() if value]
    return ": " + ", ".join(parts) if parts else ""


def _what(name: str) -> str:
    others = {
        "choice": "the choice of the winner by texts",
        "race": "the race",
        "refits": "refits and their scoring",
        "refused": "refused proposals",
    }
    return others.get(name, f"{name} trials")


def _plain_default(archive: Archive) -> str:
    """What the defaults score without a search, and what the search gained."""
    defaults = [record for record in archive.defaults.values() if record.complete and record.score is not None]
    if not defaults or not archive.ranked:
        return ""
    gained = [(archive.ranked[0].score or 0.0) - (record.score or 0.0) for record in defaults]
    lone = [f"{r.method} {r.score:.4f} in {format_seconds(r.seconds)}" for r in defaults]
    over = f"{min(gained):+.4f} over the best of them" if abs(min(gained)) >= TIED else "nothing over the best of them"
    over += f" and {median(gained):+.4f} over their median" if len(gained) > 1 else ""
    return f" Untuned defaults score in cross-validation: {', '.join(lone)}. The search gained {over}."
