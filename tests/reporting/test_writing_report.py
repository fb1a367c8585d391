"""Scores of what models wrote, and how sure their differences are."""

import numpy as np
import pytest

import autopeft as api
from autopeft.reporting import writing_report
from autopeft.tasks.text_scores.names import text_score

WORDS = [f"word{number}" for number in range(60)]


def sections(rows: int = 60):
    """Of a winner, one who is wrong in every third row, one who writes as the winner does, and copies."""
    true = [" ".join(WORDS[row:] + WORDS[:row]) for row in range(rows)]
    worse = [text if row % 3 else "something else" for row, text in enumerate(true)]
    texts = {"winner: it": true, "untuned worse": worse, "untuned same": true, "base model": ["x"] * rows}
    chosen = {"winner: it": -0.1, "untuned worse": -0.2, "untuned same": -0.1, "base model": -3.0}
    scores = {name: text_score(name) for name in ("exact_match", "bleu")}
    return true, texts, writing_report.sections(true, true, texts, chosen, "neg_loss", scores, {"copied": ["y"] * rows})


def cells(section) -> dict[str, list[list[float]]]:
    """Value, low and high in each column of scores, by the model."""
    found = {}
    for name, *rest in section.table.rows:
        found[name] = [[float(number) for number in cell.strip(")").replace(" (", " ").replace(" to ", " ").split(" ")]
                       for cell in rest if "(" in cell]  # fmt: skip
    return found


def test_scores_are_those_of_the_texts_and_lie_in_their_intervals():
    true, texts, (written, *_) = sections()
    assert [name for name, *_ in written.table.rows] == [*texts, "copied"]
    found = cells(written)
    for name, made in texts.items():
        for score, (value, low, high) in zip(("exact_match", "bleu"), found[name], strict=True):
            assert value == pytest.approx(api.score_text(score, made, [[text] for text in true]), abs=1e-4)
            assert low <= value <= high
    assert found["untuned worse"][0][1] < 0.64 < 0.70 < found["untuned worse"][0][2]
    assert written.table.rows[-1][1] == "–"  # nobody chose by it


def test_the_winner_is_compared_with_every_other_on_the_same_rows():
    *_, (_, compared, _) = sections()
    found = cells(compared)
    assert [*found] == ["untuned worse", "untuned same", "base model", "copied"]
    assert found["untuned same"] == [[0, 0, 0]] * 2
    assert all(low > 0 for _, low, _ in found["untuned worse"])
    assert np.allclose(found["untuned worse"][0][0], 1 / 3, atol=1e-4)
    assert found == cells(sections()[2][1])  # drawn alike in every run
