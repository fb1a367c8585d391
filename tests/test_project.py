"""What stands about the project beside its code: versions, the promises about contracts, and forms for issues."""

import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from autopeft import CONTRACT
from autopeft.tasks import CONTRACT as TASK_CONTRACT
from tools import release_check

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_the_version_is_the_same_wherever_it_stands():
    left = release_check.check_versions(PROJECT["version"])
    assert all("date" in step for step in left)
    with pytest.raises(release_check.NotReadyError, match=r"CHANGELOG.md must be 9\.9\.9"):
        release_check.check_versions("9.9.9")


def test_the_citation_has_what_the_package_says_of_itself():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["title"], cited["license"]) == (PROJECT["name"], PROJECT["license"])
    assert [author["name"] for author in cited["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert cited["abstract"] == PROJECT["description"]
    assert set(cited["keywords"]) <= set(PROJECT["keywords"])


def test_the_page_of_versions_names_the_contracts_as_they_are():
    page = (ROOT / "docs" / "versions.md").read_text()
    (told,) = re.findall(r"`contract = (\d+)`", page)
    (both,) = re.findall(r"are at (\d+)\.", page)
    assert int(told) == int(both) == CONTRACT == TASK_CONTRACT


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_a_form_for_issues_asks_for_something_and_each_thing_once(form):
    asked = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= asked.keys()
    fields = [part["id"] for part in asked["body"] if part["type"] != "markdown"]
    assert fields
    assert len(fields) == len(set(fields))
    assert all(part["attributes"]["label"] for part in asked["body"] if part["type"] != "markdown")


def pack(dist: Path, wheel: list[str], source: list[str]) -> None:
    """Two distributions with these files, all empty."""
    dist.mkdir()
    with zipfile.ZipFile(dist / "autopeft-0-py3-none-any.whl", "w") as archive:
        for name in [*wheel, "autopeft-0.dist-info/METADATA"]:
            archive.writestr(name, "")
    with tarfile.open(dist / "autopeft-0.tar.gz", "w:gz") as archive:
        for name in source:
            archive.addfile(tarfile.TarInfo(f"autopeft-0/{name}"))


@pytest.mark.parametrize(
    ("wheel", "source", "told"),
    [
        (["autopeft/a.py", "autopeft_x/b.py"], ["autopeft/a.py", "plugins/autopeft_x/b.py", "README.md"], ""),
        (
            ["autopeft/a.py"],
            ["autopeft/a.py", "plugins/autopeft_x/b.py", "README.md"],
            "the wheel lacks autopeft_x/b.py",
        ),
        (
            ["autopeft/a.py", "autopeft_x/b.py", "secret.txt"],
            ["autopeft/a.py", "plugins/autopeft_x/b.py", "README.md"],
            "the wheel also holds secret.txt",
        ),
        (
            ["autopeft/a.py", "autopeft_x/b.py"],
            ["autopeft/a.py", "plugins/autopeft_x/b.py"],
            "the source distribution lacks README.md",
        ),
    ],
    ids=["whole", "a plugin is missing", "a stranger's file", "no README"],
)
def test_distributions_hold_what_git_tracks_and_no_more(wheel, source, told, tmp_path):
    tracked = ["autopeft/a.py", "plugins/autopeft_x/b.py", "README.md", ".gitignore", ".github/form.yml"]
    pack(tmp_path / "dist", wheel, source)
    if not told:
        assert release_check.check_files(tmp_path / "dist", tracked).suffix == ".whl"
    else:
        with pytest.raises(release_check.NotReadyError, match=re.escape(told)):
            release_check.check_files(tmp_path / "dist", tracked)


def test_what_shortens_the_quickstart_is_in_it():
    text = (ROOT / "studies" / "quickstart.toml").read_text()
    assert [long for long, _ in release_check.SHORT if long not in text] == []


def test_a_command_that_fails_says_what_it_printed(tmp_path):
    with pytest.raises(release_check.NotReadyError, match=r"(?s)exit code 3.*so it is"):
        release_check.run("sh", "-c", "echo so it is; exit 3", cwd=tmp_path)
