"""One label for one image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from autopeft import Classification, Column, Encoded, Exhibit, Field, Fit, ReportSection
from autopeft_vision.thumbnail import thumbnail

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from autopeft import TableProfile

SHOWN = 18
"""Most images in the report."""


class ImageClassification(Classification):
    """Single-label classification of images, which the model's image processor resizes to one size."""

    contract = 1
    kind = "image-classification"
    auto_class = "AutoModelForImageClassification"
    processor = "AutoImageProcessor"
    pipeline_tag = "image-classification"
    columns: tuple[Column, ...] = (Column("image", "image"), Column("label", "label", given=False))

    def fits(self, table: TableProfile) -> Fit | None:
        """Images and their labels."""
        image = next((column for column in table.columns if column.holds == "image"), None)
        label = table.label()
        if not image or not label or label.holds != "label":
            return None
        why = f"`{image.name}` holds images, and `{label.name}` {label.said}."
        return Fit({"image": image.name, "label": label.name}, 0.9, why)

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

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """The usual sections, and the images with the surest wrong answers, first one of each pair of labels."""
        given, sure = self.given(answers), answers.max(axis=-1)
        wrong = sorted((row for row in range(len(rows)) if given[row] != truths[row]), key=lambda row: -sure[row])
        surest = {(truths[row], given[row]): row for row in reversed(wrong)}  # of each confusion
        first = sorted(surest.values(), key=wrong.index)
        shown = [*first, *(row for row in wrong if row not in first)][:SHOWN]
        usual = super().sections(rows, truths, answers, labels)
        if not shown:
            return usual
        images = rows["image"].tolist()
        exhibits = tuple(
            Exhibit(
                f"{labels[truths[row]]}, answered {labels[given[row]]} ({sure[row]:.0%}): {images[row].name}",
                thumbnail(images[row]),
            )
            for row in shown
        )
        told = f"Answered wrong: {len(wrong)} of {len(rows)} held-out images. The most confident errors come first."
        return [*usual, ReportSection("Images that were answered wrong", told, exhibits)]
