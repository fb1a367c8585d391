"""A folder of images as rows: a sub-folder for each class, or only images if there are no classes to learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

IMAGE, LABEL = "image", "label"
"""The columns."""

ENDINGS = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
"""Endings of image files, in lower case; other files are left out, with a note."""


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder, sorted by path.

    Attributes:
        images: paths relative to the folder.
        others: files that are not images by their names, except hidden ones.
    """

    images: Sequence[Path]
    others: Sequence[Path]

    @property
    def names(self) -> list[str]:
        """The columns: an image directly in the folder has no class; if all images are there, there are no labels."""
        return [IMAGE, *[LABEL] * any(len(path.parts) > 1 for path in self.images)]

    @property
    def told(self) -> str:
        """A sentence on the files left out."""
        several = len(self.others) > 1
        return (
            f"{len(self.others)} file{'s' * several} that {'are not images' if several else 'is not an image'} by "
            f"{'their names were' if several else 'its name was'} left out, such as {self.others[0]}."
        )

    def row_name(self, number: Any) -> str:
        """The name of a row, with its file."""
        return f"{number} ({self.images[number - 1]})"

    def blocks(self, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """The paths, and the name of the first sub-folder as the label; the index counts rows from 1."""
        cells: dict[str, list[object]] = {
            IMAGE: [str(path) for path in self.images],
            LABEL: [path.parts[0] if len(path.parts) > 1 else None for path in self.images],
        }
        index = pd.RangeIndex(1, len(self.images) + 1, name="row")
        yield pd.DataFrame({name: pd.Series(cells[name], index=index, dtype=object) for name in columns})


def find(folder: Path) -> ImageFolder:
    """All images below a folder; links to folders are not followed."""
    files = [Path(place, name).relative_to(folder) for place, _, names in os.walk(folder) for name in names]
    seen = sorted(path for path in files if not any(part.startswith(".") for part in path.parts))
    images = [path for path in seen if path.suffix.lower() in ENDINGS]
    return ImageFolder(images, [path for path in seen if path.suffix.lower() not in ENDINGS])
