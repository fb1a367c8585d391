"""Commands on kinds of task: list them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autopeft.cli.options import EPILOG, AsJson, Block, app, print_json
from autopeft.common.console import make_console

if TYPE_CHECKING:
    from autopeft.tasks.column import Column


@app.command(epilog=f"Example: autopeft tasks --json. {EPILOG}")
def tasks(as_json: AsJson = False, block: Block = None) -> None:
    """List the installed kinds of task: their columns, metrics, settings and model class."""
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
    from rich.text import Text

    console = make_console()
    for kind, task in found.items.items():
        facts = Table.grid(padding=(0, 2, 0, 0))
        for name, said in (
            ("columns", "\n".join(f"{column.key}: {', '.join(_said(column))}" for column in task.columns)),
            ("metrics", f"{', '.join(task.metrics)} (the first one is the default)"),
            ("settings", ", ".join(type(task).Options.model_fields) or "none"),
            ("model", " or ".join(task.auto_classes)),
            ("plugin", str(found.origins[kind])),
        ):
            facts.add_row(f"  {name}", Text(said, overflow="fold"))
        console.print(Text(kind, "bold"))
        console.print(facts)
        console.print()
    for fault in found.faults:
        console.print(f"A plugin is left out. {fault}", style="yellow", soft_wrap=True)


def _said(column: Column) -> list[str]:
    """What a column holds, and whether it is needed."""
    return [column.holds, *["optional"] * column.optional, *["taught"] * (not column.given)]
