"""A report as one HTML file that needs nothing else: no network, no script."""

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
    """The page, with `plots` where they were drawn already."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("autopeft.reporting", ""),
        autoescape=True,  # names of labels and methods are the user's
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
    """Put the page there whole, so that who reads it meanwhile sees the old one or the new one.

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
