"""A rule is a small function whose docstring says what must hold and, below that, what to do where it does not."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autopeft.common.params import Params
    from autopeft.testing.case import Case

Test = Callable[["Case"], str | None]
"""Raises `BrokenRuleError` or any other error; returns why there was nothing to test, else None."""


class BrokenRuleError(AssertionError):
    """A rule does not hold.

    Args:
        seen: what was found instead, as a sentence.
        params: of the method, when the rule broke.
    """

    def __init__(self, seen: str, params: Params | None = None) -> None:
        super().__init__(seen)
        self.seen, self.params = seen, params


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        name: of its function.
        statement: what must hold, in one line.
        advice: what to do if it does not hold.
        test: the function that finds out.
        applied: whether it is tested on models that the method supports and applies to; else on each family's
            description.
        once: whether it is tested once for a method, not on each family.
        gets_on: whether it is about applying the method. Such a rule is tested even if that fails at the defaults; all
            others are skipped then.
    """

    name: str
    statement: str
    advice: str
    test: Test
    applied: bool = True
    once: bool = False
    gets_on: bool = False


RULES: dict[str, Rule] = {}
"""Every rule by name, in the order of the files that declare them."""


def rule(*, applied: bool = True, once: bool = False, gets_on: bool = False) -> Callable[[Test], Test]:
    """Make a function a rule: the first line of its docstring is the statement, the rest the advice."""

    def declare(test: Test) -> Test:
        statement, _, advice = (inspect.getdoc(test) or test.__name__).partition("\n")
        told = (test.__name__, statement, " ".join(advice.split()))
        RULES[test.__name__] = Rule(*told, test, applied, once, gets_on)
        return test

    return declare
