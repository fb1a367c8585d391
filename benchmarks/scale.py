"""How far a search scales: 1, 64, 256 and 1,024 simulated workers under the real search, its sampler and its pruner.

    python benchmarks/scale.py --workers 1 64 256 1024 --trials 2048 --rung-seconds 10

The search's loop, sampler, pruner, Optuna study, journal and MLflow store are the package's own. Only the training is
not real: a candidate scores what the recorded curves of a task tell (`bank/surrogate.py`), and a heap of events turns
a simulated clock on from rung to rung (`bank/simulated_workers.py`). Real time that the search's process takes to draw,
to report and to record is added to that clock, since workers wait for it. Printed for each number of workers:

- speed-up: the time of one worker over that of so many, for as many trials, and the share of the ideal one; what is
  drawn and pruned depends on timing, so they do not train the same, and it may be above the ideal;
- per trial: milliseconds of the search's process, and of the last tenth of the trials alone; of the wall clock, or with
  `--cpu` of its processor time, for a machine that does other things as well; and processor time of the thread that
  searches, without that which sends to MLflow;
- wasted: the share of epochs trained beyond the rungs at which synchronous halving of the same trials, where all wait
  for all at each rung, would have stopped them; missed: epochs that it would have trained more, as a share of the same;
- unaware: draws that took no notice of running trials, as a share of those drawn while others ran;
- regret: points of the metric by which the winner is below the best trial of all runs, as its curve truly ends.

Then, for how many workers the search's process can draw, with rungs of so many seconds: beyond that it is the
bottleneck.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
import pandas as pd
from resident_memory import tiny_model

sys.path.append(str(Path(__file__).parent / "bank"))

from cells import Bank
from simulated_workers import Simulated
from surrogate import Surrogate

from autopeft.common.console import make_console
from autopeft.common.interrupt import Interrupt
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.reporting.progress import PlainProgress
from autopeft.search.announcer import Announcer
from autopeft.search.loop import Search
from autopeft.search.pruner import judge, make_pruner
from autopeft.search.start import first, fixed_defaults
from autopeft.study.file import StudySpec
from autopeft.study.record import TrialRecord, ranked, records
from autopeft.study.storage import StudyStorage
from autopeft.tracking import Tracker

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from autopeft.common.params import ParamValue
    from autopeft.search.trial import Trial

BANK = Path(__file__).parent / "bank" / "data"
RUNG_SECONDS = (1, 10, 60, 600)
"""Lengths of a rung for which the limit is printed."""


class Simulation(Search):
    """The real search on simulated workers; it also counts which draws knew of running trials."""

    drawn = unaware = 0
    backend: Simulated
    marks: list[float]

    def _backend(self) -> Simulated:
        return self.backend

    def ask(self, alike: Mapping[str, ParamValue] | None = None) -> Trial | None:
        """Draw, and take note of whether the sampler looked at the trials that run."""
        meanwhile = len(self.running)
        if (trial := super().ask(alike)) and meanwhile:
            fixed = "fixed_params" in self.study.get_trials(deepcopy=False)[trial.number].system_attrs
            looks = isinstance(self.study.sampler, optuna.samplers.TPESampler)  # which counts them as bad ones
            self.drawn += not fixed
            self.unaware += not fixed and not looks
        return trial

    def ended(self, record: TrialRecord) -> None:
        """Note the machine's time at each end, without what the simulated workers took themselves."""
        super().ended(record)
        self.marks.append(self.backend.clock() - self.backend.aside)


@dataclass(frozen=True)
class Found:
    """What one simulated search found.

    Attributes:
        seconds: on the simulated clock, to the end of the last trial.
        trained: that workers spent on training, added up.
        real: milliseconds of this machine that the search's process needed for a trial, and for one of the last tenth.
        own: milliseconds of processor time of the searching thread for a trial.
        rungs: of a trial, on average.
        wasted, missed: shares of the epochs trained.
        unaware: share of the draws; NaN where none was made beside a running trial.
        winner, best: true final scores, of the winner and of the best trial.
    """

    seconds: float
    trained: float
    real: tuple[float, float]
    own: float
    rungs: float
    wasted: float
    missed: float
    unaware: float
    winner: float
    best: float


