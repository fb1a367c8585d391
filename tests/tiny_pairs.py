"""A tiny model with a tower for images and one for texts, and pairs for it to learn."""

import numpy as np
import pandas as pd
import torch
from PIL import Image

from autopeft.testing.tiny import PAIR_FAMILIES, SIDE

COLOURS = {"red": (200, 0, 0), "green": (0, 160, 0), "blue": (0, 0, 200), "white": (200,) * 3, "black": (10,) * 3}
PLACES = ("above", "below", "left", "right")
WORDS = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *COLOURS, *PLACES, "on", "dark", "and"]


def save_tiny(folder):
    """Random towers with projections, their image processor and their tokenizer, as transformers saves them."""
    import transformers

    options = {**PAIR_FAMILIES["vision-text-dual-encoder"]}
    options["text_config"] = {**options["text_config"], "vocab_size": len(WORDS), "pad_token_id": 1}
    config = transformers.AutoConfig.for_model("vision-text-dual-encoder", **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.VisionTextDualEncoderModel(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= 3
    model.save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(vocab=str(vocabulary), model_max_length=32)
    images = transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    transformers.VisionTextDualEncoderProcessor(images, tokenizer).save_pretrained(folder)


def save_pairs(folder, each=4):
    """Pictures of one half in a colour and the other nearly black, and a table `pairs.csv` of them with their texts."""
    generator, rows = np.random.default_rng(0), []
    (folder / "pictures").mkdir(parents=True)
    for colour, values in COLOURS.items():
        for place in PLACES:
            for number in range(each):
                pixels = generator.integers(0, 30, (20, 20, 3))
                half = {"above": np.s_[:10], "below": np.s_[10:], "left": np.s_[:, :10], "right": np.s_[:, 10:]}[place]
                pixels[half] += np.array(values)
                name = f"pictures/{colour}-{place}-{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                rows.append({"image": name, "text": f"{colour} {place} on dark"})
    pd.DataFrame(rows).to_csv(folder / "pairs.csv", index=False)
