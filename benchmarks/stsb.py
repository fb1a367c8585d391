"""How alike two texts are: Spearman's correlation on STS-B (Cer et al. 2017), beside the mean and the untuned defaults.

A study of `--trials` trials on MiniLM and `--rows` training rows. The folder holds train.csv and test.csv with the
columns text, text_pair and score.

    python benchmarks/stsb.py FOLDER
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    with tempfile.TemporaryDirectory() as output:
        content = {
            "name": "stsb",
            "output": output + "/study",
            "model": {"name_or_path": arguments.model or quickstart_model()},
            "task": {"kind": "regression"},
            "data": {
                "train": str(arguments.folder.resolve() / "train.csv"),
                "test": str(arguments.folder.resolve() / "test.csv"),
                "text_pair": "text_pair",
                "label": "score",
                "max_rows": arguments.rows,
            },
            "search": {"trials": arguments.trials},
            "validation": {"metric": "spearman"},
        }
        found = run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True)))
    print(f"{'on the test file':<40}{'spearman':>10}")
    print(f"{'winner: ' + found.best.method:<40}{found.test.winner:>10.4f}")
    for name, score in found.test.defaults.items():
        print(f"{'untuned default of ' + name:<40}{'-' if score is None else f'{score:.4f}':>10}")
    print(f"{found.test.baseline_name:<40}{found.test.baseline:>10.4f}")


def quickstart_model() -> str:
    """The encoder of the demo."""
    import tomllib

    study = Path(__file__).resolve().parent.parent / "studies" / "quickstart.toml"
    return str(tomllib.loads(study.read_text())["model"]["name_or_path"])


if __name__ == "__main__":
    main()
