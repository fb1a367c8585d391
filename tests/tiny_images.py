"""A tiny model that reads images, and images for it to learn."""

import numpy as np
import torch
from PIL import Image

from autopeft.testing.tiny import IMAGE_FAMILIES, SIDE, SIZES

COLOURS = ("blue", "green", "red")


def save_tiny(folder, family="dinov2"):
    """A tiny model that reads images, with its image processor."""
    import transformers

    config = transformers.AutoConfig.for_model(family, **{**SIZES, **IMAGE_FAMILIES[family]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)


def save_pictures(folder, each=20):
    """Noise in which one colour is stronger, in a sub-folder for each."""
    generator = np.random.default_rng(0)
    for colour, channel in zip(COLOURS, (2, 1, 0), strict=True):
        (folder / colour).mkdir(parents=True)
        for number in range(each):
            noise = generator.integers(0, 120, (20, 24, 3), np.uint8)
            noise[..., channel] += np.uint8(generator.integers(60, 100))
            Image.fromarray(noise).save(folder / colour / f"{number}.png")
