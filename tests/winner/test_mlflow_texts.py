"""A winner that writes in MLflow's flavour for transformers: greedy texts are the winner's."""

import json

import mlflow.pyfunc
import mlflow.transformers
import pandas as pd
import pytest

import autopeft as api
from autopeft.common.exceptions import UserInputError
from tests.conftest import DTYPE, trained_winner
from tests.tasks.test_causal_lm import CHATML, FORMS, conversations, model

__all__ = ["model"]

ROWS = conversations(50, seed=4)


def winner_of(folder, model, form, **options):
    rows = [FORMS[form](messages[0]["content"], messages[1]["content"]) for messages in conversations()]
    pd.DataFrame(rows).to_json(folder / "rows.jsonl", orient="records", lines=True)
    told = "".join(f"{name} = {json.dumps(value)}\n" for name, value in options.items())
    (folder / "study.toml").write_text(
        f'[model]\nname_or_path = "{model}"\ndtype = "{DTYPE}"\n[task]\nkind = "causal-lm"\nmax_new_tokens = 8\n{told}'
        '[data]\ntrain = "rows.jsonl"\n'
    )
    return trained_winner(folder / "study.toml", "lora", target_modules="all_linear")


def served(winner, folder):
    """The texts for `ROWS`, through `mlflow.pyfunc`, and the folder that was written."""
    made = mlflow.pyfunc.load_model(str(api.export(winner, folder / "made", "mlflow-transformers")))
    key = "prompt" if winner.inputs == ("prompt",) else "messages"
    asked = [messages[0]["content"] if key == "prompt" else messages[:1] for messages in ROWS]
    answers = made.predict(pd.DataFrame({key: asked}))
    (told,) = {answer["object"] for answer in answers}
    assert told == {"prompt": "text_completion", "messages": "chat.completion"}[key]
    choices = [answer["choices"][0] for answer in answers]
    return [choice["text"] if key == "prompt" else choice["message"]["content"] for choice in choices]


@pytest.mark.parametrize("options", [{"template": CHATML}, {"template": "plain", "system": 'be "w1"\n{{ it }} %}'}])
def test_chats_are_answered_as_by_the_winner(tmp_path, model, options):
    winner = winner_of(tmp_path, model, "messages", **options)
    texts = winner.predict(pd.DataFrame({"messages": [messages[:1] for messages in ROWS]}))
    assert len({*texts}) > 5, "or all could be alike whatever is asked"
    assert served(winner, tmp_path) == [text.lstrip() for text in texts]
    folder = tmp_path / "made"
    assert mlflow.transformers.load_model(str(folder)).model.generation_config.do_sample is False
    assert not {path.suffix for path in folder.rglob("*")} & {".pkl", ".bin", ".pt"}
    assert not (folder / "LICENSE.txt").exists()
    assert "llm/v1/chat" in (folder / "MLmodel").read_text()
    needed = {line.partition("==")[0] for line in (folder / "requirements.txt").read_text().split()}
    assert needed == {"mlflow", "torch", "transformers"}


def test_prompts_are_gone_on_with_as_by_the_winner(tmp_path, model):
    winner = winner_of(tmp_path, model, "prompt")
    texts = winner.predict(pd.DataFrame({"prompt": [messages[0]["content"] for messages in ROWS]}))
    assert served(winner, tmp_path) == [text.lstrip() for text in texts]
    said = json.dumps((tmp_path / "made" / "README.md").read_text())
    assert "mlflow.pyfunc.load_model" in said
    assert "'prompt':" in said


def test_its_readme_asks_it(tmp_path, model, monkeypatch):
    winner = winner_of(tmp_path, model, "question", template=CHATML)
    told = []
    folder = api.export(winner, tmp_path / "made", "mlflow-transformers", say=told.append)
    assert told == ["MLflow drops white space before an answer; the winner itself keeps it."]
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder)
    made = {}
    exec(compile(code, "README.md", "exec"), made)
    (text,) = winner.predict(pd.DataFrame({"question": [winner.reader.cells()[0]]}))
    assert made["answer"]["choices"][0]["message"]["content"] == text.lstrip()


def test_winners_that_mlflow_has_no_task_for_are_refused(tmp_path, tiny_study):
    winner = trained_winner(tiny_study, "lora")
    with pytest.raises(UserInputError, match=r"is for winners that write, and text-classification does not; export"):
        api.export(winner, tmp_path / "made", "mlflow-transformers")
    assert not (tmp_path / "made").exists()
