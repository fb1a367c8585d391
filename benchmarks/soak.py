"""Kills studies, their workers and their servers at random moments, and checks that nothing is lost or doubled.

    python benchmarks/soak.py --kills 100 --seed 3
    python benchmarks/soak.py --kills 5 --targets worker,server

The kills are shared out among the targets as in `make soak`. It ends with exit code 1 at the first fault, and the seed
repeats the moments. A target is left out if what it needs is not installed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.conftest import saved_tiny, write_tiny_study
from tests.soak.all_targets import TARGETS
from tests.soak.campaign import campaign


def main() -> None:
    names = {target.name: target for target in TARGETS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", default=",".join(names), help="by commas")
    arguments = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what runs on a GPU cannot be forked
    if unknown := {*arguments.targets.split(",")} - {*names}:
        parser.error(f"`--targets` must name some of {', '.join(names)}, but has {', '.join(sorted(unknown))}.")
    chosen = [names[name]() for name in arguments.targets.split(",")]
    for target in chosen:
        if target.missing():
            print(f"{target.name} is left out: {target.missing()}")
    chosen = [target for target in chosen if not target.missing()]
    began, shares = time.monotonic(), sum(target.kills for target in chosen)
    with tempfile.TemporaryDirectory() as folder:
        model = saved_tiny("bert", Path(folder) / "model")
        for target in chosen:
            place = Path(folder) / target.name
            place.mkdir()
            kills = max(1, round(arguments.kills * target.kills / shares))
            try:
                campaign(write_tiny_study(place, model), target, kills, arguments.seed, lambda t: print(t, flush=True))
            except AssertionError as fault:
                sys.exit(f"{target.name}, seed {arguments.seed}: {fault}")
    print(f"no trial or fold was lost, doubled or left open; {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
