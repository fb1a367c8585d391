"""Shows methods to a person: one per line, or one with all its settings; and all of them as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autopeft.methods.needed import needed_settings
from autopeft.methods.reference import Described, own_dimensions, training_dimensions, what_it_is
from autopeft.study.schema import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from autopeft.common.plugins import Fault
    from autopeft.methods.contract import PeftMethod
    from autopeft.methods.registry import Registry


def listed(registry: Registry) -> RenderableType:
    """One line for each method, and the plugins that are left out."""
    table = Table("method", "what it is", box=None, pad_edge=False)
    table.add_column("dimensions", justify="right")
    for name, method in registry.methods.items():
        table.add_row(
            name, Text(what_it_is(method), no_wrap=True, overflow="ellipsis"), str(len(method.search_space()))
        )
    more = Text("\nFor all settings of one method, also of its training: autopeft methods NAME", style="dim")
    waiting = [Text(f"\n{told}") for name, method in registry.methods.items() if (told := needs(name, method))]
    return Group(table, *waiting, more, *_broken(registry.faults))


def shown(name: str, registry: Registry) -> RenderableType:
    """All settings of a method."""
    method = registry[name]
    lines = [
        f"{name}: {what_it_is(method)}.",
        f"Paper: {method.paper or 'none given'}",
        f"Plugin: {registry.origins[name]}",
        f"Tasks: {', '.join(method.tasks) or 'every kind'}",
        "",
    ]
    example = next(iter(method.search_space()), "learning_rate")
    own = _settings(method)
    settings: list[RenderableType] = [Text(""), _table(f"in [methods.{name}]", own)] if own else []
    end = f'Set under [search] as "{name}.{example} = …": one value, a range [low, high], or a list of choices.'
    return Group(
        *map(Text, lines),
        _table("dimension", own_dimensions(method)),
        Text(""),
        _table("training", training_dimensions(method)),
        Text(f"\n{end}"),
        Text("A training setting without a method before it, such as learning_rate = 3e-4, applies to all methods."),
        *settings,
    )


def page(registry: Registry) -> str:
    """A Markdown page of all methods with all their settings."""
    lines = [
        "# The methods",
        "",
        "Written by `autopeft methods --markdown`.",
        "",
        "Set a dimension under `[search]` as `lora.r = 8` (one value), `lora.r = [4, 32]` (a range) or a list of "
        "choices. A training setting without a method before it, such as `learning_rate = 3e-4`, applies to all "
        "methods. The ranges on this page are those on a typical model.",
    ]
    for name, method in registry.methods.items():
        lines += ["", f"## {name}", "", f"{what_it_is(method)}."]
        lines += ["", f"{method.paper}."] * bool(method.paper)
        lines += ["", f"For {', '.join(method.tasks)} alone."] * bool(method.tasks)
        lines += ["", "| dimension | takes | default | |", "|---|---|---|---|"]
        lines += [_row(one) for one in (*own_dimensions(method), *training_dimensions(method))]
        if own := _settings(method):
            lines += ["", f"| in `[methods.{name}]` | takes | default | |", "|---|---|---|---|", *map(_row, own)]
            lines += ["", needs(name, method)] * bool(needs(name, method))
    return "\n".join(lines) + "\n"


def needs(name: str, method: PeftMethod) -> str:
    """A sentence on the settings without which a method is not searched; "" if there are none."""
    missing = needed_settings(method)
    if not missing:
        return ""
    given = " and ".join(f"`{key}`" for key in missing)
    return f"{name} is searched only in studies that give {given} in [methods.{name}]."


def _settings(method: PeftMethod) -> list[Described]:
    """A method's settings under [methods.NAME]."""
    return [Described(*row) for row in settings_of(method.Options)] if method.Options else []


def _row(one: Described) -> str:
    cells = (f"`{one.name}`", one.takes.replace("|", "\\|"), one.default, one.note)
    return f"| {' | '.join(cells)} |"


def _table(title: str, rows: Sequence[Described]) -> Table:
    table = Table(title, "takes", "default", "", box=None, pad_edge=False)
    for one in rows:
        table.add_row(one.name, one.takes, one.default, one.note)
    return table


def _broken(faults: Sequence[Fault]) -> list[RenderableType]:
    if not faults:
        return []
    table = Table("plugin", "why it is left out", title="Broken plugins", title_justify="left", show_lines=True)
    for fault in faults:
        table.add_row(Text(str(fault.origin)), Text(fault.reason))
    return [Text(""), table]
