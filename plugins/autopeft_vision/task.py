"""One label for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from autopeft import Classification, Column, Encoded, Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


class ImageClassification(Classification):
    """Single-label classification of images, all brought to one size by the model's image processor."""

    contract = 1
    kind = "image-classification"
    auto_class = "AutoModelForImageClassification"
    processor = "AutoImageProcessor"
    pipeline_tag = "image-classification"
    columns: ClassVar[tuple[Column, ...]] = (Column("image", "image"), Column("label", "label", given=False))

    def example(self) -> pd.DataFrame:
        """Dark and bright images with some noise."""
        import numpy as np
        import pandas as pd

        generator = np.random.default_rng(0)
        images = [generator.integers(low, low + 100, (20, 24, 3), np.uint8) for low in (0, 150) * 6]
        return pd.DataFrame({"image": pd.Series(images, dtype=object), "label": ["dark", "bright"] * 6})

    def encode(self, rows: pd.DataFrame, reader: Any, labels: Sequence[str]) -> Encoded:
        """Resize the images, and keep their pixels as whole numbers; batches have them normalised."""
        pixels = reader(rows["image"].tolist())
        truths = self.truths(rows, labels)
        fields = {
            "pixel_values": Field(pixels.values, scale=pixels.scale, shift=pixels.shift),
            "labels": Field(truths),
        }
        return Encoded(fields, truths, places=pixels.patches)
