"""Where the time goes from `autopeft run STUDY` to the first training step: imports by library, and what is ours.

Each run is a process of its own in an empty folder, so the study begins afresh every time; autopeft's cache on disk is
as a second start finds it. At every moment the clock runs for one thing alone: the library whose module is being
imported, or the part of a start that is under way, so the rows add up to the total. Printed are medians over the runs,
of wall time, or with --cpu of the process's own CPU time, which other work on the machine disturbs less.

    python benchmarks/startup.py studies/quickstart.toml
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

PARTS = {
    "find the plugins": ("autopeft.methods.registry", "discover"),
    "read and split the rows": ("autopeft.execution.problem", "read_rows"),
    "load the model": ("autopeft.execution.base_loader", "load_base"),
    "tokenise the rows": ("autopeft_classification.task", "TextClassification.encode"),
    "check for room": ("autopeft.execution.preparation", "require_room"),
    "open the Optuna store": ("autopeft.search.run", "_open"),
    "describe the environment": ("autopeft.tracking.environment", "describe"),
    "open the MLflow store": ("autopeft.search.run", "Tracker.connect"),
    "start the MLflow run": ("autopeft.search.run", "Tracker.start"),
    "count parameters": ("autopeft.budget.cost_estimator", "CostEstimator.__call__"),
    "predict memory": ("autopeft.budget.memory.peak", "predict"),
    "settle how folds run": ("autopeft.execution.packing_choice", "PackingChoice.decide"),
    "put the add-on on": ("autopeft.execution.run_trial", "attach"),
    "read the study file": ("autopeft.study.file", "StudySpec.from_file"),
    "cut the folds": ("autopeft.execution.problem", "folds_of"),
}
"""What is timed apart from imports; the rest of our code is "everything else of ours"."""

FIRST_STEP = ("autopeft.training.learner", "training_step")
"""Where a start ends. The predictor of memory holds the function itself, so its steps on fake tensors do not count."""

LIBRARY, OURS = "import ", "everything else of ours"
SMALL = 0.05
"""Libraries that take fewer seconds are shown as one row."""


class Clock:
    """Seconds by what the process is busy with, the innermost thing alone."""

    def __init__(self, now) -> None:
        self.now = now
        self.seconds: dict[str, float] = defaultdict(float)
        self.stack = [OURS]
        self.since = now()

    def credit(self) -> None:
        """Give the time since the last change to what is under way."""
        now = self.now()
        self.seconds[self.stack[-1]] += now - self.since
        self.since = now

    @contextmanager
    def running_for(self, name: str):
        """Credit the block to `name`, save what is credited otherwise inside it."""
        self.credit()
        self.stack.append(name)
        try:
            yield
        finally:
            self.credit()
            self.stack.pop()

    def wrap(self, function, name: str | None = None):
        """`function`, timed as `name`, or as an import of what its arguments name."""

        def timed(*args, **kwargs):
            with self.running_for(name or library(*args, **kwargs)):
                return function(*args, **kwargs)

        return timed


def library(name: str, context=None, *rest, package: str | None = None, **_kwargs) -> str:
    """The library that `__import__(name, globals, …, level)` or `import_module(name, package)` imports from."""
    context = context or package
    relative = name.startswith(".") or (len(rest) == 3 and rest[2] > 0)
    around = context if isinstance(context, str) else (context or {}).get("__name__", "")
    top = (around if relative else name).partition(".")[0]
    return LIBRARY + ("standard library" if top in sys.stdlib_module_names else top)


def start(study: str, began: float, now) -> None:
    """Run the command in this process up to its first step, print the clock as JSON, and end."""
    clock = Clock(now)
    clock.seconds["start Python"] = now() if now is time.process_time else time.time() - began
    builtins.__import__ = clock.wrap(builtins.__import__)
    importlib.import_module = clock.wrap(importlib.import_module)
    cli = importlib.import_module("autopeft.cli.app")
    importlib.import_module("autopeft.search.run")
    for part, (module, path) in PARTS.items():
        *outer, attribute = path.split(".")
        owner = importlib.import_module(module)
        for name in outer:
            owner = getattr(owner, name)
        function = vars(owner)[attribute]
        if isinstance(function, classmethod):
            setattr(owner, attribute, classmethod(clock.wrap(function.__func__, part)))
        else:
            setattr(owner, attribute, clock.wrap(function, part))

    def stop(*_args, **_kwargs):
        clock.credit()
        sys.stdout.write("\n" + json.dumps(clock.seconds) + "\n")
        sys.stdout.flush()
        os._exit(0)

    module, name = FIRST_STEP
    setattr(importlib.import_module(module), name, stop)
    sys.argv = ["autopeft", "run", study]
    cli.main()


def measure(study: Path, *, cpu: bool) -> dict[str, float]:
    """One start in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(study.resolve()), *["--cpu"] * cpu, "--began", repr(time.time())]
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def show(name: str, seconds: float, total: float) -> None:
    print(f"{name:<34} {seconds:7.2f} s {seconds / total:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--cpu", action="store_true", help="CPU time of the process instead of wall time")
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.began:
        start(arguments.study, arguments.began, time.process_time if arguments.cpu else time.perf_counter)
    study = Path(arguments.study)
    measure(study, cpu=arguments.cpu)  # fills the caches
    runs = [measure(study, cpu=arguments.cpu) for _ in range(arguments.runs)]
    medians = {name: statistics.median(run.get(name, 0.0) for run in runs) for run in runs for name in run}
    totals = [sum(run.values()) for run in runs]
    total = statistics.median(totals)
    libraries = {n: s for n, s in medians.items() if n.startswith(LIBRARY) and n != f"{LIBRARY}autopeft"}
    for name, seconds in sorted(libraries.items(), key=lambda item: -item[1]):
        if seconds >= SMALL:
            show(name, seconds, total)
    show(f"{LIBRARY}other libraries", sum(seconds for seconds in libraries.values() if seconds < SMALL), total)
    for name in ("start Python", f"{LIBRARY}autopeft", *PARTS, OURS):
        show(name, medians.get(name, 0.0), total)
    show("total", total, total)
    show("of which imports of libraries", sum(libraries.values()), total)
    print(
        f"{len(runs)} starts, from {min(totals):.2f} s to {max(totals):.2f} s of {'CPU' if arguments.cpu else 'wall'}"
    )


if __name__ == "__main__":
    main()
