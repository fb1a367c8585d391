"""Gather the pages of the documentation's site in one folder, for MkDocs to build: `make docs`.

Those of docs/, notebooks among them, the README and its kin, a reference from docstrings, and the kinds of task. Links
between files of the repository become links between pages, so that every page reads well in both places.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

MOVED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "docs/README.md": "finished-study.md",
    "docs": "finished-study.md",
    "studies/README.md": "studies.md",
    "studies/quickstart.toml": "studies/quickstart.toml",
    "benchmarks/bank/README.md": "bank.md",
}
"""Files of the repository → where the site has them. Those in docs/ keep their names."""

REFERENCE: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "python": (
        "Studies and winners",
        "What a script or a notebook calls; [From Python](../api.md) shows it in use.",
        (
            "autopeft.tune", "autopeft.Tuned", "autopeft.load", "autopeft.Winner", "autopeft.Shelf",
            "autopeft.export", "autopeft.TrialRecord", "autopeft.TrialCallback", "autopeft.AutoPeftClassifier",
            "autopeft.AutoPeftRegressor", "autopeft.AutopeftError", "autopeft.SpecError", "autopeft.DataError",
            "autopeft.ModelError", "autopeft.StudyError",
        ),
    ),
    "methods": (
        "The contract of a method",
        "What a plugin with a method imports; [Write a plugin](../plugins.md) begins with an example.",
        (
            "autopeft.CONTRACT", "autopeft.hookimpl", "autopeft.PeftMethod", "autopeft.Support", "autopeft.ModelSpec",
            "autopeft.LinearModule", "autopeft.OutputHead", "autopeft.layer_groups", "autopeft.TargetGroups",
            "autopeft.SearchSpace", "autopeft.Integer", "autopeft.Float", "autopeft.Categorical", "autopeft.Bounds",
            "autopeft.Params", "autopeft.ParamValue", "autopeft.ParameterGroup", "autopeft.TrainingRows",
            "autopeft.TrainingCallback", "autopeft.mean_of", "autopeft.original_weight", "autopeft.SavedAddOn",
            "autopeft.saved_addons",
        ),
    ),
    "tasks": (
        "The contract of a kind of task",
        "What a plugin with a kind of task imports; [Write a plugin](../plugins.md#a-kind-of-task) begins with an "
        "example.",
        (
            "autopeft.Task", "autopeft.Baseline", "autopeft.Column", "autopeft.Section", "autopeft.Metric",
            "autopeft.ColumnProfile", "autopeft.TableProfile", "autopeft.Fit",
            "autopeft.Classification", "autopeft.ClassOptions", "autopeft.MultiLabel", "autopeft.Regression",
            "autopeft.Writing", "autopeft.WritingOptions", "autopeft.WritingLimits", "autopeft.Encoded",
            "autopeft.Field", "autopeft.token_fields", "autopeft.RowTokenizer", "autopeft.Template", "autopeft.ByHand",
            "autopeft.decoder_start", "autopeft.TextScore", "autopeft.text_scores", "autopeft.text_score",
            "autopeft.score_text", "autopeft.metric_of", "autopeft.written_texts", "autopeft.CellError",
            "autopeft.as_text", "autopeft.nearest", "autopeft.quoted", "autopeft.ReportSection",
            "autopeft.ReportTable", "autopeft.ReportPlot", "autopeft.Exhibit",
        ),
    ),
    "backends": (
        "The contract of a backend",
        "What a plugin with a backend imports; [Write a plugin](../plugins.md#a-backend) begins with an example.",
        (
            "autopeft.BackendFactory", "autopeft.Backend", "autopeft.StudyWork", "autopeft.TrialWorker",
            "autopeft.TrialHandle",
        ),
    ),
    "testing": (
        "Tests of a plugin",
        "`autopeft check NAME` runs the same rules; these are for tests of one's own.",
        (
            "autopeft.testing.check", "autopeft.testing.check_task", "autopeft.testing.MethodTests",
            "autopeft.testing.plan", "autopeft.testing.Finding", "autopeft.testing.TaskFinding",
            "autopeft.testing.Rule", "autopeft.testing.RULES", "autopeft.testing.FAMILIES",
            "autopeft.testing.ALL_FAMILIES",
        ),
    ),
}  # fmt: skip
"""Pages of the reference: title, what they are for, and the names they describe."""

NOTEBOOK = ".ipynb"

LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")
"""A link of Markdown to a file, with or without an anchor."""


def gather(folder: Path) -> None:
    """Write all pages anew, and the pictures and scripts beside them.

    Args:
        folder: of the pages; it is ours, and emptied first.
    """
    shutil.rmtree(folder, ignore_errors=True)
    docs = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "docs").rglob("*") if path.is_file()}
    for source in {**docs, **{name: ROOT / name for name in MOVED if (ROOT / name).is_file()}}:
        target = folder / placed(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            text = (ROOT / source).read_text(encoding="utf-8")
            text = page_of(json.loads(text)) if source.endswith(NOTEBOOK) else text
            target.write_text(relinked(text, source, placed(source)), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    (folder / "reference").mkdir()
    for name, (title, use, names) in REFERENCE.items():
        entries = "\n\n".join(f"::: {entry}" for entry in names)
        (folder / "reference" / f"{name}.md").write_text(f"# {title}\n\n{use}\n\n{entries}\n", encoding="utf-8")
    (folder / "tasks.md").write_text(kinds_of_task(), encoding="utf-8")


def placed(source: str) -> str:
    """Where the site has a file of the repository; a notebook is a page."""
    return MOVED.get(source) or re.sub(rf"{re.escape(NOTEBOOK)}$", ".md", source.removeprefix("docs/"))


def page_of(notebook: dict[str, Any]) -> str:
    """The texts and the code of a notebook, whose outputs are not kept."""
    fences = {"markdown": ("", ""), "code": ("```python\n", "\n```")}
    cells = [(fences[cell["cell_type"]], "".join(cell["source"])) for cell in notebook["cells"]]
    return "\n\n".join(before + source + after for (before, after), source in cells) + "\n"


def relinked(markdown: str, source: str, target: str) -> str:
    """Links of the file `source` of the repository, as they must be on the page `target`."""

    def link(found: re.Match[str]) -> str:
        before, path, anchor, after = found.groups()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        there = posixpath.relpath(placed(place), posixpath.dirname(target) or ".")
        return f"{before}{there}{anchor or ''}{after}"

    return LINK.sub(link, markdown)


def kinds_of_task() -> str:
    """A page of what `autopeft tasks` finds."""
    command = [sys.executable, "-m", "autopeft", "tasks", "--json"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    kinds = [kind for kind in json.loads(told.stdout)["tasks"] if kind["plugin"].startswith("autopeft ")]
    head = (
        "# Kinds of task\n\nWhat `kind` in `[task]` may be. [Recipes](recipes.md) has a study file for each; `autopeft "
        "tasks` also lists those of plugins that you installed. A column marked *taught* is what is learnt.\n"
    )
    return head + "".join(map(described, kinds))


def described(kind: dict[str, Any]) -> str:
    """A kind of task as a section of the page."""
    columns = [
        f"- column `{name}`: {holds.replace(', taught', ', *taught*')}" for name, holds in kind["columns"].items()
    ]
    options = [f"| `{name}` | {' '.join(says.split())} |" for name, says in kind["options"].items()]
    table = ["", "| setting | says |", "|---|---|", *options] if options else []
    metrics = ", ".join(f"`{name}`" for name in kind["metrics"])
    lines = [
        "", f"## {kind['kind']}", "", *columns, f"- model: `{kind['model_class']}`",
        f"- metrics, the default first: {metrics}", *table, "",
    ]  # fmt: skip
    return "\n".join(lines)


if __name__ == "__main__":
    gather(Path(sys.argv[1]))