def problem_of(size: int, methods: Sequence[str], workers: int, trials: int, seed: int, folder: Path) -> Problem:
    """A study of random rows on a tiny model, with as many rows in a fold as the cell has, and its whole space."""
    generator, words = np.random.default_rng(0), [f"w{index}" for index in range(59)]
    rows = size * 3 // 2 + 30
    texts = [" ".join(generator.choice(words, 5)) for _ in range(rows)]
    pd.DataFrame({"text": texts, "label": generator.choice(["no", "yes"], rows)}).to_csv(folder / "rows.csv")
    content = {
        "name": "scale",
        "seed": seed,
        "output": str(folder / "output"),
        "model": {"name_or_path": tiny_model(folder), "dtype": "float32"},
        "task": {"kind": "text-classification"},
        "data": {"train": str(folder / "rows.csv"), "test_fraction": 30 / rows},
        "search": {"methods": [*methods], "trials": trials, "workers": min(workers, 1000)},
        "validation": {"folds": 3},
    }
    problem = Problem.from_spec(StudySpec.from_mapping(content, folder=folder), discover())
    return replace(problem, shares=problem.shares[:1] * workers, rung_rows=size)


@dataclass(frozen=True)
class Setting:
    """How searches are simulated.

    Attributes:
        trials: of each.
        rung_seconds: that a usual rung takes, of all folds.
        clock: of this machine, in seconds.
        charged: whether workers wait while the search's process works.
    """

    trials: int
    rung_seconds: float = 10.0
    clock: Callable[[], float] = time.perf_counter
    charged: bool = True


def simulated(surrogate: Surrogate, size: int, workers: int, seed: int, setting: Setting) -> Found:
    """One search on so many workers, with the rows of a cell of that size."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        problem = problem_of(size, surrogate.methods, workers, setting.trials, seed, folder)
        spec, quiet = problem.spec, PlainProgress(make_console(quiet=True))
        spec.output.mkdir()
        storage, rungs = StudyStorage(spec.output), len(problem.rung_ends(problem.space.max_epochs))
        study = optuna.create_study(
            study_name=spec.name, storage=storage, direction="maximize", pruner=make_pruner(spec.search.pruner, rungs)
        )
        for one in first(spec, problem.space, len(problem.rows.train))[0]:
            study.enqueue_trial(one.candidate.flat, skip_if_exists=True)
        lengths = [len(problem.rung_ends(part.default().hyper.epochs)) for part in problem.space.values()]
        usual = np.mean([part.default().hyper.epochs for part in problem.space.values()]) / np.mean(lengths)
        with Tracker.connect(None, spec.output, spec.name) as tracker, Interrupt() as interrupt:
            tracker.start("scale", "", {})
            tracker.patience = 0.1  # of the end: what MLflow has not taken by then belongs to no figure
            search = Simulation(problem, study, storage, tracker, quiet, interrupt)
            seconds, clock = setting.rung_seconds / usual, setting.clock
            search.backend = Simulated(problem, workers, surrogate, seconds, clock, charged=setting.charged)
            search.marks = [clock()]
            began = time.thread_time()
            search.run(Announcer(spec.output, quiet))
            own = time.thread_time() - began
        return found_of(search, surrogate, own)


def found_of(search: Simulation, surrogate: Surrogate, own: float) -> Found:
    """The figures of a search that has ended, which took its thread so many seconds."""
    told, backend, marks = records(search.study), search.backend, search.marks
    wasted, missed = beside_synchronous(search.problem, surrogate, told)
    trials = len(marks) - 1
    tenth = max(1, trials // 10)
    real = (marks[-1] - marks[0]) / trials, (marks[-1] - marks[-1 - tenth]) / tenth
    true = {record.number: true_score(search.problem, surrogate, record) for record in told}
    return Found(
        seconds=backend.now,
        trained=backend.trained,
        real=(1000 * real[0], 1000 * real[1]),
        own=1000 * (own - backend.aside) / trials,
        rungs=float(np.mean([len(record.curve) for record in told])),
        wasted=wasted / backend.epochs,
        missed=missed / backend.epochs,
        unaware=search.unaware / search.drawn if search.drawn else float("nan"),
        winner=true[ranked(told)[0].number],
        best=max(true.values()),
    )


def true_score(problem: Problem, surrogate: Surrogate, record: TrialRecord) -> float:
    """Where a trial's curve ends, without the noise of its folds."""
    return surrogate.scores(problem.space.parse(record.params), [float(record.epochs)], noise=False)[0]


def beside_synchronous(problem: Problem, surrogate: Surrogate, told: Sequence[TrialRecord]) -> tuple[float, float]:
    """Epochs that these trials trained beyond synchronous halving of the same, and those that it would train more."""
    ends = {record.number: problem.rung_ends(record.epochs) for record in told}
    scores = {
        record.number: surrogate.scores(problem.space.parse(record.params), ends[record.number]) for record in told
    }
    every = [part.default().flat for part in problem.space.values()]
    fixed = [one.flat for one in fixed_defaults(problem.spec, problem.space, len(problem.rows.train))]
    defaults, kept = ({record.number for record in told if record.params in some} for some in (every, fixed or every))
    trained = synchronous(ends, scores, kept, defaults)
    apart = [record.epochs_trained - trained[record.number] for record in told]
    return sum(max(0.0, one) for one in apart), sum(max(0.0, -one) for one in apart)


