"""A study of a kind that writes, on a tiny model, and the README of what is exported from it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from tests.conftest import DTYPE, autopeft_here

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

STUDY = """
name = "writes"
[model]
name_or_path = "{model}"
dtype = "{dtype}"
[task]
{task}
[data]
train = "{rows}"
[search]
methods = ["lora"]
trials = 1
references = false
lora.target_modules = "all_linear"
{search}
[validation]
folds = 2
"""


def run_study(folder: Path, model: Path, rows: str, task: Mapping[str, Any], search: Mapping[str, Any]) -> Any:
    """What a study of rows in that folder finds, as JSON; its winner is in `outputs/writes` there."""
    given = {"model": model, "dtype": DTYPE, "rows": rows, "task": settings(task), "search": settings(search)}
    (folder / "study.toml").write_text(STUDY.format(**given))
    done = autopeft_here("run", "study.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def settings(given: Mapping[str, Any]) -> str:
    return "\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items())


def better_than_the_base_model(result: Any) -> float:
    """By how much a token's mean log-probability rose."""
    assert result["metric"] == "neg_loss"
    assert result["test"]["baseline_name"] == "base model"
    return float(result["test"]["winner"] - result["test"]["baseline"])


def run_readme(
    folder: Path, model: Path, patch: pytest.MonkeyPatch, instead: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What the Python in an export's README makes there, with some of it replaced."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    for old, new in (instead or {}).items():
        assert old in code
        code = code.replace(old, new)
    made: dict[str, Any] = {}
    patch.chdir(folder)
    exec(compile(code.replace(f'base = "{model.name}"', f"base = {str(model)!r}"), "README.md", "exec"), made)
    return made
