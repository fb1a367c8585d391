"""Rows of the bank that a package on PyPI brings beside its code: fetch them with pip, and unpack them.

The ratings of sentences from tweets, reviews and editorials of Hutto & Gilbert 2014, which the source distribution of
vaderSentiment has under the licence of the package, MIT.

    python benchmarks/bank/more_data.py FOLDER
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "vaderSentiment==3.3.2 --hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="gets the folder hutto_ICWSM_2014")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wanted = Path(place) / "wanted.txt"
        wanted.write_text(PACKAGE + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run(
            [*command, "--no-binary", ":all:", "--require-hashes", "-r", str(wanted), "-d", place], check=True
        )
        (package,) = Path(place).glob("*.tar.gz")
        with tarfile.open(package) as outer:
            outer.extractall(place, filter="data")
        (inner,) = Path(place).glob(f"*/{ARCHIVE}")
        arguments.folder.mkdir(parents=True, exist_ok=True)
        with tarfile.open(inner) as archive:
            archive.extractall(arguments.folder, filter="data")
    print(*sorted(path.name for path in (arguments.folder / "hutto_ICWSM_2014").glob("*_GroundTruth.txt")), sep="\n")


if __name__ == "__main__":
    main()
