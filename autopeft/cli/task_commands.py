"""Commands on kinds of task: list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.cli.options import EPILOG, AsJson, Block, app, print_json
from autopeft.common.console import make_console

if TYPE_CHECKING:
    from autopeft.tasks.column import Column


@app.command(epilog=f"Example: autopeft tasks --json. {EPILOG}")
def tasks(as_json: AsJson = False, block: Block = None) -> None:
    """List the kinds of task that were found: their columns, metrics, settings and model class."""
    from autopeft.tasks.registry import discover

    found = discover(tuple(block or ()))
    rows = [
        {
            "kind": kind,
            "plugin": str(found.origins[kind]),
            "columns": {column.key: ", ".join(_said(column)) for column in task.columns},
            "metrics": list(task.metrics),
            "options": {name: str(field.description or "") for name, field in type(task).Options.model_fields.items()},
            "model_class": " or ".join(task.auto_classes),
        }
        for kind, task in found.items.items()
    ]
    if as_json:
        print_json({"tasks": rows, "broken": [str(fault) for fault in found.faults]})
        return
    from rich.table import Table

    console = make_console()
    table = Table("kind", "plugin", "columns", "metrics, the default first", "settings", "model class", show_lines=True)
    for kind, task in found.items.items():
        columns = "\n".join(f"{column.key}: {', '.join(_said(column))}" for column in task.columns)
        classes = " or ".join(task.auto_classes)
        options = "\n".join(type(task).Options.model_fields) or "–"
        table.add_row(kind, str(found.origins[kind]), columns, ", ".join(task.metrics), options, classes)
    console.print(table)
    for fault in found.faults:
        console.print(f"A plugin is left out. {fault}", style="yellow", soft_wrap=True)


def _said(column: Column) -> list[str]:
    """What a column holds, and whether it is needed."""
    return [column.holds, *["optional"] * column.optional, *["taught"] * (not column.given)]
