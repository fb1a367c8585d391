"""A headless Chromium, and the pages of the MLflow UI on a study, gone through as a person does.

Tests check what it shows with this; `benchmarks/ui_screenshots.py` takes pictures.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from selenium.webdriver import Chrome

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --window-size=1800,1000"
)
PATIENCE = 60  # seconds; the UI's first load compiles megabytes of JavaScript

OWN = ("/ajax-api/2.0/mlflow/users/current", "ResizeObserver loop completed with undelivered notifications")
"""What every MLflow UI complains of: that no users have to log in, and that a chart was not drawn at once."""

TABLE = ".ag-pinned-left-cols-container .ag-row"
"""The rows of the table of runs, each with its run's id, and the part of it with names."""


def missing() -> str:
    """What is not there of all that a browser test needs."""
    programs = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
    return ", ".join(programs + ["selenium"] * (importlib.util.find_spec("selenium") is None))


@contextmanager
def chromium() -> Iterator[Chrome]:
    """A browser with a profile of its own."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        browser = Chrome(options, Service(shutil.which("chromedriver")))  # selenium would download one if not told
        try:
            yield browser
        finally:
            browser.quit()


def complaints(browser: Chrome) -> list[str]:
    """The errors in the browser's console since the last call, without those that every MLflow UI has."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE" and not any(known in entry["message"] for known in OWN)
    ]


def await_equal(ask: Callable[[], Any], expected: Any) -> None:
    """Wait until what the page shows is what is expected."""
    deadline = time.monotonic() + PATIENCE
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"the page must come to show\n{expected}\nbut shows\n{found}"
        time.sleep(0.2)


def await_texts(browser: Chrome, *texts: str) -> str:
    """Wait until a page shows all these texts; returns all it shows."""
    body = ""

    def lacking() -> list[str]:
        nonlocal body
        body = str(browser.execute_script("return document.body.innerText")).replace("\xa0", " ")
        return [text for text in texts if text not in body]

    try:
        await_equal(lacking, [])
    except AssertionError:
        raise AssertionError(f"the page must come to show {lacking()}, but shows\n{body}") from None
    return body


class Pages:
    """The pages of the MLflow UI on one study.

    Args:
        browser: that shows them.
        address: of the study's table of runs, as `autopeft ui` gives it.
    """

    def __init__(self, browser: Chrome, address: str) -> None:
        self.browser, self._address = browser, address
        self._server, self._experiment = address.partition("/#")[0], urlsplit(address).fragment.split("/")[2]

    def runs(self, count: int) -> None:
        """The table of runs as `autopeft ui` opens it, with nothing in front of it."""
        self._open(self._address)
        await_texts(self.browser, f"{count} matching runs")
        for label in ("Close", "close"):  # the assistant's pane, and the notice that this is a saved view
            self._click_all(f"button[aria-label*='{label}']")

    def listed(self) -> list[str]:
        """The names of the runs in the table, from the top."""
        found: list[list[Any]] = self.browser.execute_script(
            f"return [...document.querySelectorAll({TABLE!r})].map("
            "row => [Number(row.getAttribute('row-index')), row.querySelector('a')?.textContent])"
        )
        return [name for _, name in sorted(found)]

    def turn_order(self) -> None:
        """Click on the head of the column with scores."""
        self._find("[data-testid=sort-header-score]").click()

    def filter(self, condition: str) -> None:
        """Type a condition into the search box."""
        self._find("[data-testid=search-box]").send_keys(condition, "\n")

    def compare(self, run_ids: list[str]) -> list[str]:
        """Tick these runs and press "Compare"; returns what the axes of the parallel coordinates are called."""
        for run_id in run_ids:
            self._find(f".ag-row[row-id='{run_id}'] .ag-selection-checkbox input").click()
        self._find("[data-testid=runs-compare-button]").click()
        await_texts(self.browser, f"Comparing {len(run_ids)} Runs", "Parallel Coordinates Plot")
        names = "return [...document.querySelectorAll('.parcoords .axis-title')].map(title => title.textContent)"
        await_equal(lambda: bool(self.browser.execute_script(names)), expected=True)
        return list(dict.fromkeys(self.browser.execute_script(names)))

    def run(self, run_id: str, tab: str = "") -> None:
        """The page of a run."""
        page = f"{self._server}/#/experiments/{self._experiment}/runs/{run_id}{tab and '/'}{tab}"
        self._open(f"{page}?{urlencode({'workflowType': 'machine_learning'})}")

    def pictures(self) -> dict[str, int]:
        """The pictures of a run that are among its charts, by key, with their width in pixels; 0 if not loaded."""
        found = self.browser.execute_script("return [...document.images].map(image => [image.src, image.naturalWidth])")
        paths = [(parse_qs(urlsplit(source).query).get("path", [""])[0], width) for source, width in found]
        return {
            path.removeprefix("images/").partition("+step")[0].replace("~", "/"): width
            for path, width in paths
            if path.startswith("images/")
        }

    def find_charts(self, words: str) -> None:
        """Type into the search box above a run's charts."""
        self._find("input[placeholder='Search metric charts']").send_keys(words)

    def to_the_end(self) -> None:
        """Scroll all the way down: of charts only those in sight are drawn."""
        self.browser.execute_script("document.querySelectorAll('*').forEach(it => { it.scrollTop = it.scrollHeight })")

    def bring_up_pictures(self) -> None:
        """Scroll each chart down to its picture, which stands below the run's params."""
        self.browser.execute_script(
            "[...document.images].reverse().forEach(image => image.scrollIntoView({block: 'center'}))"
        )

    def model(self, name: str, version: str = "") -> None:
        """The page of a registered model, or of a version of it."""
        self._open(f"{self._server}/#/models/{name}" + (f"/versions/{version}" if version else ""))

    def _open(self, address: str) -> None:
        self.browser.get("about:blank")  # or a page of the same server would stay until the next one is ready
        self.browser.get(address)

    def _find(self, selector: str) -> Any:
        from selenium.webdriver.common.by import By

        await_equal(lambda: len(self.browser.find_elements(By.CSS_SELECTOR, selector)) > 0, expected=True)
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def _click_all(self, selector: str) -> None:
        self.browser.execute_script(
            f"document.querySelectorAll({selector!r}).forEach(it => it.checkVisibility() && it.click())"
        )
