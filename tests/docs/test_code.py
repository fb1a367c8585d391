"""Code on the pages is of the language that it is said to be; `tests/test_docs.py` runs that of the recipes."""

import json
import tomllib

import pytest

from tests.docs.pages import PAGES, blocks, named

READERS = {"python": lambda code: compile(code, "page", "exec"), "toml": tomllib.loads, "json": json.loads}


@pytest.mark.parametrize(
    ("page", "language"),
    [(page, language) for page in PAGES for language in READERS if blocks(page, language)],
    ids=lambda value: value if isinstance(value, str) else named(value),
)
def test_every_block_of_code_can_be_read(page, language):
    for code in blocks(page, language):
        READERS[language](code)
