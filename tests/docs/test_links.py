"""Links and paths on the pages lead to what is there."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, anchors, in_backticks, named, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")
TOPS = ("autopeft/", "benchmarks/", "docs/", "plugins/", "studies/", "tests/", "tools/", ".ci/", ".github/")
"""How a path within the repository begins; others are of a reader's own, or of an output folder."""


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page):
    for link in LINK.findall(prose(page)):
        if "://" in link or link.startswith("mailto:"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{named(page)} links to {path}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{named(page)} links to {link}, but no heading of {path} has that name"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_path_in_a_sentence_is_there(page, made):
    for code in in_backticks(page):
        if re.fullmatch(r"[\w./-]+", code) and code.startswith(TOPS) and code not in made:
            assert (ROOT / code).exists(), f"{named(page)} names {code}, which is not there"


@pytest.fixture(scope="module")
def made() -> set[str]:
    """Files that a reader of the recipes makes: each stands on the first line of its block."""
    return {path for page in PAGES for path in re.findall(r"^# (studies/\S+)$", page.read_text(), re.MULTILINE)}


def test_anchors_are_told_as_hosts_of_repositories_do(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One `two`, three\n\n```toml\n# no heading\n```\n\n## Twice\n\n## Twice\n\n### A [link](x.md)\n")
    assert anchors(page) == {"one-two-three", "twice", "twice-1", "a-link"}
