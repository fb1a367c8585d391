"""Rules that every method must keep, for a plugin's author to test: `check(method)`, or `MethodTests` in pytest.

The rules run on tiny models of many families, built here from their configurations: no network and no weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.testing.rule import RULES, Rule
from autopeft.testing.suite import FAILED, OK, SKIPPED, UNSUPPORTED, Finding, check, plan
from autopeft.testing.task_rules import TaskFinding, check_task
from autopeft.testing.tiny import ALL_FAMILIES, FAMILIES

if TYPE_CHECKING:
    from autopeft.testing.pytest_base import MethodTests

__all__ = [
    "ALL_FAMILIES",
    "FAILED",
    "FAMILIES",
    "OK",
    "RULES",
    "SKIPPED",
    "UNSUPPORTED",
    "Finding",
    "MethodTests",
    "Rule",
    "TaskFinding",
    "check",
    "check_task",
    "plan",
]


def __getattr__(name: str) -> object:
    if name == "MethodTests":  # needs pytest, which the command line does not
        from autopeft.testing.pytest_base import MethodTests

        return MethodTests
    raise AttributeError(f"module 'autopeft.testing' has no attribute {name!r}")
