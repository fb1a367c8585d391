"""Open a study's report from the disk in a real browser without a network, check its console, keep a screenshot.

Needs a Chromium (Debian: `apt-get install chromium`).

    python benchmarks/report_screenshot.py outputs/quickstart docs/report.png
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

from autopeft.reporting import gather, page

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --hide-scrollbars --enable-logging=stderr --v=0 --proxy-server=127.0.0.1:9"  # where nobody listens
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path, help="the study's output folder")
    parser.add_argument("picture", type=Path, help="where the screenshot goes (PNG)")
    parser.add_argument("--height", type=int, default=2300, help="pixels of the page to show")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        good, bad = Path(folder) / "report.html", Path(folder) / "bad.html"
        text = page.render(gather(arguments.output))
        good.write_text(text, encoding="utf-8")
        bad.write_text(text.replace("<main>", '<main><img src="https://example.org/a.png" alt="">'), encoding="utf-8")
        assert console(bad, Path(folder) / "bad.png"), "the browser must complain of a page that loads something"
        found = console(good, arguments.picture, f"--window-size=1100,{arguments.height}")
        assert not found, f"the console must stay empty, but holds:\n{found}"
        assert not console(good, Path(folder) / "dark.png", "--blink-settings=preferredColorScheme=0")
    print(f"no error in the console; screenshot in {arguments.picture}")


def console(path: Path, picture: Path, *flags: str) -> str:
    """What the browser's console says of a page, while its screenshot is taken."""
    picture.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as profile:
        own = [*FLAGS.split(), f"--user-data-dir={profile}", f"--screenshot={picture.absolute()}", *flags]
        done = subprocess.run(
            ["chromium", *own, path.as_uri()], capture_output=True, text=True, check=True, timeout=120
        )
    assert picture.is_file(), done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


if __name__ == "__main__":
    main()
