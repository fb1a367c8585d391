"""Every method's untuned default on some data sets: cross-validated score, what it trains, what a fold took.

    python benchmarks/methods.py studies/quickstart.toml other/study.toml --out docs/methods.md

A study file gives model, rows and folds; its methods and budget are set aside. Defaults are what people use who do not
search, so the table says how much the choice of the method alone matters, and how much it depends on the data.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from autopeft.execution.problem import Problem
from autopeft.execution.run_trial import run_trial
from autopeft.methods.registry import discover
from autopeft.study.file import StudySpec


def scores(path: str, kept: Path) -> dict[str, dict[str, float]]:
    """Method → its figures; what an earlier start found in `kept` is not measured again."""
    spec = StudySpec.from_file(path)
    wide = spec.search.model_copy(update={"methods": None, "exclude": [], "overrides": {}})
    free = spec.budget.model_copy(update=dict.fromkeys(type(spec.budget).model_fields))
    problem = Problem.from_spec(spec.model_copy(update={"search": wide, "budget": free}), discover())
    known = json.loads(kept.read_text()) if kept.is_file() else {}
    found = known.setdefault(spec.name, {})
    for name, part in problem.space.items():
        if name in found:
            continue
        candidate = part.default()
        outcome = run_trial(problem, candidate, lambda rung: None)
        found[name] = {
            "score": outcome.score,
            "spread": max(outcome.rungs[-1].scores) - min(outcome.rungs[-1].scores) if outcome.rungs else None,
            "params": problem.cost_estimator(candidate).trainable_params,
            "seconds": outcome.seconds / len(problem.folds),
        }
        print(spec.name, name, found[name], flush=True)
        kept.write_text(json.dumps(known, indent=1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--keep", type=Path, default=Path("methods.json"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    sets = {StudySpec.from_file(path).name: scores(path, arguments.keep) for path in arguments.studies}
    lines = [
        "| default of | trains | " + " | ".join(sets) + " | seconds per fold |",
        "|---|---:|" + "---:|" * (len(sets) + 1),
    ]
    first = next(iter(sets.values()))
    for name in sorted(first, key=lambda name: -sum(found[name]["score"] or 0.0 for found in sets.values())):
        cells = [f"{found[name]['score']:.3f}" if found[name]["score"] else "–" for found in sets.values()]
        seconds = sum(found[name]["seconds"] for found in sets.values()) / len(sets)
        lines.append(f"| `{name}` | {first[name]['params']:,} | {' | '.join(cells)} | {seconds:.0f} |")
    print("\n".join(lines))
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
