"""A folder of images as rows: a sub-folder for each class, or only images if there are no classes to learn."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

IMAGE, LABEL = "image", "label"
"""The columns."""

ENDINGS = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff",
    ".webp",
}  # fmt: skip
"""Endings of image files, in lower case; other files are left out, with a note."""

PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
"""Names of folders, in lower case, that hold a part of a data set and no class."""


@dataclass(frozen=True)
class ImageFolder:
    """The images below a folder, sorted by path.

    Attributes:
        images: paths relative to the folder.
        others: files that are not images by their names, except hidden ones.
        links: links to folders, except hidden ones; what is behind them is not read.
    """

    images: Sequence[Path]
    others: Sequence[Path]
    links: Sequence[Path] = ()

    @property
    def names(self) -> list[str]:
        """The columns: an image directly in the folder has no class; if all images are there, there are no labels."""
        return [IMAGE, *[LABEL] * any(len(path.parts) > 1 for path in self.images)]

    @property
    def told(self) -> list[str]:
        """A sentence on files that were left out, and one on links."""
        found, several, linked = list[str](), len(self.others) > 1, len(self.links) > 1
        if self.others:
            found.append(
                f"{len(self.others)} file{'s' * several} that {'are not images' if several else 'is not an image'} by "
                f"{'their names were' if several else 'its name was'} left out, such as {self.others[0]}."
            )
        if self.links:
            found.append(
                f"{len(self.links)} link{'s' * linked} to {'folders were' if linked else 'a folder was'} not followed, "
                f"such as {self.links[0]}; put the images themselves there."
            )
        return found

    @property
    def parts(self) -> list[str]:
        """The folders in this one, if they are parts of a data set with the classes in them; else nothing."""
        first = {path.parts[0] for path in self.images}
        deeper = all(len(path.parts) > 2 for path in self.images)
        return sorted(first) if deeper and {name.lower() for name in first} <= PARTS else []

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
    files, folders = list[Path](), list[Path]()
    for place, inner, names in os.walk(folder):
        files += [Path(place, name) for name in names]
        folders += [Path(place, name) for name in inner]
    seen = _shown(files, folder)
    images = [path for path in seen if path.suffix.lower() in ENDINGS]
    others = [path for path in seen if path.suffix.lower() not in ENDINGS]
    return ImageFolder(images, others, _shown([path for path in folders if path.is_symlink()], folder))


def _shown(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Those that are not hidden, sorted, as seen from the folder."""
    inside = (path.relative_to(folder) for path in paths)
    return sorted(path for path in inside if not any(part.startswith(".") for part in path.parts))
