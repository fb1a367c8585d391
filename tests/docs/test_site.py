"""The site that `make docs` writes: whole, without a link that leads nowhere, and without anything from a network."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest

import autopeft
import autopeft.testing
from tests.browser import await_texts, chromium, complaints, missing
from tests.docs.pages import ROOT
from tools import site_pages

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = [name for name in ("mkdocs", "material", "mkdocstrings_handlers") if not importlib.util.find_spec(name)]
pytestmark = pytest.mark.skipif(
    bool(NEEDED), reason=f'not installed: {", ".join(NEEDED)}; pip install "autopeft[docs]"'
)

QUIET = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "NO_COLOR": "1"}

STATES = {"OK", "FAILED", "SKIPPED", "UNSUPPORTED"}
"""Words that findings hold, which the reference of `Finding` lists."""


def build(pages: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build a site of gathered pages, by the project's own settings."""
    config = pages.parent / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text().replace("docs_dir: build/pages", f"docs_dir: {pages}")
    text = text.replace("paths: [., plugins]", f"paths: [{ROOT}, {ROOT / 'plugins'}]")
    config.write_text(text.replace("tools/docstring_blocks.py", str(ROOT / "tools" / "docstring_blocks.py")))
    command = [sys.executable, "-m", "mkdocs", "build", "--config-file", str(config), "--site-dir", str(site)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=QUIET)


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    subprocess.run([sys.executable, ROOT / "tools" / "site_pages.py", folder], check=True, cwd=ROOT)
    return folder


@pytest.fixture(scope="module")
def site(pages) -> Path:
    done = build(pages, pages.parent / "site")
    assert done.returncode == 0, done.stderr
    return pages.parent / "site"


class Loads(HTMLParser):
    """What a page makes a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag != "a" and (given.get("rel") or "") not in ("canonical", "next", "prev"):
            self.found += [value for name in ("src", "href") if (value := given.get(name))]


def test_every_page_of_the_repository_is_on_the_site(site):
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file() or page.stem == "README"
    for page in ("index", "finished-study", "tasks", "changelog", "contributing", "security"):
        assert (site / f"{page}.html").is_file()
    assert "text-classification" in (site / "tasks.html").read_text()


def test_every_public_name_is_in_the_reference(site):
    html = "".join(page.read_text() for page in (site / "reference").glob("*.html"))
    names = {f"autopeft.{name}" for name in autopeft.__all__}
    names |= {f"autopeft.testing.{name}" for name in {*autopeft.testing.__all__} - STATES}
    lacking = sorted(name for name in names if f'id="{name}"' not in html)
    assert not lacking, f"list {', '.join(lacking)} in REFERENCE of tools/site_pages.py"


def test_no_page_loads_anything_from_a_network(site):
    for page in site.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text())
        assert loads.found
        assert [url for url in loads.found if re.match(r"(https?:)?//", url)] == [], page.name


def test_links_that_lead_nowhere_and_a_page_that_nobody_finds_fail_the_build(pages, tmp_path):
    wrong = tmp_path / "pages"
    shutil.copytree(pages, wrong)
    with (wrong / "api.md").open("a") as page:
        page.write("\n[file](nowhere.md), [anchor](budgets.md#nothing)\n")
    (wrong / "extra.md").write_text("# Extra\n")
    done = build(wrong, tmp_path / "site")
    assert done.returncode == 1
    for told in (
        "link 'nowhere.md', but the target is not found",
        "does not contain an anchor '#nothing'",
        "- extra.md",
    ):
        assert told in done.stderr
    assert "Aborted with 3 warnings" in done.stdout + done.stderr


def test_a_notebook_is_a_page_whose_links_lead_to_pages():
    cells = [
        {"cell_type": "markdown", "source": ["# A table\n", "\n", "See [settings](../study-file.md#model)."]},
        {"cell_type": "code", "source": ["import autopeft\n", "autopeft.tune()"], "outputs": []},
    ]
    page = site_pages.relinked(site_pages.page_of({"cells": cells}), "docs/notebooks/a.ipynb", "notebooks/a.md")
    assert page == (
        "# A table\n\nSee [settings](../study-file.md#model).\n\n```python\nimport autopeft\nautopeft.tune()\n```\n"
    )
    linked = site_pages.relinked("[one](notebooks/a.ipynb), [two](../README.md#more)", "docs/api.md", "api.md")
    assert linked == "[one](notebooks/a.md), [two](index.md#more)"


@pytest.mark.browser
@pytest.mark.skipif(bool(missing()), reason=f"not there: {missing()}")
def test_search_works_on_pages_opened_from_disk(site):
    with chromium() as browser:
        browser.get((site / "index.html").as_uri())
        browser.execute_script("document.querySelector('#__search').click()")
        browser.find_element("css selector", ".md-search__input").send_keys("warm_start")
        await_texts(browser, "matching documents", "From an earlier study")
        assert complaints(browser) == []
