"""Check what would be published: `make release-check`, before every release. It publishes nothing.

The source distribution and the wheel are built and looked into; the wheel is installed in an empty environment, outside
the repository, and used there as a person would: commands, and a short study from search to prediction.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

HIDDEN = (".ci/", ".github/", ".gitignore")
"""What the repository has and a source distribution need not."""

SHORT = (
    ("max_rows = 900", "max_rows = 120"),
    ("trials = 8", "trials = 2"),
    ("folds = 3", "folds = 2"),
    ("epochs = [2, 6]", "epochs = 1"),
)
"""What makes the quickstart's study one of a minute."""

TEXTS = "text\nwhat a lovely day\nmy flight is late again\n"


class NotReadyError(Exception):
    """What must be put right before a release."""


def run(*command: object, cwd: Path) -> str:
    """What a command prints, in an environment without this repository.

    Raises:
        NotReadyError: it failed.
    """
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True)
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()
        raise NotReadyError(f"{' '.join(map(str, command))}\nended with exit code {done.returncode}:\n{said}")
    return done.stdout


def need(holds: object, rule: str) -> None:
    """Go on where it holds.

    Raises:
        NotReadyError: it does not.
    """
    if not holds:
        raise NotReadyError(rule)


def check_versions(version: str) -> list[str]:
    """The version is the same wherever it stands; returns what is left for a person to do."""
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heading = re.search(r"^## \[(\d\S*)\] - (.+)$", changes, re.MULTILINE)
    need(
        heading and heading[1] == version,
        f"the newest version in CHANGELOG.md must be {version}, as in pyproject.toml.",
    )
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    need(cited and cited[1] == version, f"`version` in CITATION.cff must be {version}, as in pyproject.toml.")
    dated = heading and re.fullmatch(r"\d{4}-\d\d-\d\d", heading[2])
    return [] if dated else [f"Give {version} its date in CHANGELOG.md, and `date-released` in CITATION.cff."]


def check_files(dist: Path, tracked: list[str]) -> Path:
    """The two distributions hold what they must and nothing else; returns the wheel."""
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {name.removeprefix("plugins/") for name in tracked if name.startswith(("autopeft/", "plugins/"))}
    need(packed >= wanted, f"the wheel lacks {', '.join(sorted(wanted - packed))}.")
    need(packed <= wanted, f"the wheel also holds {', '.join(sorted(packed - wanted))}; git does not track these.")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    lacking = sorted(name for name in tracked if name not in names and not name.startswith(HIDDEN))
    need(not lacking, f"the source distribution lacks {', '.join(lacking)}; add them in pyproject.toml.")
    return wheel


def install(wheel: Path, folder: Path, python: str) -> Path:
    """Install the wheel in an empty environment, with the extra `demo`; returns the folder of its programs."""
    run(python, "-m", "venv", folder / "environment", cwd=folder)
    programs = folder / "environment" / ("Scripts" if os.name == "nt" else "bin")
    pip = (programs / "python", "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{wheel}[demo]", cwd=folder)
    run(*pip, "check", cwd=folder)
    return programs


def check_commands(programs: Path, project: dict[str, Any], folder: Path) -> None:
    """The installed program says its version, and finds every plugin that it brings."""
    autopeft = programs / "autopeft"
    where = run(programs / "python", "-c", "import autopeft; print(autopeft.__file__)", cwd=folder)
    need(where.startswith(str(folder)), f"the installed package must be the one used, but that of {where.strip()} is.")
    need(project["version"] in run(autopeft, "--version", cwd=folder), "`autopeft --version` must name the version.")
    found = json.loads(run(autopeft, "methods", "--json", cwd=folder))
    need(not found["broken"], f"plugins are broken: {found['broken']}")
    ours = "from autopeft.execution.backend_factory import discover; print(*discover().origins.values())"
    backends = run(programs / "python", "-c", ours, cwd=folder)
    told = json.dumps([found["methods"], json.loads(run(autopeft, "tasks", "--json", cwd=folder))]) + backends
    lacking = [point for point in project["entry-points"]["autopeft"] if f"entry point '{point}'" not in told]
    need(not lacking, f"these plugins bring no method, no kind of task and no backend that is found: {lacking}")


def check_study(programs: Path, folder: Path, *, whole: bool) -> str:
    """A study from search to prediction; returns who won."""
    text = (ROOT / "studies" / "quickstart.toml").read_text(encoding="utf-8")
    for long, short in () if whole else SHORT:
        need(long in text, f"the quickstart has no `{long}` any more; say in tools/release_check.py what shortens it.")
        text = text.replace(long, short)
    (folder / "quickstart.toml").write_text(text, encoding="utf-8")
    (folder / "rows.csv").write_text(TEXTS, encoding="utf-8")
    autopeft, output = programs / "autopeft", folder / "outputs" / "quickstart"
    result = json.loads(run(autopeft, "run", "quickstart.toml", "--json", cwd=folder))
    run(autopeft, "report", "quickstart.toml", cwd=folder)
    answers = run(autopeft, "predict", output / "winner", "--input", "rows.csv", cwd=folder).splitlines()
    need(
        len(answers) == len(TEXTS.splitlines()), f"`autopeft predict` must answer each row once, but printed {answers}."
    )
    run(autopeft, "export", output, "--to", "merged", "--format", "merged", cwd=folder)
    need((output / "report.html").is_file(), "the study must leave report.html in its output folder.")
    return f"{result['best']['method']} won, {len(result['records'])} trials"


def check(folder: Path, python: str, *, whole: bool) -> list[str]:
    """All of it, each step told as it ends; returns what is left for a person to do."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    begun = time.monotonic()

    def tell(step: str) -> None:
        print(f"{time.monotonic() - begun:5.0f} s  {step}", flush=True)

    left = check_versions(project["version"])
    tell(f"version {project['version']} in pyproject.toml, CHANGELOG.md and CITATION.cff")
    changed = run("git", "status", "--porcelain", cwd=ROOT).splitlines()
    left += [f"Commit or remove what git calls changed: {', '.join(line[3:] for line in changed)}."] if changed else []
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT, cwd=folder)
    tell("source distribution built, and the wheel from it")
    wheel = check_files(folder / "dist", run("git", "ls-files", cwd=ROOT).splitlines())
    tell("both hold every file they must, and the wheel no other")
    programs = install(wheel, folder, python)
    tell(f"installed in an empty environment of {run(python, '--version', cwd=folder).strip()}; pip finds no conflict")
    check_commands(programs, project, folder)
    tell("--version, methods and tasks: every plugin is found")
    tell(f"run, report, predict, export: {check_study(programs, folder, whole=whole)}")
    return [*left, "Run `make test`, `make test-pythons`, `make exhaustive` and `make audit`.", "Tag the commit."]


def main() -> int:
    """Run the checks in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="of the empty environment; default: this one")
    parser.add_argument("--whole", action="store_true", help="run the quickstart at its full length")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="autopeft-release-", ignore_cleanup_errors=True) as folder:
        try:
            left = check(Path(folder).resolve(), asked.python, whole=asked.whole)
        except NotReadyError as error:
            print(f"Not ready for a release: {error}", file=sys.stderr)
            return 1
    print("\nReady, but for what only a person can do:", *(f"- {step}" for step in left), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
