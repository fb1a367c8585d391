"""What does a trial cost the process that runs the study, and does it grow with the trials in the store?

    python benchmarks/study_cost.py                                        # all stores, some minutes
    python benchmarks/study_cost.py --stores postgres --postgres postgresql://me@host/empty

PostgreSQL is a server that the script starts, where one is installed, unless its address is given.

A study's loop without its training: candidates of every method for MiniLM are drawn, started, scored at four rungs and
recorded, with everything that the study's process does for that: the sampler, the pruner, the store, the record, and
what is put into MLflow's outbox (which a thread sends while a trial trains; here it sends between the timed parts). As
with workers, some trials run at a time. The store holds trials of random candidates before that. Per trial: median and
95th percentile of the wall time, and the mean CPU time of the loop's thread.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna

from autopeft.common.collector import settled
from autopeft.common.console import make_console
from autopeft.common.interrupt import Interrupt
from autopeft.execution import preparation
from autopeft.execution.outcome import Outcome
from autopeft.methods.registry import discover
from autopeft.reporting.progress import PlainProgress
from autopeft.search import resume
from autopeft.search.loop import Search
from autopeft.search.pruner import make_pruner
from autopeft.search.trial import record_of
from autopeft.study.file import StudySpec
from autopeft.study.record import RECORD, plain
from autopeft.study.states import COMPLETE, INFEASIBLE, PRUNED
from autopeft.study.storage import StudyStorage
from autopeft.tracking import Tracker
from autopeft.training.rungs import Rung

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres import programs, server

if TYPE_CHECKING:
    from autopeft.execution.problem import Problem
    from autopeft.methods.candidate import Candidate
    from autopeft.search.trial import Trial

STUDY = Path(__file__).resolve().parent.parent / "studies" / "quickstart.toml"
RUNGS = 4
JOURNAL, SQLITE, POSTGRES = STORES = ("journal", "sqlite", "postgres")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, nargs="+", default=[250, 1000, 2000, 4000], help="in the store before")
    parser.add_argument("--measured", type=int, default=60, help="trials that are timed with each number")
    parser.add_argument("--running", type=int, default=8, help="trials at a time")
    parser.add_argument("--stores", nargs="+", default=STORES, choices=STORES)
    parser.add_argument("--postgres", help="address of an empty database; default: a server is started")
    parser.add_argument("--profile", action="store_true", help="print what takes the time")
    arguments = parser.parse_args()
    stores, starts = [*arguments.stores], POSTGRES in arguments.stores and not arguments.postgres
    if starts and not programs():
        print("PostgreSQL is left out: its server or its driver, psycopg, is not installed.")
        stores.remove(POSTGRES)
        starts = False
    with server("on") if starts else nullcontext() as started:
        arguments.postgres = started.url("cost") if started else arguments.postgres
        report(stores, arguments)


def report(stores: list[str], arguments: argparse.Namespace) -> None:
    """Print a line for each store and number of trials in it."""
    problem = ready(arguments.running)
    print("| store | trials in it | median | 95% below | CPU |\n|---|---:|---:|---:|---:|")
    for store in stores:
        for trials in arguments.trials:
            wall, cpu = timed(problem, store, trials, arguments)
            most = sorted(wall)[int(0.95 * len(wall))]
            columns = (1000 * statistics.median(wall), 1000 * most, 1000 * statistics.fmean(cpu))
            print(f"| {store} | {trials} | " + " | ".join(f"{value:.1f} ms" for value in columns) + " |", flush=True)


def ready(running: int) -> Problem:
    """The quickstart study, with every method."""
    spec = StudySpec.from_file(STUDY)
    search = spec.search.model_copy(update={"methods": None, "trials": 10**6, "timeout": None, "workers": running})
    spec = spec.with_model(dtype="float32").model_copy(update={"search": search})
    problem, _ = preparation.made_ready(spec, discover())
    return problem


def timed(problem: Problem, store: str, trials: int, arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Seconds of wall time and of CPU time per trial."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problem.spec.__dict__["output"] = folder  # of a frozen model: everything else in it stays as it was checked
        url = {JOURNAL: None, SQLITE: f"sqlite:///{folder}/trials.db", POSTGRES: arguments.postgres}[store]
        storage = StudyStorage(folder, url)
        rungs = len(problem.rung_ends(problem.space.max_epochs))
        study = optuna.create_study(
            study_name=f"cost-{trials}", storage=storage, direction="maximize",
            pruner=make_pruner(problem.spec.search.pruner, rungs),
        )  # fmt: skip
        study.set_user_attr(resume.GIVEN, resume.given(problem))
        fill(study, problem, trials)
        with Tracker.connect(None, folder, "cost") as tracker, settled():
            tracker.start("cost", "", {})
            progress = PlainProgress(make_console(quiet=True))
            found = loop(Search(problem, study, storage, tracker, progress, Interrupt()), arguments)
        storage.delete_study(study._study_id)
    return found


def fill(study: optuna.Study, problem: Problem, trials: int) -> None:
    """Add trials of random candidates that ended in the usual ways."""
    random = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    generator = np.random.default_rng(0)
    for number in range(trials):
        drawn = random.ask()
        candidate = problem.space.suggest(drawn)
        state = generator.choice([COMPLETE, PRUNED, INFEASIBLE], p=[0.4, 0.4, 0.2])
        reached = {COMPLETE: RUNGS, PRUNED: 1 + number % (RUNGS - 1), INFEASIBLE: 0}[state]
        outcome = Outcome(str(state), "", rungs=curve(candidate, generator, reached), seconds=1.0)
        record = record_of(number, str(candidate), candidate.flat, candidate.hyper.epochs, None, outcome)
        frozen = optuna.trial.create_trial(
            state=optuna.trial.TrialState.COMPLETE if state == COMPLETE else optuna.trial.TrialState.PRUNED,
            value=outcome.score if state == COMPLETE else None,
            params=drawn.params,
            distributions=drawn.distributions,
            user_attrs={RECORD: plain(record)},
            constraints={"max_trainable_params": 1.0 if state == INFEASIBLE else -1.0},
            intermediate_values={rung.number: rung.mean for rung in outcome.rungs},
        )
        study._storage.create_new_trial(study._study_id, frozen)


def curve(candidate: Candidate, generator: np.random.Generator, reached: int) -> tuple[Rung, ...]:
    """A score that a search can learn from, with noise, at each rung."""
    final = 0.8 - 0.05 * abs(np.log10(candidate.hyper.learning_rate) + 3) + 0.02 * generator.normal()
    return tuple(
        Rung(number, float(number), tuple(final - 0.1 / number + 0.01 * generator.normal(size=3)), 1.0)
        for number in range(1, reached + 1)
    )


def loop(search: Search, arguments: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Run trials, a few at a time; each step starts one and brings the oldest to its end."""
    generator = np.random.default_rng(1)
    usages = {one.name: search.problem.cost_estimator(one.default()) for one in search.problem.space.values()}
    for usage in usages.values():
        assert usage.memory  # a worker predicts it
    running: list[Trial] = []
    wall, cpu, profile = [], [], cProfile.Profile(time.thread_time)
    for _ in range(arguments.running + arguments.measured):
        search.tracker.outbox.drain(600)
        search.tracker.outbox.hold()
        if arguments.profile:
            profile.enable()
        began, began_cpu = time.perf_counter(), time.thread_time()
        trial = search.ask()
        assert trial
        _ = search.known()  # is sent with it to a worker
        trial.estimated(usages[trial.candidate.name])
        trial.started(usages[trial.candidate.name])
        running.append(trial)
        if len(running) == arguments.running:
            oldest = running.pop(0)
            rungs, why = [], None
            for rung in curve(oldest.candidate, generator, RUNGS):
                rungs.append(rung)
                if why := oldest.rung(rung):
                    break
            oldest.end(Outcome(PRUNED if why else COMPLETE, why or "", rungs=tuple(rungs), seconds=1.0))
            wall.append(time.perf_counter() - began)
            cpu.append(time.thread_time() - began_cpu)
        profile.disable()
    if arguments.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)
    for trial in running:
        trial.end(Outcome(PRUNED, "", seconds=1.0))
    return wall, cpu


if __name__ == "__main__":
    main()
