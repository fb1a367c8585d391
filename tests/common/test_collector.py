"""What was there before is passed over, and only as long as was asked."""

import gc

import pytest

from autopeft.common.collector import settled


@pytest.fixture(autouse=True)
def _as_it_was():
    before = gc.get_freeze_count()
    yield
    if not before:
        gc.unfreeze()


class Node:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self):
        self.me = self


def test_a_collection_finds_what_came_since_and_nothing_else():
    gc.unfreeze()
    with settled():
        frozen = gc.get_freeze_count()
        Node()
        assert gc.collect() > 0
        assert len(gc.get_objects()) < frozen
    assert gc.get_freeze_count() == 0


def test_what_a_caller_has_frozen_stays_so():
    gc.freeze()
    with settled(), settled():
        pass
    assert gc.get_freeze_count() > 0
