"""The settings of a study file as JSON Schema and as a page to read, both made from the code that checks them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from autopeft.study.file import StudySpec
from autopeft.study.sections import GATHERED, NO_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}


def json_schema(dimensions: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a study file, for editors to complete and check it.

    Args:
        dimensions: of [search], by name, as JSON Schema.
    """
    schema = StudySpec.model_json_schema(mode="validation")
    gathering = ("SearchSection", "TaskSection", "MethodsSection", "DataSection", "NamedTask")
    open_ended = [schema["$defs"][name] for name in gathering]
    for section in open_ended:
        section["additionalProperties"] = True  # dimensions, settings and columns that only plugins know
    for name in NO_SETTINGS:
        schema["properties"].pop(name, None)
    for section, gathered in zip(open_ended, (*GATHERED.values(), GATHERED["task"]), strict=True):
        for name in gathered:
            section["properties"].pop(name)
    schema["$defs"]["SearchSection"]["properties"] |= dimensions or {}
    schema["required"] = ["model"]  # the default of `name` is the file's name
    schema["oneOf"] = [{"required": ["task", "data"]}, {"required": ["tasks"]}]
    for name, text in {"name": "the file's", "output": "outputs/<name>"}.items():
        schema["properties"][name]["default"] = text
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "autopeft study"}


def reference(dimensions: Mapping[str, Any] | None = None) -> str:
    """The same as a Markdown page: a table for every section."""
    schema = json_schema(dimensions)
    lines = [
        "# The study file",
        "",
        "Written by `autopeft schema --markdown`.",
        "",
        schema["description"].partition("\n")[0],
        "",
    ]
    top = {name: rule for name, rule in schema["properties"].items() if "$ref" not in rule}
    lines += _table(top, schema["required"])
    for name, rule in schema["properties"].items():
        if "$ref" in rule:
            section = schema["$defs"][rule["$ref"].rpartition("/")[2]]
            lines += ["", f"## [{name}]", "", section["description"]]
            lines += ["", *_table(section["properties"], section.get("required", ()))] * bool(section["properties"])
        if name == "data":
            section = schema["$defs"]["NamedTask"]
            lines += ["", "## [[tasks]]", "", section["description"], ""]
            lines += _table(section["properties"], section["required"])
    return "\n".join(lines) + "\n"


def settings_of(section: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """A section's settings: the name, what it takes, its default, and what it is."""
    schema = section.model_json_schema(mode="validation")
    return _rows(schema["properties"], schema.get("required", ()))


def _rows(properties: dict[str, Any], required: Any) -> list[tuple[str, str, str, str]]:
    return [
        (
            name,
            _takes(rule),
            "needed" if name in required else _value(rule.get("default")),
            " ".join(rule.get("description", "").split()),
        )
        for name, rule in properties.items()
    ]


def _table(properties: dict[str, Any], required: Any) -> list[str]:
    lines = ["| setting | takes | default | |", "|---|---|---|---|"]
    return lines + [f"| `{name}` | {' | '.join(more)} |" for name, *more in _rows(properties, required)]


def _takes(rule: dict[str, Any]) -> str:
    """The values that a setting takes, in words."""
    if "anyOf" in rule:
        kinds = list(dict.fromkeys(_takes(one) for one in rule["anyOf"] if one.get("type") != "null"))
        return " or ".join(kind for kind in kinds if kind != KINDS["integer"] or KINDS["number"] not in kinds)
    if "enum" in rule or "const" in rule:
        return ", ".join(_value(one) for one in rule.get("enum", [rule.get("const")]))
    if "$ref" in rule:
        return "a table"
    if rule.get("type") == "array" and "$ref" in rule["items"]:
        return "tables"
    if rule.get("type") == "array":
        items = rule.get("items", {})
        named = (
            "list of texts" if items.get("type") == "string" else "list of whole numbers" if "minimum" in items else ""
        )
        return named or "range or list of choices"  # of a dimension
    bounds = {"minimum": "from {}", "maximum": "to {}", "exclusiveMinimum": "over {}", "exclusiveMaximum": "under {}"}
    limits = [text.format(rule[key]) for key, text in bounds.items() if key in rule]
    return " ".join((KINDS[rule["type"]], *limits))


def _value(value: Any) -> str:
    if value is None or value == []:
        return "–"
    return f"`{json.dumps(value)}`"
