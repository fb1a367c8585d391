"""How far a process grows over 40 trials, in either precision, with oneDNN's cache of kernels as it is and bounded.

Each run is a process of its own: a study on a tiny encoder, or on `--model`, with rows of 3 to 60 words, whose resident
memory is read from the operating system after every trial. Printed are MiB after trial 1, 10, 20, 30 and 40, and by how
much trial 40 is above trial 10.

    python benchmarks/resident_memory.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
"""Kernels that oneDNN keeps; by itself 1,024."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="folder or package: of a base model; a tiny encoder by default")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--capacities", default=",64", help="of oneDNN's cache, by commas; empty is its own default")
    parser.add_argument("--one", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(resident(arguments.model, arguments.one, arguments.trials)))
        return
    print(
        f"{'precision':<10}{'capacity':>9}{'1':>8}{'10':>8}{'20':>8}{'30':>8}{'40':>8}{'40 over 10':>12}{'seconds':>9}"
    )
    for dtype in ("float32", "bfloat16"):
        for capacity in arguments.capacities.split(","):
            command = [sys.executable, __file__, "--one", dtype, "--model", arguments.model]
            command += ["--trials", str(arguments.trials)]
            environment = {**os.environ, **({CAPACITY: capacity} if capacity else {})}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            found, seconds = json.loads(done.stdout.splitlines()[-1])
            shown = [found[min(at, len(found)) - 1] for at in (1, 10, 20, 30, 40)]
            growth = shown[-1] / shown[1] - 1
            numbers = "".join(f"{value:>8.0f}" for value in shown)
            print(f"{dtype:<10}{capacity or '-':>9}{numbers}{growth:>12.1%}{seconds:>9.0f}", flush=True)


def resident(model: str, dtype: str, trials: int) -> tuple[list[float], float]:
    """MiB after each trial of a study in this process, and the seconds it took."""
    import time

    import numpy as np
    import pandas as pd

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import PlainProgress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    page, found = os.sysconf("SC_PAGE_SIZE"), list[float]()

    class Watching(PlainProgress):
        def say(self, text: str) -> None:
            pass

        def finished(self, record) -> None:
            if record.state != "INFEASIBLE":
                found.append(int(Path("/proc/self/statm").read_text().split()[1]) * page / 2**20)

    generator, words = np.random.default_rng(0), [f"w{index}" for index in range(59)]
    texts = [" ".join(generator.choice(words, generator.integers(3, 60))) for _ in range(200)]
    frame = pd.DataFrame({"text": texts, "label": generator.choice(["no", "maybe", "yes"], 200)})
    with tempfile.TemporaryDirectory() as folder:
        frame.to_csv(f"{folder}/rows.csv", index=False)
        content = {
            "name": "memory",
            "output": f"{folder}/output",
            "model": {"name_or_path": model or tiny_model(Path(folder)), "dtype": dtype},
            "task": {"kind": "text-classification"},
            "data": {"train": f"{folder}/rows.csv"},
            "search": {"trials": trials, "epochs": [1, 2], "pruner": "none"},
            "tracking": {"system_metrics": False},
        }
        started = time.monotonic()
        from rich.console import Console

        run(StudySpec.from_mapping(content, folder=Path(folder)), discover(), Watching(Console(stderr=True)))
        return found, time.monotonic() - started


def tiny_model(folder: Path) -> str:
    """A tiny BERT with its tokenizer."""
    from transformers import BertTokenizerFast

    from autopeft.testing.tiny import tiny

    place = folder / "model"
    tiny("bert").save_pretrained(place)
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(59))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(place)
    return str(place)


if __name__ == "__main__":
    main()
