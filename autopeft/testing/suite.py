"""Run the rules for a method and say what was found."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError, nearest
from autopeft.testing import applying, averaging, keeping, learning, process, running, space, starting  # noqa: F401  # they declare rules
from autopeft.testing.case import Case
from autopeft.testing.fault import fault_of
from autopeft.testing.rule import RULES, BrokenRuleError, Rule
from autopeft.testing.tiny import ALL_FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from autopeft.common.params import ParamValue
    from autopeft.methods.contract import PeftMethod

OK, FAILED, SKIPPED, UNSUPPORTED = "ok", "failed", "skipped", "not supported"


@dataclass(frozen=True)
class Finding:
    """What a rule found about a method on a family's model.

    Attributes:
        rule: its name.
        family: of the model; empty for a rule about the method alone.
        state: "ok"; "failed"; "skipped" if there was nothing to test; or "not supported" if the method says so.
        seen: what was found if it failed, or why it was skipped.
        params: of the method, when the rule broke.
        place: file and line of the fault in the plugin, as far as it is known: the deepest of the plugin's lines that
            an error went through, else the class of the method.
        trace: the traceback of an error.
    """

    rule: str
    family: str
    state: str
    seen: str = ""
    params: dict[str, ParamValue] = field(default_factory=dict)
    place: str = ""
    trace: str = field(default="", repr=False)

    def __str__(self) -> str:
        """Which rule, where, what was seen, what to do."""
        where = f" on {self.family}" * bool(self.family)
        if self.state != FAILED:
            return f"{self.rule}{where}: {self.state}{f', {self.seen}' * bool(self.seen)}"
        at = f", params {self.params}" if self.params else ""
        rule = RULES[self.rule]
        place = f"\nWhere: {self.place}" * bool(self.place)
        return f"{rule.name} broke{where}{at}: {self.seen}{place}\nRule: {rule.statement}\nWhat to do: {rule.advice}"


def known(families: Iterable[str], among: Collection[str] = ALL_FAMILIES) -> list[str]:
    """The families as a list, checked.

    Args:
        families: names of model types.
        among: all names.

    Raises:
        UserInputError: one has no tiny model.
    """
    chosen = list(families)
    for family in chosen:
        if family not in among:
            raise UserInputError(f'there is no tiny model of the family "{family}"; {nearest(family, among)}')
    return chosen


def plan(families: Iterable[str] | None = None) -> list[tuple[Rule, str]]:
    """Every rule with every family that it is tested on, family by family; rules about the method alone come first.

    Raises:
        UserInputError: there is no such family.
    """
    chosen = known(ALL_FAMILIES if families is None else families)
    once = [(rule, "") for rule in RULES.values() if rule.once]
    return once + [(rule, family) for family in chosen for rule in RULES.values() if not rule.once]


def check(
    method: PeftMethod,
    families: Iterable[str] | None = None,
    progress: Callable[[str, str], object] = lambda rule, family: None,
) -> list[Finding]:
    """Test a method against every rule, on tiny models of the given families; default: of all.

    Args:
        method: an instance.
        families: some of `ALL_FAMILIES`.
        progress: called with the rule and the family before each test.

    Raises:
        UserInputError: there is no such family.
    """
    return list(_check(method, plan(families), progress))


def _check(
    method: PeftMethod, steps: Iterable[tuple[Rule, str]], progress: Callable[[str, str], object]
) -> Iterator[Finding]:
    case = Case(method, ALL_FAMILIES[0])
    for rule, family in steps:
        progress(rule.name, family)
        if family and family != case.family:
            case = Case(method, family)
        yield judge(rule, case)


def judge(rule: Rule, case: Case) -> Finding:
    """Test one rule; put back whatever the method changes in the process meanwhile."""
    finding = functools.partial(Finding, rule.name, "" if rule.once else case.family)
    with process.guarded([case.base.module], case.left_changed):
        try:
            if rule.applied and (refusal := case.refusal):
                return finding(UNSUPPORTED, refusal)
            if rule.applied and (blocked := case.spaceless if rule.gets_on else case.blocked):
                return finding(SKIPPED, blocked)
            skipped = rule.test(case)
            return finding(SKIPPED, skipped) if skipped else finding(OK)
        except BrokenRuleError as broken:
            fault = fault_of(case.method, broken)
            return finding(FAILED, broken.seen, dict(broken.params or {}), fault.place, fault.trace)
        except Exception as error:  # a method may raise anything
            fault = fault_of(case.method, error)
            return finding(FAILED, f"{type(error).__name__}: {error}", dict(case.at or {}), fault.place, fault.trace)
        finally:
            case.restore()
