"""A bank of learning curves whose truth is known: drawn from the model that the posterior believes in.

Of configuration c on a cell the true score is the cell's level, plus what the method brings, plus what c brings on all
tasks, plus what it brings on this group alone. Validation scores have a gap of their own for each candidate and cell,
an effect of the fold, and noise; test scores have noise of their rows, the same for all models of a candidate and
independent in the two halves, and luck of each model. A curve rises to its end as 1 - exp(-rise · share of the length),
each candidate at a rate of its own, with noise that goes as it nears the end.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Recipe:
    """How a bank is drawn; deviations are in shares of one, as scores are."""

    groups: int = 6
    sizes: tuple[int, ...] = (100,)
    methods: int = 4
    draws: int = 4
    repeats: int = 3
    folds: int = 3
    method: float = 0.01
    everywhere: float = 0.01
    here: float = 0.01
    folded: float = 0.02
    floor: float = 0.2
    block: float = 0.02
    tested: float = 0.008
    luck: float = 0.004
    epochs: tuple[float, ...] = (1, 2, 4, 8, 16, 24)
    cooled: tuple[float, ...] = ()
    rise: float = 6.0
    apart: float = 0.1
    seed: int = 0


def write(folder, recipe=Recipe()):
    """Write the four tables; returns the true score of each (task, size, config)."""
    generator = np.random.default_rng(recipe.seed)
    configs = [
        {
            "config": f"{m:08x}{d:08x}",
            "method": f"method {m}",
            "origin": "default" if d == 0 else ("near", "wide")[d % 2],
            "params": "{}",
            "lr": 10.0 ** generator.uniform(-4, -2),
            "batch": 16,
            "trained_share": 0.01,
        }
        for m in range(recipe.methods)
        for d in range(recipe.draws)
    ]
    of_method = generator.normal(0, recipe.method, recipe.methods).repeat(recipe.draws)
    everywhere = of_method + generator.normal(0, recipe.everywhere, len(configs))
    tasks, runs, points, truth = [], [], [], {}
    for group in range(recipe.groups):
        here = everywhere + generator.normal(0, recipe.here, len(configs))
        task = {"task": f"task {group}", "group": f"group {group}", "kind": "classification", "metric": "accuracy"}
        tasks.append({**task, "classes": 2, "test_rows": 1000, "majority": 0.3, "test_half_seed": 0})
        for size in recipe.sizes:
            true = generator.uniform(0.6, 0.8) + here
            truth |= {(task["task"], size, config["config"]): one for config, one in zip(configs, true, strict=True)}
            for run, own in _runs(recipe, generator, task["task"], size, configs, true):
                runs.append(run)
                points += own
    tables = {"tasks": tasks, "configs": configs, "runs": runs, "points": points}
    for name, rows in tables.items():
        table = pd.DataFrame(rows)
        words = {"tasks": ["task", "group", "kind"], "configs": ["method", "origin"], "points": ["weights"]}
        for column in words.get(name, ["task", "model", "precision", "schedule", "state"]):
            table[column] = table[column].astype("category")
        table.to_parquet(folder / f"{name}.parquet")
    return truth


def _runs(recipe, generator, task, size, configs, true):
    count, folds = len(configs), (recipe.repeats, recipe.folds)
    gap = generator.normal(0, recipe.floor**0.5 * recipe.folded, count)
    effects = generator.normal(0, recipe.block, folds)
    noise = generator.normal(0, recipe.folded, (count, *folds))
    ends = (true + gap)[:, None, None] + effects + noise
    tests = true[:, None] + generator.normal(0, 0.01, 2) + generator.normal(0, recipe.tested * 2**0.5, (count, 2))
    rises = recipe.rise * np.exp(generator.normal(0, recipe.apart, count))
    for c, config in enumerate(configs):
        for repeat in range(recipe.repeats):
            for fold in range(recipe.folds):
                name = f"{task}.{size}.{config['config']}.{repeat}.{fold}"
                steps = round(recipe.epochs[-1] * -(-size // 16))
                luck = tests[c] + generator.normal(0, recipe.luck)
                yield (
                    {
                        "run": name,
                        "config": config["config"],
                        "task": task,
                        "size": size,
                        "model": "small",
                        "split_seed": repeat,
                        "fold": fold,
                        "seed": repeat,
                        "precision": "float32",
                        "schedule": "wsd" if recipe.cooled else "linear",
                        "planned_steps": steps,
                        "rows_per_step": 16,
                        "trained_params": 1000 * (c + 1),
                        "state": "done",
                        "reason": "",
                        "recorded": pd.Timestamp("2026-01-01"),
                    },
                    _points(recipe, generator, name, size, (rises[c], ends[c, repeat, fold], luck)),
                )


def _points(recipe, generator, run, size, drawn):
    rise, end, tests = drawn

    def point(epochs, weights):
        risen = 1 - np.exp(-rise * epochs / recipe.epochs[-1]) if epochs < recipe.epochs[-1] else 1.0
        score = 0.3 + (end - 0.3) * risen + generator.normal(0, recipe.folded) * (1 - risen)
        tested = weights == "cooled" or epochs == recipe.epochs[-1]
        return {
            "run": run,
            "steps": round(epochs * -(-size // 16)),
            "epochs": epochs,
            "rows": round(epochs * size),
            "weights": weights,
            "val_score": score,
            "val_loss": 2 - 2 * score,
            "test_score_a": score + tests[0] - end if tested else np.nan,
            "test_score_b": score + tests[1] - end if tested else np.nan,
        }

    raw = [point(epochs, "ema" if recipe.cooled else "raw") for epochs in recipe.epochs]
    return raw + [point(epochs, "cooled") for epochs in recipe.cooled]
