"""A whole search with one candidate in a pass, and with several: how long it takes, and what it finds.

    python benchmarks/cohort_search.py studies/quickstart.toml OUT                       # one against eight
    python benchmarks/cohort_search.py study.toml OUT --cohorts 1 4 --set search.trials=16

Each side is a run of `autopeft run` in a process of its own, with every other setting as in the study file; sides take
turns if there are several rounds, which then have seeds of their own. Printed are the seconds of the whole run, those
that trials took, the trials that were trained, and the best score; without a race and references, which are not packed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path, help="folder for the studies' outputs; those of an earlier run are removed")
    parser.add_argument("--cohorts", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="a setting of the study, such as search.trials=16")
    arguments = parser.parse_args()
    print(f"{'candidates':>10}{'seed':>6}{'run':>10}{'trials':>10}{'number':>8}{'best':>9}   seconds of each")
    for seed in range(arguments.rounds):
        for cohort in arguments.cohorts:
            output = arguments.out.absolute() / f"cohort-{cohort}-{seed}"
            shutil.rmtree(output, ignore_errors=True)
            settings = [
                f"search.cohort={cohort}",
                f"seed={seed}",
                "search.race=0",
                "search.references=false",
                f"output={output}",
                *arguments.set,
            ]
            command = [sys.executable, "-m", "autopeft", "run", str(arguments.study), "--json"]
            started = time.perf_counter()
            done = subprocess.run(
                [*command, *(part for one in settings for part in ("--set", one))],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            taken = time.perf_counter() - started
            result = json.loads(done.stdout)
            trained = [record for record in result["records"] if record["execution"]]
            seconds = sum(record["seconds"] for record in trained)
            print(
                f"{cohort:>10}{seed:>6}{taken:>10.1f}{seconds:>10.1f}{len(trained):>8}{result['best']['score']:>9.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
