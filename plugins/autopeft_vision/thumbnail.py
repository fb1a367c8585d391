"""Small copies of images, for reports."""

from __future__ import annotations

import io
from typing import Any

SIDE = 128
"""The longer side, in pixels."""


def thumbnail(picture: Any) -> bytes:
    """A small copy as a PNG file."""
    image, _ = picture.opened()
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
