"""How rows of images become arrays: the model's image processor, and the side of its square output."""

from __future__ import annotations

import copy
import io
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch

from autopeft.common.exceptions import DataError, ModelError, SpecError, in_a_line
from autopeft.common.free_memory import free_memory
from autopeft.common.units import format_bytes
from autopeft.models.modes import as_kept
from autopeft.models.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image

    from autopeft.common.truncation import Truncation
    from autopeft.study.card import Card
    from autopeft.study.sections import ModelSection

ORDINARY = {"RGB", "L", "1"}
"""Modes of Pillow that become RGB without a message."""


class Picture(Protocol):
    """An image of a row; see `data.picture.Picture`."""

    @property
    def name(self) -> str:
        """The image's name in errors."""

    def opened(self) -> tuple[Image, str]:
        """The image in RGB, and its original mode."""


class Pixels(NamedTuple):
    """Rows as images of one size.

    Attributes:
        values: uint8 `[rows, 3, height, width]`.
        scale, shift: float32 `[3, 1, 1]`; the model's input is `values * scale + shift`.
        patches: places of an image at the bottom of the model.
    """

    values: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    patches: int


class ImageReader(Reader):
    """An image processor of transformers, always run with Pillow, since the results of other libraries differ.

    Args:
        processor: of transformers, as it comes with the model.
        patch_size: side of a patch of the model, in pixels; 0 if it has no patches.
        size: side of the images that the processor makes; default: its own.
    """

    unit: ClassVar[str] = "patches"
    advice: ClassVar[str] = "give another `image_size` in [model]"
    free: ClassVar[tuple[int, ...]] = (0,)

    def __init__(self, processor: Any, patch_size: int, size: int | None = None) -> None:
        self.processor = processor if size is None else _sized(processor, size)
        self.size = size
        self._patch_size = patch_size
        self._odd: dict[str, list[str]] = {}  # names of images, by mode

    @classmethod
    def load(cls, location: Path | str, **origin: Any) -> Any:
        """The model's image processor."""
        from transformers import AutoImageProcessor

        return AutoImageProcessor.from_pretrained(location, backend="pil", **origin)

    @classmethod
    def of_study(cls, processor: Any, model: Any, section: ModelSection, columns: int) -> Self:
        """Make a reader with the size in [model]; the model is tried on an image of that size."""
        texts = [name for name in ("max_length", "truncation") if getattr(section, name) is not None]
        if texts:
            raise SpecError(f"`{texts[0]}` in [model] is for texts, but this kind of task reads images; remove it.")
        reader = cls(processor, _patch_size(model), section.image_size)
        try:
            reader._try(model, columns)
        except Exception as error:  # the model may bring code of its own
            if section.image_size is None:
                raise ModelError(
                    f"[model] name_or_path: {type(model).__name__} cannot read the output of its image processor "
                    f"({in_a_line(error)}); set `image_size` in [model] to a size that it reads."
                ) from error
            raise SpecError(
                f"`image_size` in [model] must be a size that the model reads, but {section.image_size} is not "
                f"({in_a_line(error)}); remove it, or take another model."
            ) from error
        return reader

    def _try(self, model: Any, columns: int) -> None:
        """Run the model on an image, in the precision of its weights."""
        place = next(model.parameters()).device.type
        with torch.inference_mode(), as_kept(model):
            model(**{name: tensor.to(place) for name, tensor in self.example(columns).items()})

    @classmethod
    def of_winner(cls, processor: Any, model: Any, card: Card, where: str) -> Self:
        """Make a reader with the card's size."""
        return cls(processor, _patch_size(model), card.image_size)

    @property
    def settings(self) -> dict[str, Any]:
        """The side of an image."""
        return {"max_length": None, "truncation": None, "image_size": self.size}

    def __call__(self, pictures: Sequence[Picture]) -> Pixels:
        """The images as pixels.

        Raises:
            DataError: an image cannot be read, their sizes differ after processing, or memory is too small.
        """
        values: np.ndarray | None = None
        for row, picture in enumerate(pictures):
            pixels = self._pixels(picture)
            if values is None:
                values = _room(len(pictures), pixels.shape, self.size)
            if pixels.shape != values.shape[1:]:
                raise DataError(
                    f"the image {picture.name} must have the same size as the others after the model's image "
                    f"processor, {_size(values[0])}, but has {_size(pixels)}; set `image_size` in [model]."
                )
            values[row] = pixels
        if values is None:
            raise DataError("there must be at least one image, but there are none.")
        return Pixels(values, *self._normalisation, self._patches(values.shape[2:]))

    def _pixels(self, picture: Picture) -> np.ndarray:
        """One image, uint8 `[3, height, width]`."""
        image, mode = picture.opened()
        if mode not in ORDINARY:
            self._odd.setdefault(mode, []).append(picture.name)
        made = self._processed(image)
        if made.dtype != np.uint8:
            whole = made.round().clip(0, 255)
            if not np.allclose(made, whole, atol=1e-3):
                raise ModelError(f"{type(self.processor).__name__} does not make 8-bit pixels; use another model.")
            made = whole.astype(np.uint8)
        return made

    def _processed(self, image: Image) -> np.ndarray:
        """Resized and cropped, not yet normalised."""
        found = self.processor(images=[image], do_rescale=False, do_normalize=False, return_tensors="np")
        pixels: np.ndarray = found["pixel_values"][0]
        return pixels

    @property
    def _normalisation(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and shift, float32 `[3, 1, 1]` each."""
        given = self.processor
        factor = np.float32(given.rescale_factor if getattr(given, "do_rescale", False) else 1.0)
        mean, deviation = (
            np.broadcast_to(np.asarray(values, np.float32), 3).reshape(3, 1, 1)
            for values in ((given.image_mean, given.image_std) if getattr(given, "do_normalize", False) else (0.0, 1.0))
        )
        return factor / deviation, -mean / deviation

    def _patches(self, size: Sequence[int]) -> int:
        height, width = size
        return max(1, (height // self._patch_size) * (width // self._patch_size) + 1) if self._patch_size else 1

    def save(self, folder: Path) -> None:
        """Write an image processor that `AutoImageProcessor` reads, with the size it has here."""
        self.processor.save_pretrained(str(folder))

    def standalone(self) -> Self:
        """This reader itself: its processor already makes images of that size."""
        return self

    def cells(self) -> list[Any]:
        """The files of two grey images."""
        found = []
        for image in _grey():
            content = io.BytesIO()
            image.save(content, format="PNG")
            found.append(content.getvalue())
        return found

    def example(self, columns: int) -> dict[str, torch.Tensor]:
        """Two grey images."""
        scale, shift = self._normalisation
        pixels = np.stack([self._processed(image) for image in _grey()]).astype(np.float32)
        return {"pixel_values": torch.from_numpy(pixels * scale + shift)}

    def told(self, truncated: Truncation) -> list[str]:
        """Which images were converted to RGB; reported once."""
        said = [
            f"{len(names)} image{'s are' if len(names) > 1 else ' is'} of the mode {mode} (such as {names[0]}) and "
            f"{'are' if len(names) > 1 else 'is'} read as RGB, with white where transparent."
            for mode, names in sorted(self._odd.items())
        ]
        self._odd.clear()
        return said


def _grey() -> list[Image]:
    from PIL import Image

    return [Image.new("RGB", (64, 64), (level, level, level)) for level in (96, 160)]


def _patch_size(model: Any) -> int:
    """Side of a patch; 0 if the model has none."""
    given = getattr(model.config, "patch_size", None)
    side = given[0] if isinstance(given, list | tuple) and given else given
    return side if isinstance(side, int) else 0


def _sized(processor: Any, side: int) -> Any:
    """The processor set to another size; if it crops a square from the centre, the same share as before."""
    from transformers.image_utils import SizeDict

    made = copy.deepcopy(processor)
    crop = getattr(made, "crop_size", None) if getattr(made, "do_center_crop", False) else None
    share = 1.0 if crop is None else side / crop["height"]
    if made.size.get("shortest_edge"):
        whole = round(made.size["shortest_edge"] * share) if crop is not None else side
        made.size = SizeDict(shortest_edge=whole)
    else:
        wide = {name: side if crop is None else round(made.size[name] * share) for name in ("height", "width")}
        made.size = SizeDict(**wide)
    if crop is not None:
        made.crop_size = SizeDict(height=side, width=side)
    made.do_resize = True
    return made


def _room(rows: int, shape: tuple[int, ...], size: int | None) -> np.ndarray:
    """Memory for all images.

    Raises:
        DataError: there is not enough.
    """
    need, free = rows * int(np.prod(shape)), free_memory()
    if need > free:
        raise DataError(
            f"{rows:,} images must fit into memory, but need {format_bytes(need)}, and {format_bytes(free)} are free; "
            f"set `max_rows` in [data], or a smaller `image_size` in [model]{'' if size is None else f' than {size}'}."
        )
    return np.empty((rows, *shape), np.uint8)


def _size(pixels: np.ndarray) -> str:
    return " by ".join(map(str, pixels.shape[1:]))
