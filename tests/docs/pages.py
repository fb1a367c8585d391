"""The pages that people read, as files of the repository, and what stands in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]

FOLDERS = ("docs", "studies", "benchmarks", ".github")

PAGES = sorted({*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))})

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    """The page as messages name it."""
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """Its blocks of code in a language."""
    return [code for kind, code in FENCED.findall(page.read_text(encoding="utf-8")) if kind == language]


def in_backticks(page: Path) -> list[str]:
    """Code within its sentences, on one line each."""
    return [" ".join(code.split()) for code in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def typed(page: Path) -> list[str]:
    """The lines after a prompt in the page's console blocks, without their comments; `$$` is that of a template."""
    lines = [line for block in blocks(page, "console") for line in block.splitlines()]
    return [re.split(r"\s+#", line.lstrip("$"))[0].strip() for line in lines if re.match(r"\$\$? ", line)]


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may name, as hosts of repositories and the site write it."""
    found: list[str] = []
    for heading in re.findall(r"^#+ +(.+?) *$", prose(page), re.MULTILINE):
        words = re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)
