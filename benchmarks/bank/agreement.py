"""Whether replays decide as live studies did: every trial's rung and state, every fold of the race, and the winner.

A study that `live.py` ran is given to the simulator: its candidates in their order, with the scores of its rungs and of
its fresh folds. The pruner of the policy "as shipped" and the race of replays must then stop, run and choose what the
study stopped, ran and chose. Where the bank has a default of the same seed and precision, its curve must be the
trial's, up to what another processor rounds.

    python benchmarks/bank/agreement.py --out OUT --bank benchmarks/bank/data
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from cells import plain, two_digits
from policies import SHIPPED
from replay import Shipped, raced
from sources import SIZES
from trials import Reached

from autopeft.search import portfolio
from autopeft.search.posterior import Run
from autopeft.search.race import Entrant, Rules
from autopeft.search.standing import usual
from autopeft.study.archive import open_archive
from autopeft.study.raced import Raced, may_win
from autopeft.study.states import COMPLETE, PRUNED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.study.archive import Archive
    from autopeft.study.record import TrialRecord

FIXED = "lora"
"""The method whose default is the best single one on the recorded tasks."""

SAME = 1e-6
"""Scores that differ by less are the same."""


@dataclass
class Lived:
    """A live study as the simulator's pruner sees one: its trials by place, each known as far as it was trained.

    Attributes:
        size: rows that a fold trains on.
        length, default: of each trial.
        comparator: the trial of the best fixed default; -1 where there is none.
        end: mean over the folds at the end; NaN where the study stopped the trial before.
        rungs: of each trial, how many the pruner asked for.
        unknown: trials that the pruner took further than the study did.
    """

    size: int
    trials: list[TrialRecord]
    length: np.ndarray
    default: np.ndarray
    comparator: int
    end: np.ndarray
    complete: list[int] = field(default_factory=list)
    rungs: list[int] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, archive: Archive, size: int) -> Lived:
        """The trials that ended, in their order."""
        trials = sorted((one for one in archive.ended if one.curve), key=lambda one: one.number)
        defaults = {record.number: name for name, record in archive.defaults.items()}
        fixed = [place for place, one in enumerate(trials) if defaults.get(one.number) == FIXED]
        return cls(
            size,
            trials,
            np.array([one.epochs for one in trials], float),
            np.array([one.number in defaults for one in trials]),
            fixed[0] if fixed else -1,
            np.array([one.curve[-1] if one.state == COMPLETE else math.nan for one in trials]),
            rungs=[0] * len(trials),
        )

    def reach(self, candidates: Sequence[int], epochs: float) -> Reached:
        """Where a trial stood at a rung; NaN where it was not trained so far."""
        (place,) = candidates
        own = self.trials[place]
        self.rungs[place] += 1
        scores = [score for score, end in zip(own.curve, own.rung_epochs, strict=True) if abs(end - epochs) < SAME]
        if not scores:
            self.unknown.add(place)
        found = np.array([scores[0] if scores else math.nan])
        return Reached(found, found, np.zeros(1))

    def finish(self, candidate: int) -> None:
        """Take one to its end."""
        self.rungs[candidate] += 1
        self.complete.append(candidate)


def states(lived: Lived) -> pd.DataFrame:
    """A row a trial: what the study did with it, and what the replay does."""
    SHIPPED.pruner.run(lived, range(len(lived.trials)))  # type: ignore[arg-type]  # it stands in for a search
    return pd.DataFrame(
        {
            "trial": [one.number for one in lived.trials],
            "method": [one.method for one in lived.trials],
            "state": [one.state for one in lived.trials],
            "rungs": [len(one.curve) for one in lived.trials],
            "replayed": [COMPLETE if place in lived.complete else PRUNED for place in range(len(lived.trials))],
            "rungs replayed": lived.rungs,
            "known": [place not in lived.unknown for place in range(len(lived.trials))],
        }
    ).assign(
        agrees=lambda table: (table.state == table.replayed) & (table.rungs == table["rungs replayed"]) & table.known
    )


def priors(archive: Archive, size: int) -> dict[str, float]:
    """What the package expects of each method (`autopeft.search.start.expected`)."""
    known = portfolio.read() if archive.given["search"]["portfolio"] else None
    methods = {one.method for one in archive.records}
    found = known.expected_of_methods(size, archive.given["task"]["kind"], methods) if known else {}
    return {method: points / 100 for method, points in found.items()}


def race(archive: Archive, lived: Lived) -> tuple[list[int], list[int], int, int] | None:
    """Trials on fresh folds as the study ran them and as the replay does, and the winner of both; None without one."""
    kept = Raced.read(archive.attrs)
    if kept is None or kept.ruling is None or kept.left:
        return None
    found = [one for one in lived.trials if may_win(one)]
    place = {one.number: at for at, one in enumerate(found)}
    defaults = {record.number for record in archive.defaults.values()}
    folds = len(found[0].fold_scores)
    expected = priors(archive, lived.size)
    entrants = [
        Entrant(one.method, one.number in defaults, float(one.trainable_params or 0), expected.get(one.method, 0.0))
        for one in found
    ]
    running = [place[number] for number in kept.finalists]
    runs = [Run(at, fold, score) for at, one in enumerate(found) for fold, score in enumerate(one.fold_scores)]
    fresh: dict[int, dict[int, float]] = {at: {} for at in range(len(found))}
    for run in kept.runs:
        fresh[place[run.number]][folds + run.fold] = run.score
    cell = SimpleNamespace(end_rows=np.zeros(len(found)))
    ruled = Shipped(entrants, usual(round(lived.size / (folds - 1))), Rules(), running)
    after, _ = raced(ruled, runs, fresh, cell, range(len(found)), math.inf)  # type: ignore[arg-type]  # all that it reads
    replayed = [found[run.candidate].number for run in after[len(runs) :]]
    return (
        [run.number for run in kept.runs],
        replayed,
        kept.ruling.winner,
        found[ruled.verdict(after).winner].number,
    )


def agreement(archive: Archive, size: int, *, verbose: bool = False) -> dict[str, Any]:
    """How far a study and its replay agree: trials, and where it had a race its fresh folds and its winner.

    Args:
        archive: the study.
        size: rows that a fold trains on.
        verbose: print every trial even if all agree.
    """
    lived = Lived.of(archive, size)
    table, ran = states(lived), race(archive, lived)
    if verbose or not table.agrees.all():
        print(f"{archive.name}\n{table.to_string(index=False)}\n")
    found: dict[str, Any] = {"trials": len(table), "agree": int(table.agrees.sum())}
    if ran:
        found |= {"fresh folds": len(ran[0]), "alike": ran[0] == ran[1], "same winner": ran[2] == ran[3]}
    return found


def beside_bank(lived: Lived, bank: Path, task: str, seed: int, precision: str) -> list[float]:
    """For every default that the bank has too: how far apart the means over folds are, at most, at shared rungs."""
    runs, points, configs = (plain(bank / f"{name}.parquet") for name in ("runs", "points", "configs"))
    methods = configs[configs.origin == "default"].set_index("config").method
    runs = runs[(runs.task == task) & (runs["size"] == lived.size) & (runs.split_seed == seed) & (runs.seed == seed)]
    runs = runs[(runs.precision == precision) & (runs.fold >= 0) & runs.config.isin(methods.index)]
    found = []
    for trial, default in zip(lived.trials, lived.default, strict=True):
        own = runs[runs.config.map(methods) == trial.method] if default else runs[:0]
        curves = points[points.run.isin(own.run) & (points.weights == "raw")]
        curves = curves.assign(at=curves.epochs.map(two_digits), planned=curves.run.map(_epochs_of))
        means = curves[curves.planned == trial.epochs].groupby("at").val_score.mean()
        both = {
            end: score for end, score in zip(trial.rung_epochs, trial.curve, strict=True) if two_digits(end) in means
        }
        if both:
            found.append(max(abs(score - means[two_digits(end)]) for end, score in both.items()))
    return found


def _epochs_of(run: str) -> int:
    """The planned epochs, which a run's name ends with (`stages.Cell.name`, then its fold)."""
    return int(run.split(".")[-2].removesuffix("e"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where `live.py` kept its studies")
    parser.add_argument("--bank", type=Path, help="also compare the curves of defaults")
    parser.add_argument("--verbose", action="store_true", help="every trial")
    arguments = parser.parse_args()
    rows = []
    for path in sorted(arguments.out.glob("*.json")):
        kept = json.loads(path.read_text())
        archive = open_archive(path.with_suffix(""))
        row = {"study": path.stem, **agreement(archive, SIZES[kept["size"]], verbose=arguments.verbose)}
        if arguments.bank:
            lived = Lived.of(archive, SIZES[kept["size"]])
            apart = beside_bank(lived, arguments.bank, kept["task"], kept["seed"], archive.given["model"]["dtype"])
            row |= {"in the bank": len(apart), "apart at most": max(apart, default=math.nan)}
        rows.append(row)
    if not rows:
        raise SystemExit(f"--out must hold studies that ended, but {arguments.out} has none yet.")
    table = pd.DataFrame(rows)
    print(table.to_string(index=False))
    print(f"{table.agree.sum()} of {table.trials.sum()} trials agree.")


if __name__ == "__main__":
    main()
