"""The rules as tests: a class for a plugin's author to subclass."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from autopeft.testing.case import Case
from autopeft.testing.suite import FAILED, OK, judge, plan
from autopeft.testing.tiny import ALL_FAMILIES

if TYPE_CHECKING:
    from autopeft.methods.contract import PeftMethod
    from autopeft.testing.rule import Rule


class MethodTests:
    """Every rule on every family's tiny model, a test each; subclass it in a test file.

    ```python
    from autopeft.testing import MethodTests
    from my_plugin import MyMethod


    class TestMyMethod(MethodTests):
        method = MyMethod()
    ```

    Class attributes:
        method: what is tested.
        families: of the models; default: all families.
    """

    method: ClassVar[PeftMethod]
    families: ClassVar[tuple[str, ...]] = ALL_FAMILIES
    _case: ClassVar[Case | None] = None

    def __init_subclass__(cls) -> None:
        """Make the tests of the subclass, whose families may be fewer."""
        steps = plan(cls.families)
        names = [f"{rule.name}-{family}" if family else rule.name for rule, family in steps]

        @pytest.mark.parametrize(("rule", "family"), steps, ids=names)
        def test_rule(self: MethodTests, rule: Rule, family: str) -> None:
            kind = type(self)
            wanted = family or kind.families[0]
            if kind._case is None or kind._case.family != wanted:
                kind._case = Case(kind.method, wanted)
            finding = judge(rule, kind._case)
            if finding.state == FAILED:
                pytest.fail(str(finding), pytrace=False)
            if finding.state != OK:
                pytest.skip(f"{finding.state}: {finding.seen}")

        cls.test_rule = test_rule  # type: ignore[attr-defined]
