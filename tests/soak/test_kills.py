"""A study that was killed anywhere goes on with every trial once, to the result that it would have had."""

import pytest

from tests.soak.all_targets import TARGETS
from tests.soak.campaign import campaign


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_study_ends_as_if_nothing_had_been_killed(tiny_study, target):
    one = target()
    if one.missing():
        pytest.skip(one.missing())
    campaign(tiny_study, one, one.kills, seed=0)
