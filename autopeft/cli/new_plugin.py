"""A plugin to start from: a distribution with a small method, or kind of task, that works, and tests that pass."""

from __future__ import annotations

import keyword
import re
from importlib.metadata import version
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError
from autopeft.methods.contract import CONTRACT
from autopeft.methods.training_space import TRAINING_SPACE
from autopeft.study.sections import FIXED_SEARCH_KEYS
from autopeft.tasks.contract import CONTRACT as TASK_CONTRACT
from autopeft.tasks.registry import discover

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.methods.registry import Registry

SHARED = {
    "pyproject.toml": "plugin/pyproject.toml",
    ".github/workflows/test.yml": "plugin/workflow.yml",
    "{package}/py.typed": "",
    "study.toml": "plugin/study.toml",
}
METHOD = {
    **SHARED,
    "README.md": "plugin/README.md",
    "{package}/__init__.py": "plugin/init.py",
    "{package}/method.py": "plugin/method.py",
    "{package}/scale.py": "plugin/scale.py",
    "tests/test_{name}.py": "plugin/test_method.py",
}
TASK = {
    **SHARED,
    "README.md": "task/README.md",
    "{package}/__init__.py": "task/init.py",
    "{package}/task.py": "task/task.py",
    "tests/test_{name}.py": "task/test_task.py",
}
"""What is written, each from which template; an empty one makes an empty file."""

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def write(name: str, folder: Path, registry: Registry, *, task: bool = False) -> list[Path]:
    """Write a distribution that brings a method of that name, and return its files.

    Args:
        name: of the method, of its entry point and, behind a prefix, of the package and the distribution.
        folder: of the distribution; made if it is not there.
        registry: the methods installed.
        task: it brings a kind of task instead, whose name has hyphens where this one has underscores.

    Raises:
        UserInputError: the name cannot be a method's or is taken, or something stands in the folder.
    """
    _check_name(name, registry)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserInputError(f"a new plugin goes into a new or empty folder, but {folder} is neither; name another.")
    package = f"autopeft_{name}"
    values = {
        "name": name,
        "package": package,
        "distribution": package.replace("_", "-"),
        "kind": name.replace("_", "-"),
        "Class": name.title().replace("_", "") + ("Task" if task else "Method"),
        "what": "kind of task" if task else "method",
        "called": name.replace("_", "-") if task else name,
        "task": name.replace("_", "-") if task else "text-classification",
        "methods": '["lora"]' if task else f'["{name}", "lora"]',
        "hook": "register_tasks" if task else "register_methods",
        "contract": str(TASK_CONTRACT if task else CONTRACT),
        "version": ".".join(version("autopeft").split(".")[:2]),
    }
    templates = files("autopeft") / "templates"
    written = []
    for target, source in (TASK if task else METHOD).items():
        path = folder / target.format_map(values)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (templates / f"{source}.template").read_text(encoding="utf-8") if source else ""
        path.write_text(Template(text).substitute(values), encoding="utf-8")
        written.append(path)
    return written


def _check_name(name: str, registry: Registry) -> None:
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        raise UserInputError(
            "a method's name must be lower-case words of letters and digits with single underscores between, such as "
            f'low_rank, and not a Python keyword, but got "{name}"; choose another one.'
        )
    if name in (*FIXED_SEARCH_KEYS, *TRAINING_SPACE, "peft"):  # the last one's class would be called as its base is
        raise UserInputError(f'"{name}" already has a meaning in study files or plugins; choose another name.')
    installed = (*registry.origins.values(), *(fault.origin for fault in registry.faults))
    taken = {origin.entry_point: origin for origin in installed} | registry.origins
    taken |= {kind.replace("-", "_"): origin for kind, origin in discover().origins.items()}
    if name in taken:
        raise UserInputError(f'"{name}" is taken by {taken[name]}; choose another name, or uninstall that plugin.')
