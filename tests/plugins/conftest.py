"""Which part of the conformance suite waits for `make exhaustive`."""

import pytest

from autopeft.testing.tiny import ALL_FAMILIES

ALWAYS = {"bert", "gpt2"}
"""An encoder, and a decoder with fused maps."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the conformance tests of all other families."""
    assert set(ALL_FAMILIES) >= ALWAYS
    for item in items:
        given = getattr(item, "callspec", None)
        if item.path.stem == "test_conformance" and given and given.params["family"] not in {*ALWAYS, ""}:
            item.add_marker(pytest.mark.exhaustive)
