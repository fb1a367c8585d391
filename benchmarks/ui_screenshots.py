"""Open a finished study in the MLflow UI with a real browser, check what it shows, and keep two screenshots.

Needs `selenium` and a Chromium with its driver (Debian: `apt-get install chromium chromium-driver`).

    python benchmarks/ui_screenshots.py studies/quickstart.toml --folder docs
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from mlflow import MlflowClient
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from autopeft.spec import StudySpec
from autopeft.tracking import PARENT, serving, tracking_uri

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1800,1000"
)
PATIENCE = 60  # seconds; the UI's first load compiles megabytes of JavaScript


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", help="the study file of a finished study")
    parser.add_argument("--folder", type=Path, default=Path("docs"), help="where the screenshots go")
    arguments = parser.parse_args()
    spec = StudySpec.from_file(arguments.study)
    arguments.folder.mkdir(parents=True, exist_ok=True)

    client = MlflowClient(tracking_uri(spec.tracking.uri, spec.output))
    experiment = client.get_experiment_by_name(spec.name)
    runs = client.search_runs([experiment.experiment_id], order_by=["metrics.score DESC"])
    parents = [run for run in runs if PARENT not in run.data.tags]
    assert len(parents) == 1, f"one parent run is expected, but the store holds {len(parents)}"
    left = [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    assert not left, f"no run may be left RUNNING, but these are: {left}"

    with (
        serving(spec.tracking.uri, spec.output, spec.name, port=0) as (address, _),
        tempfile.TemporaryDirectory() as profile,
    ):
        browser = open_browser(profile)
        try:
            check_runs_page(browser, address, [run.info.run_name for run in runs])
            browser.save_screenshot(str(arguments.folder / "mlflow-runs.png"))
            server = urlsplit(address)
            page = f"{server.scheme}://{server.netloc}/#/experiments/{experiment.experiment_id}/runs/"
            browser.get(page + parents[0].info.run_id + "?workflowType=machine_learning")
            wait_for_text(browser, "Description", "Parameters", "seed")
            browser.save_screenshot(str(arguments.folder / "mlflow-search.png"))
        finally:
            browser.quit()
    print(f"{len(runs)} runs listed, none RUNNING; screenshots in {arguments.folder}")


def open_browser(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={profile}")
    # Naming the driver keeps selenium from downloading one.
    return webdriver.Chrome(options, Service(shutil.which("chromedriver")))


def check_runs_page(browser: webdriver.Chrome, address: str, names: list[str]) -> None:
    """The page at `address` must list every run, the best score first, with its method, state and reason."""
    browser.get(address)
    wait_for_text(browser, f"{len(names)} matching runs", "method", "state", "reason", *names)
    for label in ("Close", "close"):  # the assistant's pane, and the notice that this is a saved view
        for button in browser.find_elements(By.CSS_SELECTOR, f"button[aria-label*='{label}']"):
            if button.is_displayed():
                button.click()
    first = browser.find_element(By.CSS_SELECTOR, ".ag-pinned-left-cols-container .ag-row[row-index='0'] a").text
    assert first == names[0], f"sorted by score, the first run must be {names[0]}, but is {first}"


def wait_for_text(browser: webdriver.Chrome, *texts: str) -> None:
    body = ""

    def complete(browser: webdriver.Chrome) -> bool:
        nonlocal body
        body = browser.find_element(By.TAG_NAME, "body").text
        return all(text in body for text in texts)

    WebDriverWait(browser, PATIENCE, ignored_exceptions=()).until(
        complete, f"the page lacks one of {texts}; it shows:\n{body}"
    )


if __name__ == "__main__":
    main()