def synchronous(
    ends: Mapping[int, Sequence[float]],
    scores: Mapping[int, Sequence[float]],
    kept: Collection[int] = (),
    defaults: Collection[int] = (),
) -> dict[int, float]:
    """Epochs that each trial trains where all wait for all at a rung, and the better half of them goes on.

    Args:
        ends: of the rungs of each trial, by its number.
        scores: at these.
        kept: trials that go on in any case.
        defaults: trials of which the best at the rung goes on in any case.
    """
    trained, alive, place = dict[int, float](), {*ends}, 0
    while alive:
        at_rung = {one: scores[one][place] for one in alive}
        trained |= {one: ends[one][place] for one in alive}
        ahead = {*kept, max(alive & {*defaults}, key=at_rung.__getitem__, default=-1)}
        better = {one for one in alive if one in ahead or not judge([*at_rung.values()], at_rung[one])}
        place += 1
        alive = {one for one in better if place < len(ends[one])}
    return trained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 64, 256, 1024])
    parser.add_argument("--trials", type=int, default=2048, help="of each search")
    parser.add_argument("--rung-seconds", type=float, default=10.0, help="a usual rung, of all folds")
    parser.add_argument("--bank", type=Path, default=BANK, help="the folder of the four tables")
    parser.add_argument("--cells", nargs="+", default=["banking_20 100"], help="a task and its rows; or all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cpu", action="store_true", help="count the processor time of the search's process")
    arguments = parser.parse_args()
    cells = {cell.name: cell for cell in Bank.read(arguments.bank).cells.values()}
    chosen = [*cells] if arguments.cells == ["all"] else arguments.cells
    if unknown := [name for name in chosen if name not in cells]:
        parser.error(f"`--cells` must name cells of the bank, but {unknown[0]!r} is none. It has {', '.join(cells)}.")
    print(f"{arguments.trials} trials, rungs of about {arguments.rung_seconds:g} s; {', '.join(chosen)}")
    print(
        "| workers | speed-up | of the ideal | per trial | last tenth | search | wasted | missed | unaware | regret |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    runs = [(Surrogate(cells[name]), cells[name].size, seed) for name in chosen for seed in range(arguments.seeds)]
    clock = time.process_time if arguments.cpu else time.perf_counter
    setting, found = Setting(arguments.trials, arguments.rung_seconds, clock), dict[int, list[Found]]()
    for workers in arguments.workers:
        found[workers] = [simulated(surrogate, size, workers, seed, setting) for surrogate, size, seed in runs]
        print(row(workers, found[workers], found), flush=True)
    print(limit(found))


def row(workers: int, own: list[Found], every: dict[int, list[Found]]) -> str:
    """A row of the table; times are means, the best trial of a cell is that of all runs so far."""
    alone = min(every)
    speed = np.mean([one.seconds / other.seconds * alone for one, other in zip(every[alone], own, strict=True)])
    best = np.max([[one.best for one in some] for some in every.values()], axis=0)
    regret = 100 * np.mean([top - one.winner for top, one in zip(best, own, strict=True)])
    real, last = np.mean([one.real for one in own], axis=0)
    thread = np.mean([one.own for one in own])
    shares = [np.mean([getattr(one, name) for one in own]) for name in ("wasted", "missed", "unaware")]
    told = " | ".join("–" if np.isnan(share) else f"{share:.1%}" for share in shares)
    return (
        f"| {workers:,} | {speed:.1f} | {speed / workers:.0%} | {real:.1f} ms | {last:.1f} ms "
        f"| {thread:.1f} ms | {told} | {regret:.2f} |"
    )


def limit(found: dict[int, list[Found]]) -> str:
    """For how many workers the search's process draws in time, by the length of a rung; from the largest run."""
    most = found[max(found)]
    real, rungs = np.mean([one.real[1] for one in most]) / 1000, np.mean([one.rungs for one in most])
    told = ", ".join(f"{seconds:,} s: {seconds * rungs / real:,.0f}" for seconds in RUNG_SECONDS)
    return (
        f"A trial has {rungs:.1f} rungs on average and takes the search's process {1000 * real:.1f} ms at the end. "
        f"Above so many workers that process is the bottleneck, by the length of a rung: {told}."
    )


if __name__ == "__main__":
    main()
