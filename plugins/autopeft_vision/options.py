"""Settings of image-text matching."""

from __future__ import annotations

from pydantic import Field

from autopeft import Section


class MatchingOptions(Section):
    """Settings of the loss, which [search] may name to have them searched."""

    temperature: float = Field(0.07, ge=0.001, le=10)
    """Cosines are divided by it: the lower it is, the more the nearest wrong pairs count. CLIP begins with 0.07 and
    ends near 0.01."""
