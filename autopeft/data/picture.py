"""A cell that is an image: a file, or a file's content."""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from autopeft.common.exceptions import DataError, brief, in_a_line
from autopeft.data.cells import CellError

if TYPE_CHECKING:
    from PIL.Image import Image


MOST_PIXELS = 89_478_485
"""Most pixels of an image: Pillow's own limit (`Image.MAX_IMAGE_PIXELS`) against files that unpack to gigabytes."""

FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TGA", "TIFF", "WEBP")
"""Formats that are read. Pillow knows many more, but few images have them, and damaged files in them can do harm."""

RULE = "be an image"
ADVICE = "give paths of image files, their bytes, or images of Pillow"

DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes with more than 8 bits per channel. Their range is unknown, and Pillow would cut values at 255."""


class Picture:
    """An image of a row. Two images are equal if the contents of their files are.

    Attributes:
        source: the file, or its content.
        name: its name in errors and reports, after the words "the image": a path, or "of row 5".
    """

    def __init__(self, source: Path | bytes, name: str) -> None:
        self.source, self.name = source, name

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the file's content, which identifies the image."""
        return hashlib.sha256(self.content()).hexdigest()

    def __str__(self) -> str:
        return self.digest

    def __repr__(self) -> str:
        return f"Picture({self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Picture) and other.digest == self.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def held(self) -> int:
        """Number of its bytes in memory."""
        return len(self.source) if isinstance(self.source, bytes) else 0

    def content(self) -> bytes:
        """The file's bytes.

        Raises:
            DataError: it cannot be read.
        """
        if isinstance(self.source, bytes):
            return self.source
        try:
            return self.source.read_bytes()
        except OSError as error:
            raise DataError(f"the image {self.name} cannot be read: {in_a_line(error)}.") from None

    def opened(self) -> tuple[Image, str]:
        """The image as RGB, upright, on white where it was transparent; and its original mode.

        Raises:
            DataError: it is not an image, is damaged, or has more than 8 bits per channel; in one sentence.
        """
        from PIL import Image, ImageOps

        try:
            with Image.open(io.BytesIO(self.content()), formats=_formats()) as found:
                if found.width * found.height > MOST_PIXELS:
                    raise DataError(
                        f"the image {self.name} must have at most {MOST_PIXELS:,} pixels, but has "
                        f"{found.width} by {found.height}; make it smaller."
                    )
                mode = found.mode
                if mode in DEEP:
                    raise DataError(
                        f"the image {self.name} must have 8 bits per channel, but its mode is {mode}; convert it to 8 "
                        "bits, in the range that matters."
                    )
                upright = ImageOps.exif_transpose(found)
                return (_on_white(upright) if _transparent(upright) else upright.convert("RGB")), mode
        except DataError:
            raise
        except Exception as error:  # Pillow's formats raise anything for damaged files
            raise DataError(
                f"the image {self.name} cannot be read as an image ({_reason(error)}); replace or remove it."
            ) from None


def as_picture(value: object, folder: Path) -> Picture:
    """A cell as an image: a path, bytes, `{"bytes": …, "path": …}` as in `datasets`, a Pillow image, or an array.

    Args:
        value: the cell.
        folder: where relative paths start.

    Raises:
        CellError: it is none of these, or the path is not a file.
    """
    if isinstance(value, Picture):
        return value
    if isinstance(value, Mapping) and {*value} == {"bytes", "path"}:
        if value["bytes"] is not None:
            return as_picture(_named(value["bytes"], value["path"]), folder)
        value = value["path"]
    if isinstance(value, str) and not value.strip():
        raise CellError("is empty", ADVICE, RULE)
    if isinstance(value, str | Path):
        return _file(Path(value), folder)
    if isinstance(value, bytes | bytearray | memoryview):
        return Picture(bytes(value), "")
    if isinstance(value, np.ndarray):
        return _of_array(value)
    if hasattr(value, "save") and hasattr(value, "convert"):  # a Pillow image, found without importing Pillow
        return Picture(_png(value), "")
    if isinstance(value, CellError):
        raise value
    raise CellError(f"is a value of type {type(value).__name__}", ADVICE, RULE)


def _named(content: object, path: object) -> Picture:
    if not isinstance(content, bytes):
        raise CellError("holds no bytes", ADVICE, RULE)
    return Picture(content, str(path) if path else "")


def _file(path: Path, folder: Path) -> Picture:
    try:
        place = folder / path.expanduser()
        there = place.is_file()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user
        there = False
    if not there:
        raise CellError(f'names "{brief(str(path))}", which does not exist', f"relative paths start at {folder}", RULE)
    return Picture(place, str(path))


def _of_array(value: np.ndarray) -> Picture:
    from PIL import Image

    if value.dtype != np.uint8 or value.ndim not in (2, 3) or (value.ndim == 3 and value.shape[2] not in (3, 4)):
        raise CellError(
            f"is an array {list(value.shape)} of {value.dtype}",
            "give arrays of uint8, [height, width] or [height, width, 3]",
            RULE,
        )
    return Picture(_png(Image.fromarray(value)), "")


def _png(image: Any) -> bytes:
    content = io.BytesIO()
    try:
        image.save(content, format="PNG")
    except OSError:  # a mode that PNG does not have
        image.convert("RGB").save(content, format="PNG")
    return content.getvalue()


@functools.cache
def _formats() -> tuple[str, ...]:
    """The `FORMATS` that this build of Pillow has."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _transparent(image: Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


def _on_white(image: Image) -> Image:
    from PIL import Image

    layered = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered).convert("RGB")


def _reason(error: Exception) -> str:
    said = in_a_line(error)
    return "its format is not known" if "cannot identify image file" in said else said
