"""What tokenising a study's rows takes, against finding the tokens in the cache on disk, on the same rows.

The two take turns over a few rounds, so that a machine whose speed drifts drifts for both alike. The cache is a folder
of this script's own; "first" is a start that tokenises and keeps, "found" one that finds. Printed are medians.

    python benchmarks/tokenising.py studies/quickstart.toml --rows 900 38000
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time

from autopeft.common import cache
from autopeft.common.locate import locate
from autopeft.data.load import load_rows
from autopeft.models.row_tokenizer import RowTokenizer
from autopeft.models.token_cache import CachedRowTokenizer
from autopeft.models.tokenizer import prepare
from autopeft.study.file import StudySpec
from autopeft.tasks.registry import find_task

MAX_LENGTH = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study")
    parser.add_argument("--rows", type=int, nargs="+", default=[900, 38000])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as the command line sets it
    spec = StudySpec.from_file(arguments.study)
    task = find_task(spec.task.kind)
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(locate(spec.model.name_or_path, spec.folder))
    prepare(plain)
    readers = {"tokenise": RowTokenizer(plain, MAX_LENGTH), "first": CachedRowTokenizer(plain, MAX_LENGTH)}
    readers["found"] = readers["first"]
    print(f"{'rows':>7} {'tokenise':>10} {'first':>10} {'found':>10} {'gain':>7} {'on disk':>10}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOPEFT_CACHE"] = folder
        for limit in arguments.rows:
            section = spec.data.model_copy(update={"max_rows": limit})
            rows = load_rows(spec.model_copy(update={"data": section}), task)
            times: dict[str, list[float]] = {"tokenise": [], "first": [], "found": []}
            for _ in range(arguments.rounds):
                shutil.rmtree(cache.folder(), ignore_errors=True)
                for name, reader in readers.items():
                    started = time.perf_counter()
                    for frame in (rows.train, rows.test):
                        task.encode(frame, reader, rows.labels)
                    times[name].append(time.perf_counter() - started)
            size = sum(path.stat().st_size for path in cache.folder().iterdir())
            median = {name: statistics.median(taken) for name, taken in times.items()}
            count = len(rows.train) + len(rows.test)
            shown = " ".join(f"{seconds * 1e3:7.0f} ms" for seconds in median.values())
            print(f"{count:>7} {shown} {median['tokenise'] / median['found']:6.1f}x {size / 1e6:7.2f} MB")


if __name__ == "__main__":
    main()
