"""Code stays in pieces that fit in a head: short functions, short signatures, short files."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("autopeft", "plugins", "tools") for path in (ROOT / folder).rglob("*.py"))
FUNCTION_LINES, PARAMETERS, FILE_LINES = 60, 8, 400

LONG = {
    ("tuning.py", "tune"): "its docstring explains the whole call, and has half of the lines",
}
MANY = {
    ("tuning.py", "tune"): "a study file's tables, each a keyword",
    ("estimator.py", "AutoPeft.__init__"): "scikit-learn wants every setting named in the signature",
    ("budget/cost_estimator.py", "CostEstimator.__init__"): "all that a trial's cost depends on",
    ("cli/writing_commands.py", "generate"): "each an option of the command line",
    ("cli/init_command.py", "init"): "each an option of the command line",
    ("cli/predict_command.py", "predict"): "each an option of the command line",
    ("cli/study_commands.py", "plan"): "each an option of the command line",
    ("cli/study_commands.py", "run"): "each an option of the command line",
}
"""Exceptions, each with its reason."""


def functions(path: Path) -> dict[tuple[str, str], ast.FunctionDef | ast.AsyncFunctionDef]:
    """A file's functions, by file and qualified name."""
    top = ROOT / path.relative_to(ROOT).parts[0]
    found = {}

    def walk(node: ast.AST, names: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            within = (*names, child.name) if named else names
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                found[path.relative_to(top).as_posix(), ".".join(within)] = child
            walk(child, within)

    walk(ast.parse(path.read_text(encoding="utf-8")), ())
    return found


@pytest.fixture(scope="module")
def everything() -> dict[tuple[str, str], ast.FunctionDef | ast.AsyncFunctionDef]:
    return {where: function for path in FILES for where, function in functions(path).items()}


def test_no_function_is_long_but_for_those_with_a_reason(everything):
    long = {where for where, node in everything.items() if node.end_lineno - node.lineno + 1 > FUNCTION_LINES}
    assert long == set(LONG)


def test_no_signature_is_long_but_for_those_with_a_reason(everything):
    def own(arguments: ast.arguments) -> list[str]:
        given = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        return [parameter.arg for parameter in given if parameter.arg not in ("self", "cls")]

    many = {where for where, node in everything.items() if len(own(node.args)) > PARAMETERS}
    assert many == set(MANY)


def test_no_file_is_long():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {str(path): count for path, count in lines.items() if count > FILE_LINES} == {}
