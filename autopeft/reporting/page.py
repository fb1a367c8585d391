"""A report as a single HTML file without network access or scripts."""

from __future__ import annotations

import base64
from importlib.metadata import version
from typing import TYPE_CHECKING

from autopeft.common.exceptions import UserInputError
from autopeft.common.files import whole
from autopeft.reporting import wording
from autopeft.reporting.plots import draw, name_of

if TYPE_CHECKING:
    from pathlib import Path

    from autopeft.reporting.content import Report
    from autopeft.reporting.plots import Plot


def render(report: Report, plots: list[Plot] | None = None) -> str:
    """The page, with `plots` if they are already drawn."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("autopeft.reporting", ""),
        autoescape=True,  # names of labels and methods come from the user
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    pictures = {
        plot.name: {"title": plot.title, "alt": plot.alt, "svg": Markup(plot.svg)} for plot in plots or draw(report)
    }
    template = environment.get_template("page.html.jinja")
    return template.render(
        report=report,
        headings=wording.headings(report),
        plots=pictures,
        wording=wording,
        name_of=name_of,
        version=version("autopeft"),
    )


def write(text: str, path: Path) -> None:
    """Write the page at once, so that a reader sees the old one or the new one.

    Raises:
        UserInputError: it cannot be written there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserInputError(
            f"the report cannot be written to {path}: {error}; name another file with --html."
        ) from error
