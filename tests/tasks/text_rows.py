"""Written texts with their references, to score."""

import json

import numpy as np

import autopeft as api

OWN = [*api.text_scores()]
"""Scores with a name of their own."""

ALL = [*OWN, r"matches:(?s).*\b42\b.*"]

SCRIPTS = [
    "Добрый день, как дела?", "東京は大きい都市です。", "ราคาเท่าไหร่ครับ", "안녕하세요 여러분", "مرحبا بالعالم",
    "हिन्दी में लिखो", "Οὐχὶ ταὐτὰ παρίσταταί μοι", "Die Größe überprüfen", "café", "x² ≤ ½",
]  # fmt: skip


def rows(count: int, words: int = 8, seed: int = 0) -> tuple[list[str], list[list[str]]]:
    """Answers that are partly right, with one to three references each; also numbers, and JSON in some."""
    generator = np.random.default_rng(seed)
    known = ["running", "runs", "cities", "city", "the", "a", "to", "in", "Größe", "привет", "東京", "well-known", "42"]
    answers, references = [], []
    for row in range(count):
        if row % 4 == 0:
            value = {"name": str(generator.choice(known)), "count": int(generator.integers(0, 3))}
            answers.append(json.dumps(value) if row % 8 else f"```json\n{json.dumps(value)}\n```")
            references.append([json.dumps({"count": count, "name": value["name"]}) for count in range(2)])
            continue
        text = [*generator.choice(known, words), "." if row % 3 else "\n", *generator.choice(known, 3), str(row % 5)]
        changed = [word if generator.random() < 0.8 else str(generator.choice(known)) for word in text]
        answers.append(" ".join(text if row % 7 == 1 else changed))
        few = 1 + row % 3
        references.append([" ".join(text), " ".join(text[:5]) + " 3", " ".join(changed[::-1])][:few])
    return answers, references
