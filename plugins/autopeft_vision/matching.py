"""Whether an image and a text belong together: a vector for each, from two towers that are trained to agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from autopeft import (
    Baseline,
    Bounds,
    Column,
    DataError,
    Encoded,
    Exhibit,
    Field,
    Fit,
    Float,
    Metric,
    ReportSection,
    SearchSpace,
    Task,
    token_fields,
)
from autopeft_vision.options import MatchingOptions
from autopeft_vision.ranks import METRICS, identities, ranks
from autopeft_vision.thumbnail import thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    import pandas as pd
    import torch

    from autopeft import Section, TableProfile

SHOWN = 18
"""Most images in the report."""

FEWEST = 2
"""Fewest different images, and fewest different texts: with fewer there is nothing to tell apart."""


class ImageTextMatching(Task):
    """Vectors of images and texts: the better an image and a text go together, the closer their vectors are.

    The loss is that of CLIP (Radford et al. 2021, arXiv:2103.00020): each image of a batch must find its text among all
    texts of the batch, and the reverse. It is the cross-entropy over cosine similarities, divided by a temperature, and
    the mean of both directions. Texts or images that equal a row's own do not count as wrong.

    Truths say which rows have equal images and equal texts, int64 `[rows, 2]`. Answers are the vectors, first the
    image's, then the text's, each of length 1, float32 `[rows, 2 · width]`.
    """

    contract = 1
    kind = "image-text-matching"
    auto_class = "AutoModel"
    processor = "AutoProcessor"
    pipeline_tag = "zero-shot-image-classification"
    columns: tuple[Column, ...] = (Column("image", "image"), Column("text"))
    metrics: ClassVar[Mapping[str, Metric]] = METRICS
    taught = ("images", "texts")
    outputs = ("image_embeds", "text_embeds")
    contrasts = True
    group = "image"
    Options: ClassVar[type[Section]] = MatchingOptions

    @property
    def texts(self) -> int:
        """One, beside the image."""
        return 1

    def fits(self, table: TableProfile) -> Fit | None:
        """Images and texts that describe them."""
        image, text = next((column for column in table.columns if column.holds == "image"), None), table.text()
        if not image or not text or "label" in table.named:
            return None
        return Fit(
            {"image": image.name, "text": text.name},
            0.6,
            f"`{image.name}` holds images, and `{text.name}` {text.said}.",
        )

    def check(self, rows: pd.DataFrame, source: str) -> None:
        """Make sure that there are different images, and different texts."""
        for place, what in enumerate(("images", "texts")):
            found = int(identities(rows)[:, place].max()) + 1
            if found < FEWEST:
                raise DataError(f"{source}: there must be at least {FEWEST} different {what}, but all are the same.")

    def example(self) -> pd.DataFrame:
        """Images of one colour each, with its name; some occur twice."""
        import numpy as np
        import pandas as pd

        generator = np.random.default_rng(0)
        colours = {
            "red": (200, 0, 0),
            "deep green": (0, 120, 0),
            "a rather bright blue": (40, 40, 255),
            "grey": (99,) * 3,
        }
        rows = [(np.array(colour, np.uint8), name) for name, colour in colours.items()] * 3
        images = [
            np.clip(colour + generator.integers(0, 40, (20, 24, 3)), 0, 255).astype(np.uint8) for colour, _ in rows
        ]
        texts = [name if place < 4 else f"{name} number {place}" for place, (_, name) in enumerate(rows)]
        images[5] = images[1]
        texts[6] = texts[2]
        return pd.DataFrame({"image": pd.Series(images, dtype=object), "text": texts})

    def sample(self, cells: Sequence[Any]) -> dict[str, Any]:
        """Two images, and a text for each."""
        return {"image": [*cells], "text": ["a text", "another one"]}

    def encode(self, rows: pd.DataFrame, reader: Any, labels: Sequence[str]) -> Encoded:
        """Resize the images, tokenise the texts, and number both; equal ones get the same number."""
        pixels, tokens = reader(rows["image"].tolist(), rows["text"].tolist())
        equal = identities(rows)
        fields = {
            **token_fields(tokens.columns, tokens.offsets, reader.processor.tokenizer.pad_token_id),
            "pixel_values": Field(pixels.values, scale=pixels.scale, shift=pixels.shift),
            "images": Field(equal[:, 0]),
            "texts": Field(equal[:, 1]),
        }
        return Encoded(fields, equal, axis="input_ids", whole=tokens.whole)

    def search_space(self) -> SearchSpace:
        """The temperature."""
        given = float(self.options.temperature)
        low, high = min(0.01, given), max(0.5, given)
        return SearchSpace(
            {"temperature": Float(low=low, high=high, default=given, log=True, bounds=Bounds(least=1e-3, most=10))}
        )

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The mean of both directions' cross-entropy among the rows of the batch, in float32."""
        import torch
        from torch.nn.functional import cross_entropy

        images, texts = outputs.image_embeds.float(), outputs.text_embeds.float()
        equal = torch.zeros(len(images), len(texts), dtype=torch.bool, device=images.device)
        for name in self.taught:
            equal = equal | (batch[name][:, None] == batch[name][None, :])
        own = torch.arange(len(images), device=images.device)
        other = equal & (own[:, None] != own[None, :])
        logits = (images @ texts.T / self.options.temperature).masked_fill(other, float("-inf"))
        return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2

    def answer(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Both vectors, one after the other, float32 `[rows, 2 · width]`."""
        import torch

        return torch.cat([outputs.image_embeds.float(), outputs.text_embeds.float()], dim=-1)

    def score(self, metric: str, truths: np.ndarray, answers: np.ndarray) -> float:
        """The metric of the ranks of the rows."""
        return self.metrics[metric].score(ranks(answers, truths), truths)

    def worded(self, answers: np.ndarray, rows: pd.DataFrame) -> np.ndarray:
        """The vectors, followed by which rows have equal images and texts, float64 `[rows, 2 · width + 2]`."""
        import numpy as np

        return np.concatenate([answers.astype(np.float64), identities(rows)], axis=1)

    def written(self, answers: np.ndarray, labels: Sequence[str]) -> list[str]:
        """For each row the rank of its text for its image, and of its image for its text, from 1 on."""
        found = ranks(answers[:, :-2], answers[:, -2:])
        return [f"{text} {image}" for text, image in found.tolist()]

    def written_truths(self, truths: np.ndarray, labels: Sequence[str]) -> list[str]:
        """Rank 1, both times."""
        return ["1 1"] * len(truths)

    def table(self, answers: np.ndarray, labels: Sequence[str]) -> pd.DataFrame:
        """A column `similarity`: the cosine of the two vectors."""
        import pandas as pd

        return pd.DataFrame({"similarity": (_half(answers, 0) * _half(answers, 1)).sum(axis=1)})

    def as_json(self, answer: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
        """The cosine of the two vectors."""
        return {"similarity": float(self.table(answer[None], labels)["similarity"][0])}

    def reading(self, labels: Sequence[str]) -> str:
        """How similar a row's image and text are."""
        return "similarity = (image_embeds * text_embeds).sum(-1)"

    def sections(
        self, rows: pd.DataFrame, truths: np.ndarray, answers: np.ndarray, labels: Sequence[str]
    ) -> list[ReportSection]:
        """The images whose text has the worst rank."""
        found = ranks(answers, truths)[:, 0]
        wrong = [row for row in (-found).argsort(kind="stable") if found[row] > 1]
        if not wrong:
            return []
        images, texts = rows["image"].tolist(), rows["text"].tolist()
        half = answers.shape[1] // 2
        exhibits = []
        for row in wrong[:SHOWN]:
            nearest = int((answers[:, half:] @ answers[row, :half]).argmax())
            caption = f"{images[row].name}: its text “{texts[row]}” is number {found[row]}, “{texts[nearest]}” is first"
            exhibits.append(Exhibit(caption, thumbnail(images[row])))
        told = (
            f"Matched wrong: {len(wrong)} of {len(rows)} held-out images. Those whose text is furthest down come first."
        )
        return [ReportSection("Images that were matched wrong", told, tuple(exhibits))]

    def baseline(self, train: np.ndarray, test: np.ndarray, labels: Sequence[str]) -> Baseline:
        """The same vector for everything: all are equally near, so rows are found in their order."""
        import numpy as np

        return Baseline("order of the rows", np.zeros((len(test), 2), np.float32))


def _half(answers: np.ndarray, which: int) -> np.ndarray:
    """The vectors of images (0) or of texts (1), without the numbers behind them."""
    width = (answers.shape[1] - 2) // 2
    return answers[:, which * width : (which + 1) * width]
