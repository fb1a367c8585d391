"""Record the learning curves of a stage; goes on where it was, and several may run side by side.

    OMP_NUM_THREADS=1 python benchmarks/bank/record.py --stage 1 --folder DATA --out DIR
    python benchmarks/bank/record.py --stage 1 --folder DATA --out DIR --plan      # what is left of it
    python benchmarks/bank/merge.py DIR

DATA holds the rows (README.md beside this file says which), and may be given several times. Each recorder keeps to one
core; two on two cores record more than one with both. Whoever has taken a cell holds a lock on its file in DIR/claims,
which the system gives back when the process ends, however it does.
"""

from __future__ import annotations

import argparse
import sys
import time
import tomllib
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from recorder import ROOT, Recorder
from schema import DONE
from sources import TASKS, Folders
from stages import BFLOAT16, FLOAT32, LINEAR, STAGES, WSD, Cell, cells

if TYPE_CHECKING:
    from curves import Curve

RATE = 130
"""Rows a second of two cores, short sentences through a MiniLM; for a first guess alone."""


def told(seconds: float) -> str:
    """A time that a person can read."""
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min"


def line(cell: Cell, curves: list[Curve]) -> str:
    """One run in words."""
    ends = [curve.points[-1] for curve in curves if curve.points]
    scores = " ".join("–" if end.get("val_score") is None else f"{end['val_score']:.3f}" for end in ends)
    states = [curve.state for curve in curves if curve.state != DONE]
    state = (
        f"; {len(states)} of {len(curves)} {states[0]}: {next(c.reason for c in curves if c.reason)}" if states else ""
    )
    rate = f"lr {cell.config.params['learning_rate']:.1g}"
    return f"{cell.task} {cell.size} {cell.config.method} {rate}, {cell.epochs} epochs: {scores or 'nothing'}{state}"


def work(recorder: Recorder, wanted: list[Cell], hours: float) -> int:
    """Record what is not there; the number of cells that failed."""
    started, failed = time.monotonic(), 0
    missing = remaining(recorder, wanted)
    whole_cost = sum(cell.cost for cell in missing)
    for cell in wanted:
        if time.monotonic() - started > hours * 3600:
            print("The time is over; start it again to go on.", flush=True)
            break
        if cell.name in recorder.recorded():
            continue
        begun = time.monotonic()
        try:
            curves = recorder.record(cell)
        except Exception:  # a method may raise anything; the others are recorded nonetheless, and it is tried again
            traceback.print_exc()
            failed += 1
            continue
        if curves is None:
            continue
        now, missing = time.monotonic(), remaining(recorder, wanted)
        left = sum(cell.cost for cell in missing)
        speed = max(whole_cost - left, 1e-9) / (now - started)
        print(f"[{len(wanted) - len(missing)}/{len(wanted)}] {line(cell, curves)} · {now - begun:.0f} s, "
              f"{cell.cost / (now - begun):.0f} rows/s · {told(left / speed)} left", flush=True)  # fmt: skip
    return failed


def remaining(recorder: Recorder, wanted: list[Cell]) -> list[Cell]:
    """The cells that are not there yet."""
    there = recorder.recorded()
    return [cell for cell in wanted if cell.name not in there]


def arguments_of(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", type=int, action="append", required=True, choices=sorted(STAGES))
    parser.add_argument("--folder", type=Path, action="append", default=[], help="with the rows; several may be given")
    parser.add_argument("--out", type=Path, required=True, help="the bank; goes on where it was")
    parser.add_argument("--only", type=lambda given: given.split(","), default=[*TASKS], help="such as tweets,banking")
    parser.add_argument("--schedule", choices=(LINEAR, WSD), default=LINEAR)
    parser.add_argument("--precision", choices=(FLOAT32, BFLOAT16), default=FLOAT32)
    parser.add_argument("--model", default="", help="default: that of the quickstart")
    parser.add_argument("--epochs", type=int, action="append", help="keeps to runs of this length; may be repeated")
    parser.add_argument("--split", type=int, action="append", help="keeps to runs on these splits; may be repeated")
    parser.add_argument("--methods", type=lambda given: given.split(","), default=[], help="keeps to these")
    parser.add_argument("--hours", type=float, default=float("inf"), help="after which no cell is begun")
    parser.add_argument("--threads", type=int, default=1, help="of this recorder, on a CPU")
    parser.add_argument("--plan", action="store_true", help="tell what is left, and record nothing")
    arguments = parser.parse_args(given)
    if unknown := {*arguments.only} - {*TASKS}:
        parser.error(f"--only must name tasks of the bank ({', '.join(TASKS)}), but has {', '.join(sorted(unknown))}.")
    return arguments


def main() -> None:
    """Command line."""
    arguments = arguments_of()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore", FutureWarning)  # of libraries, with each model that is loaded
    quickstart = tomllib.loads((ROOT / "studies" / "quickstart.toml").read_text())
    recorder = Recorder(
        arguments.out, Folders(arguments.folder), arguments.model or quickstart["model"]["name_or_path"]
    )
    first = arguments.only[0]
    found, named = recorder.pool(first, TASKS[first].sizes[0]), [name for name in TASKS if name in arguments.only]
    wanted = {
        cell.name: cell
        for stage in arguments.stage
        for cell in cells(stage, found, named, arguments.schedule, arguments.precision)
        if cell.epochs in (arguments.epochs or [cell.epochs])
        and cell.split_seed in (arguments.split or [cell.split_seed])
        and cell.config.method in (arguments.methods or [cell.config.method])
    }
    left = remaining(recorder, [*wanted.values()])
    cost = sum(cell.cost for cell in left)
    time_left = f"{told(cost / RATE)} at {RATE} rows/s"
    print(f"{len(left)} of {len(wanted)} cells are left, {cost / 1e6:.2f} million rows: {time_left}.", flush=True)
    if not arguments.plan and work(recorder, [*wanted.values()], arguments.hours):
        sys.exit("Some cells failed; see above, and start it again.")


if __name__ == "__main__":
    main()
