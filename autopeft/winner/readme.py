"""The README of a winner's folder, also the model card on the Hugging Face hub: facts, and how to load it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from autopeft.budget.limits import LIMITS, SECONDS
from autopeft.common.exceptions import printable
from autopeft.common.files import whole
from autopeft.common.locate import HUB_ID, PACKAGE
from autopeft.common.truncation import KEPT
from autopeft.common.units import counted
from autopeft.study.card import Card, Evidence
from autopeft.tasks.contract import Task
from autopeft.tasks.writing import Writing
from autopeft.winner.task import task_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


README = "README.md"

OWN = """\
import autopeft
import pandas as pd

winner = autopeft.load(".")  # this folder
winner.{predict}(pd.DataFrame({rows})){columns}
"""


class Usage(NamedTuple):
    """Parts of the Python code that loads a processor: lines before it, its name, its arguments, cells of a row."""

    imports: str
    name: str
    arguments: str
    cells: list[str]


USAGE = {
    "AutoTokenizer": Usage("", "tokenizer", "{texts}, padding=True, truncation=True", ["a text", "another one"]),
    "AutoImageProcessor": Usage(
        "from PIL import Image\n",
        "processor",
        '[Image.open(path).convert("RGB") for path in ("one.png", "another.png")]',
        ["one.png", "another.png"],
    ),
    "AutoProcessor": Usage(
        "from PIL import Image\n",
        "processor",
        'text=["a text", "another one"], images=[Image.open(path).convert("RGB") for path in ("one.png", '
        '"another.png")], padding=True, truncation=True',
        ["one.png", "another.png"],
    ),
}
"""By the processor's class."""

NAMED = "model.config.id2label names the columns"

LIBRARIES = {"merged": "transformers", "adapterhub": "adapters", "onnx": "onnx", "peft": "peft", "serving": "peft"}
"""The hub's name for a library, by its format."""


def write(folder: Path, card: Card, evidence: Evidence | None, load: str = OWN, form: str = "autopeft") -> None:
    """Write `README.md`.

    Args:
        folder: to write to.
        card: of the winner.
        evidence: of its study, where known.
        load: Python code that loads the folder. `{base}` stands for lines that name the base model, `{labels}` for the
            labels as a list, `{reader}` and `{arguments}` for the processor and its arguments, `{rows}` for the columns
            of a frame.
        form: the format of the folder.
    """
    task = task_of(card)
    code = _filled(load, task, card, form)
    lines = [
        *_metadata(card, evidence, form, task.pipeline_tag),
        *_title(card, form),
        "## Use",
        "",
        f"```python\n{code}```",
        "",
        *_about(card, evidence),
    ]
    with whole(folder / README) as draft:
        draft.write_text("\n".join(lines), encoding="utf-8")


def description(folder: Path) -> str:
    """What the README of a winner's folder says of the model, without how to load the folder."""
    card = Card.read(folder)
    return "\n".join([*_title(card, "autopeft"), *_about(card, Evidence.read(folder))])


def _title(card: Card, form: str) -> list[str]:
    return [
        f"# {card.method} for {card.task}",
        "",
        f"The winner of autopeft's search over parameter-efficient fine-tuning methods, in the format `{form}`.",
        "",
    ]


def _about(card: Card, evidence: Evidence | None) -> list[str]:
    """The model, and how well it scores."""
    params = {**card.params, **(evidence.hyperparameters if evidence else {})}
    return [
        "## Model",
        "",
        "| | |",
        "|---|---|",
        f"| base model | {_name(card.base_model)} |",
        f"| method | {card.method} (from {card.plugin or 'a plugin'}) |",
        *(f"| {name} | {value} |" for name, value in params.items()),
        *([f"| labels | {', '.join(map(_in_cell, card.labels))} |"] if card.labels else []),
        *([f"| longest input | {card.max_length} tokens{_of_longer(card)} |"] if card.max_length else []),
        *(
            [f"| add-ons dropped | of the lowest {counted(card.dropped_layers, 'layer')} |"]
            if card.dropped_layers
            else []
        ),
        *([f"| quantization | {card.quantization} |"] if card.quantization != "none" else []),
        "",
        *(
            _results(evidence, card.members)
            if evidence
            else ["How well it scores is not known, because its study's record is missing.", ""]
        ),
    ]


