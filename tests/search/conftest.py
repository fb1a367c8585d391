"""What tests of a search's start share."""

import pytest

from autopeft.search import portfolio as recorded
from tests.recorded import portfolio, slow_lora, wide_adapter


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A portfolio in the package's place: LoRA's default, a wide adapter, a slow LoRA."""
    path = tmp_path / "portfolio.json"
    path.write_text(portfolio(wide_adapter(), slow_lora()).to_json())
    monkeypatch.setattr(recorded, "PATH", path)
    return path
