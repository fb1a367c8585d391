"""Commands on methods: list them, check one, write a new one."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autopeft.cli.options import EPILOG, AsJson, Block, app, find_plugins, print_json
from autopeft.common.console import make_console
from autopeft.common.exceptions import MethodError, brief, nearest

if TYPE_CHECKING:
    from autopeft.methods.registry import Registry
    from autopeft.methods.search_space import SearchSpace
    from autopeft.tasks.contract import Task


@app.command(epilog=f"Example: autopeft methods lora. {EPILOG}")
def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="A method, to see all its settings.")] = None,
    as_json: AsJson = False,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Print which method works on which model type, in Markdown.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page docs/methods.md instead.")] = False,
    block: Block = None,
) -> None:
    """List the installed methods; with NAME, show one: its source, tasks, dimensions and defaults."""
    registry = find_plugins(block, silent=True)
    if matrix:
        from autopeft.testing.matrix import matrix as support

        sys.stdout.write(support(registry.methods))
        return
    from autopeft.reporting import method_view

    if markdown:
        sys.stdout.write(method_view.page(registry))
    elif as_json:
        names = registry.methods if name is None else {name: registry[name]}
        broken = [str(fault) for fault in registry.faults]
        print_json({"methods": [_as_json(one, registry) for one in names], "broken": broken})
    else:
        make_console().print(method_view.listed(registry) if name is None else method_view.shown(name, registry))


def _as_json(name: str, registry: Registry) -> dict[str, Any]:
    from autopeft.methods.reference import own_dimensions, training_dimensions, what_it_is

    method = registry[name]
    defaults = {one.name: one.default for one in (*own_dimensions(method), *training_dimensions(method))}
    return {
        "name": name,
        "what": what_it_is(method),
        "plugin": str(registry.origins[name]),
        "tasks": list(method.tasks) or "every task",
        "paper": method.paper,
        "search_space": _shown(method.search_space()),
        "training_space": _shown(method.training_space()),
        "defaults": defaults,
        "settings": {
            key: field.description or "" for key, field in getattr(method.Options, "model_fields", {}).items()
        },
    }


def _shown(space: SearchSpace) -> dict[str, str]:
    """What each dimension takes."""
    return {key: f"{dimension}{', if the study file sets it' * dimension.optional}" for key, dimension in space.items()}


@app.command(epilog=f"Example: autopeft check lora --family bert. {EPILOG}")
def check(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The method, or the kind of task.", show_default=False)],
    family: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="A model type. Default: all; for a kind of task, one.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print the traceback of each error.")] = False,
    as_json: AsJson = False,
    block: Block = None,
) -> None:
    """Test a method or a kind of task against every rule of its contract. Exit code 2: it breaks a rule."""
    registry = find_plugins(block)
    from autopeft.tasks.registry import find_task, task_kinds

    if name not in registry.methods:
        if name not in task_kinds(registry.blocked):
            raise _unknown(name, registry)
        _check_task(find_task(name, registry.blocked), family, as_json=as_json, verbose=verbose)
        return
    method = registry.methods[name]
    from rich.progress import Progress

    from autopeft import testing
    from autopeft.testing.view import show

    steps = testing.plan(family)
    with Progress(console=make_console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=len(steps))
        findings = testing.check(
            method, family, lambda rule, at: bar.update(task, advance=1, description=f"{rule} {at}".strip())
        )
    broken = [finding for finding in findings if finding.state == testing.FAILED]
    if as_json:
        print_json({"method": name, "findings": [asdict(finding) for finding in findings]})
    else:
        make_console().print(show(name, findings))
        _tell([(str(finding), finding.trace) for finding in broken], verbose)
    if broken:
        raise typer.Exit(2)


def _tell(broken: list[tuple[str, str]], verbose: bool) -> None:
    """Print what broke, each with its traceback where that was asked for."""
    console = make_console()
    for told, trace in broken:
        console.print(f"\n{told}", highlight=False)
        if verbose and trace:
            console.print(trace.rstrip(), highlight=False, soft_wrap=True)
    if any(trace for _, trace in broken) and not verbose:
        console.print("\n--verbose prints the tracebacks.")


def _unknown(name: str, registry: Registry) -> MethodError:
    """The error of a name that is neither a method's nor a kind of task's."""
    from autopeft.tasks.registry import left_out, task_kinds

    broken = next((str(fault) for fault in left_out(registry) if fault.concerns(name)), None)
    known = (*registry.methods, *task_kinds(registry.blocked))
    why = f"its plugin is broken: {broken}" if broken else nearest(name, known)
    return MethodError(
        f'no plugin provides a method or a kind of task "{brief(name)}"; {why} '
        "Install the plugin that brings it, or see `autopeft methods` and `autopeft tasks`."
    )


def _check_task(task: Task, families: list[str] | None, *, as_json: bool, verbose: bool) -> None:
    from autopeft.testing.suite import known
    from autopeft.testing.task_case import families_of
    from autopeft.testing.task_rules import check_task
    from autopeft.testing.view import show_task

    there = families_of(task)
    chosen = known(families or [next(iter(there))], there)
    found = {family: check_task(task, family) for family in chosen}
    broken = [(family, finding) for family, several in found.items() for finding in several if finding.seen]
    if as_json:
        findings = [{"family": family, **asdict(one)} for family, several in found.items() for one in several]
        print_json({"task": task.kind, "findings": findings})
    else:
        make_console().print(show_task(task.kind, found))
        _tell([(f"{family}: {finding}", finding.trace) for family, finding in broken], verbose)
    if broken:
        raise typer.Exit(2)


@app.command(epilog=f"Example: autopeft new-plugin low_rank plugins/low-rank. {EPILOG}")
def new_plugin(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the method, such as low_rank.", show_default=False)
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="The folder to write. Default: autopeft-NAME.", show_default=False),
    ] = None,
    task: Annotated[bool, typer.Option("--task", help="Write a kind of task, not a method.")] = False,
) -> None:
    """Write a plugin to start from: a small working method or kind of task, its tests, and a study."""
    from autopeft.cli import new_plugin as plugin

    folder = folder or Path(f"autopeft-{name.replace('_', '-')}")
    console = make_console()
    for path in plugin.write(name, folder, find_plugins(None), task=task):
        console.print(str(path), highlight=False, soft_wrap=True)
    called = name.replace("_", "-") if task else name
    console.print(
        f'Next: pip install -e "{folder}[dev]", then autopeft check {called} and autopeft run {folder}/study.toml',
        soft_wrap=True,
    )