def _in_cell(text: str) -> str:
    """A text in a cell of a table, which a line break or a bar would end."""
    return printable(text, keep="").replace("|", "\\|")


def _filled(load: str, task: Task, card: Card, form: str) -> str:
    """Python code that loads the folder, with the placeholders filled in."""
    reading, usage = task.reading(card.labels), USAGE[task.processor]
    sample = task.sample(usage.cells)
    code = ""
    if isinstance(task, Writing) and "inputs = " in load:
        load, code = load[: load.index("inputs = ")] + "{code}", task.code(sample)
    by_hand = task.by_hand(sample, form)
    texts = by_hand.texts if by_hand else _texts(task, sample, usage.cells)
    then = f"\n{by_hand.then}  # {reading}" if by_hand else ""
    values = {
        "{code}": code,
        "{imports}": usage.imports,
        "{reader}": usage.name,
        "AutoTokenizer": task.processor,
        "{base}": base(card),
        "{config}": _config(task, card),
        "{predict}": "predict_proba" if card.labels else "predict",
        "{arranging}": f"{task.arranging}\n" if task.arranging else "",
        "{then}": then,
        "{columns}": f"  # {reading}" if reading else "",
        "{named}": "" if by_hand else f"  # {_named(task, card)}",
        "AutoModelForSequenceClassification": task.auto_class,
        "{labels}": json.dumps(list(card.labels), ensure_ascii=False),
        "{texts}": ", ".join(json.dumps(column, ensure_ascii=False) for column in texts),
        "{rows}": json.dumps(sample),
        "logits = model(**inputs).logits": _taken(task.outputs),
        "(logits,) =": f"({', '.join(task.outputs)},) =",
    }
    load = load if values["{config}"] else load.replace("    {config}\n", "")
    load = load.replace("{arguments}", usage.arguments + (by_hand.arguments if by_hand else ""))
    # All at once: what is filled in, such as a label, may look like a placeholder.
    code = re.sub("|".join(map(re.escape, values)), lambda found: values[found.group()], load)
    if not card.labels:
        code = code.replace("labels = []\n", "")
    if task.processor != "AutoTokenizer":  # nothing is padded
        code = code.replace(f"    pad_token_id={usage.name}.pad_token_id,\n", "")
    return code


def _named(task: Task, card: Card) -> str:
    """How to read the logits of a model that names its columns itself."""
    reading = task.reading(card.labels)
    return reading.replace(Task.reading(task, card.labels), NAMED) if card.labels else reading


def _texts(task: Task, sample: Mapping[str, list[Any]], usual: list[str]) -> list[list[Any]]:
    """The processor's arguments for the rows shown, a list for each text of a row."""
    cells = [*sample.values()]
    plain = len(cells) == task.texts and all(isinstance(cell, str) for column in cells for cell in column)
    return cells if plain else [usual] * task.texts


def _taken(outputs: Sequence[str]) -> str:
    """Python code that runs the model and takes the outputs that answers are made from."""
    if len(outputs) == 1:
        return f"{outputs[0]} = model(**inputs).{outputs[0]}"
    return f"outputs = model(**inputs)\n{', '.join(outputs)} = {', '.join(f'outputs.{name}' for name in outputs)}"


def base(card: Card) -> str:
    """Python code that names the base model."""
    if card.base_model.startswith(PACKAGE):
        package, _, inner = card.base_model.removeprefix(PACKAGE).partition("/")
        return f'from importlib.resources import files\n\nbase = str(files("{package}") / "{inner}")'
    if HUB_ID.match(card.base_model):
        return f'base = "{card.base_model}"'
    return f'base = "{Path(card.base_model).name}"  # the path of the base model\'s folder'


def _config(task: Task, card: Card) -> str:
    """Arguments with which transformers makes the model that the add-on was trained on."""
    if card.labels:
        return "id2label=dict(enumerate(labels)),\n    label2id={label: index for index, label in enumerate(labels)},"
    return "\n    ".join(f"{name}={value!r}," for name, value in task.config(card.labels).items())


