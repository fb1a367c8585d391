"""The examples in the contracts' docstrings run as they stand."""

import doctest
import sys

import pytest

from autopeft import PeftMethod, Task
from autopeft.budget.limits import Limit
from autopeft.execution.backend import Backend


@pytest.mark.parametrize("contract", [Task, PeftMethod, Backend, Limit], ids=lambda contract: contract.__name__)
def test_the_example_in_a_contract_runs(contract):
    names = dict(vars(sys.modules[contract.__module__]))
    found = doctest.DocTestFinder(recurse=False).find(contract, contract.__name__, globs=names)
    (example,) = [test for test in found if test.examples]
    told = []
    doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert not told, "".join(told)
