"""Do exported adapters compute in the `adapters` library what they compute here?

That library pins transformers 4, so it gets a virtual environment of its own: this script makes one with --venv, or
uses the Python given with --python. It exports a tiny BERT, RoBERTa and ELECTRA with adapters in each placement, and
with fusions of adapters, loads them there and compares the logits.

    python benchmarks/adapterhub.py --venv /tmp/adapters
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np

PACKAGES = ("adapters==1.3.0", "torch==2.13.0")
TOLERANCE = 1e-4

THERE = """
import json, sys
import adapters, torch, transformers

report = {}
for case in json.load(open("cases.json")):
    options = {"num_labels": case["labels"], "pad_token_id": 1}
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(case["base"], **options)
    adapters.init(plain)
    if case["fusion"]:
        plain.load_adapter_setup(case["export"], set_active=True, use_safetensors=True)
    else:
        plain.set_active_adapters(plain.load_adapter(case["export"], use_safetensors=True))
    rows = {name: torch.tensor(values) for name, values in case["rows"].items()}
    with torch.no_grad():
        logits = plain.eval()(**rows).logits
        plain.set_active_adapters(None)
        without = plain(**rows).logits
    report[case["name"]] = {"logits": logits.tolist(), "effect": (logits - without).abs().max().item()}
json.dump({"cases": report, "versions": [adapters.__version__, transformers.__version__]}, open("there.json", "w"))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--python", type=Path, help="of an environment that has the adapters library")
    parser.add_argument("--venv", type=Path, help="where to make one")
    arguments = parser.parse_args()
    if not (arguments.python or arguments.venv):
        parser.error("give --python or --venv")
    python = arguments.python or made(arguments.venv)
    with tempfile.TemporaryDirectory() as folder:
        expected = export(Path(folder))
        subprocess.run([python, "-c", THERE], cwd=folder, check=True)
        there = json.loads((Path(folder) / "there.json").read_text())
    print("adapters {}, transformers {}".format(*there["versions"]))
    failed = False
    for name, logits in expected.items():
        found = there["cases"][name]
        difference = float(np.abs(np.array(logits) - np.array(found["logits"])).max())
        failed |= difference > TOLERANCE or found["effect"] < 100 * TOLERANCE
        print(f"{name:32} differs by {difference:.1e} at most; the adapters themselves change {found['effect']:.1e}")
    sys.exit(failed)


def made(folder: Path) -> Path:
    """The Python of a fresh environment with the adapters library."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


FUSIONS = (
    {"sources": "all", "values": "dynamic", "dropout": 0.1, "layers": "all"},
    {"sources": "all", "values": "static", "dropout": 0.0, "layers": "top_half"},
    {"sources": "without_second", "values": "dynamic", "dropout": 0.0, "layers": "every_second"},
)
"""Fusions of the sources of `Fusion.example`, one of which is only in the upper layers."""


def adapters() -> list[dict[str, object]]:
    """Adapters in each placement, with various layers and non-linearities."""
    return [
        {"placement": placement, "reduction_factor": 4, "non_linearity": non_linearity, "layers": layers}
        for placement in ("houlsby", "pfeiffer", "parallel")
        for layers, non_linearity in (("all", "relu"), ("top_half", "gelu"), ("every_second", "silu"))
    ]


def export(folder: Path) -> dict[str, list[list[float]]]:
    """Write what the other side needs to `folder`; returns the logits here by the name of the case."""
    import torch
    from autopeft_adapter import Adapter
    from autopeft_fusion import Fusion

    from autopeft.models.attach import attach, trainable
    from autopeft.testing.tiny import batch, tiny_base

    cases: list[dict[str, object]] = []
    expected = {}
    rows = {name: tensor for name, tensor in batch(5, 14).items() if name != "labels"}
    for family in ("bert", "roberta", "electra"):
        base = tiny_base(family)
        base.module.save_pretrained(folder / family)
        tried = [(Adapter(), params) for params in adapters()] + [(Fusion().example(), params) for params in FUSIONS]
        for method, params in tried:
            name = f"{family} {method.name} {' '.join(map(str, params.values()))}"
            model = attach(base, method, params).eval()
            torch.manual_seed(0)
            with torch.no_grad():
                for parameter in trainable(model).values():
                    parameter += 0.1 * torch.randn_like(parameter)
                expected[name] = model(**rows).logits.tolist()
            target = folder / name.replace(" ", "-")
            target.mkdir()
            answer = method.export(model, params, base.spec, "adapterhub", target)
            assert answer, answer.reason
            lists = {key: tensor.tolist() for key, tensor in rows.items()}
            case = {"name": name, "base": family, "export": target.name, "labels": 3, "rows": lists}
            cases.append({**case, "fusion": method.name == "fusion"})
    (folder / "cases.json").write_text(json.dumps(cases))
    return expected


if __name__ == "__main__":
    main()