def _results(evidence: Evidence, members: int) -> list[str]:
    metric = evidence.metric
    folds = evidence.fold_scores
    interval = ""
    if evidence.test_interval:
        interval = " (95% interval {:.4f} to {:.4f})".format(*evidence.test_interval)
    limits = ", ".join(f"{name} = {_limit(name, limit)}" for name, limit in evidence.budget.items()) or "none"
    others = [
        f"| untuned default of {name} | {'not trained' if score is None else f'{score:.4f}'} |"
        for name, score in evidence.defaults.items()
    ] + [
        f"| {name} | {'not trained' if score is None else f'{score:.4f}'} |"
        for name, score in evidence.references.items()
    ]
    mean = sum(folds) / len(folds)
    every = counted(evidence.train_rows, "training row")
    made = f"It was then trained on all {every}."
    if members:
        made = f"It answers with the mean of {members} fold models, each of which was trained on a part of the {every}."
    elif evidence.form == "average":
        made = f"It is the mean of its fold models, each of which was trained on a part of the {every}."
    if evidence.chosen_by:
        made = f"Among the best by that, {evidence.chosen_by} of the texts that their folds wrote decided. {made}"
    if evidence.race:
        made = f"A race of the best on fresh folds then decided. {evidence.race} {made}"
    return [
        "## Results",
        "",
        f"| on {counted(evidence.test_rows, 'held-out row')} | {metric} |",
        "|---|---|",
        f"| **this model** | **{evidence.test_score:.4f}**{interval} |",
        *others,
        f"| {evidence.baseline_name} | {evidence.baseline:.4f} |",
        "",
        f"This model won a search of {counted(evidence.trials, 'trial')}. Its mean {metric} in cross-validation is "
        f"{mean:.4f} (folds from {min(folds):.4f} to {max(folds):.4f}). {made}"
        + f" Note on its training: {evidence.refit}." * bool(evidence.refit)
        + " The held-out rows were scored once, at the end."
        + f" The search was {evidence.stopped}." * bool(evidence.stopped),
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        f"| data | {evidence.data}{_left_out(evidence.dropped_rows)} |",
        f"| trained parameters | {evidence.trained_params:,} |",
        f"| budget | {limits} |",
        f"| study | {evidence.study} |",
        "",
    ]


def _left_out(rows: int) -> str:
    return f"; {counted(rows, 'row')} with an empty cell left out" if rows else ""


def _metadata(card: Card, evidence: Evidence | None, form: str, tag: str) -> list[str]:
    """The YAML that the hub reads, made by its own library, so that mistakes show here."""
    from huggingface_hub import EvalResult, ModelCardData

    data = ModelCardData(
        base_model=card.base_model if HUB_ID.match(card.base_model) else None,
        library_name=LIBRARIES.get(form, "autopeft"),
        pipeline_tag=tag,
        tags=["autopeft", card.method],
        model_name=card.method,
        eval_results=[
            EvalResult(
                task_type=tag,
                dataset_type=re.sub(r"[^\w./-]", "_", evidence.data),
                dataset_name=f"{evidence.data}, {counted(evidence.test_rows, 'held-out row')}",
                metric_type=evidence.metric,
                metric_value=round(evidence.test_score, 4),
            )
        ]
        if evidence
        else None,
    )
    return ["---", data.to_yaml().rstrip(), "---", ""]


def _of_longer(card: Card) -> str:
    return f"; a longer one is cut down to {KEPT[card.truncation]}" if card.truncation else ""


def _name(reference: str) -> str:
    """A reference that can be shown to anyone: of a local path only the last part."""
    shown = reference.startswith(PACKAGE) or HUB_ID.match(reference)
    return reference if shown else f"a local folder, {Path(reference).name}"


def _limit(name: str, value: float) -> str:
    limit = LIMITS.get(name)
    if limit is None or limit is SECONDS:  # a limit of another version, and one that is written in plain seconds
        return f"{value:,}"
    return limit.given(value)
