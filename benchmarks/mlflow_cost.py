"""What a trial costs MLflow on its SQLite store, and whether that grows with the number of trials.

    python benchmarks/mlflow_cost.py

Logs trials as a search does: a run, its params, three rungs, its metrics and its end. The search itself only puts them
in the outbox; the sender's time is what the store takes. Per hundred trials: median milliseconds of both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from autopeft.tracking import Tracker

PARAMS = {f"lora.{name}": value for name, value in zip("abcdefghij", range(10), strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=600)
    parser.add_argument("--uri", help="of another store, such as a server's or PostgreSQL's")
    arguments = parser.parse_args()
    put, sent = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Tracker.connect(arguments.uri, Path(folder), "cost", print) as tracker,
    ):
        tracker.start("cost", "", {})
        tracker.outbox.drain(60)
        for number in range(arguments.trials):
            started = time.perf_counter()
            run = tracker.trial(number, f"lora a={number}", {"method": "lora", **PARAMS})
            for rung in range(1, 4):
                run.log_rung(rung, (0.5, 0.6, 0.7), 0.6, loss=1.0, epoch=rung / 2)
            run.finish("COMPLETE", "", {"score": 0.6, "seconds": 1.0, "trainable_params": 1000, "epochs_trained": 2})
            put.append(time.perf_counter() - started)
            tracker.outbox.drain(60)
            sent.append(time.perf_counter() - started)
    print(f"{'trials':<12} {'the search waits':>18} {'the store takes':>18}")
    for start in range(0, arguments.trials, 100):
        part = slice(start, start + 100)
        waits, takes = (1000 * statistics.median(times[part]) for times in (put, sent))
        print(f"{start + 1:>4}–{min(start + 100, arguments.trials):<7} {waits:>15.2f} ms {takes:>15.1f} ms")


if __name__ == "__main__":
    main()
