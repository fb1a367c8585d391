"""Open a finished study in the MLflow UI with a real browser, check what it shows, and keep screenshots.

Needs `selenium` and a Chromium with its driver (Debian: `apt-get install chromium chromium-driver`).

    python -m benchmarks.ui_screenshots studies/quickstart.toml --folder docs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mlflow import MlflowClient

from autopeft.study.file import StudySpec
from autopeft.tracking import PARENT, serving, tracking_uri
from tests.browser import Pages, await_equal, await_texts, chromium, complaints


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
    (parent,) = (run for run in runs if PARENT not in run.data.tags)
    left = [run.info.run_name for run in runs if run.info.status == "RUNNING"]
    assert not left, f"no run may be left RUNNING, but these are: {left}"
    version = client.get_model_version_by_alias(spec.name, "winner")
    method = runs[0].data.params["method"]
    same = [run for run in runs if run.data.params.get("method") == method]
    plots = {f"plots/{Path(file.path).stem}" for file in client.list_artifacts(parent.info.run_id, "plots")}

    with (
        serving(spec.tracking.uri, spec.output, spec.name, port=0) as (address, _),
        chromium() as browser,
    ):
        pages = Pages(browser, address)

        def keep(name: str) -> None:
            browser.save_screenshot(str(arguments.folder / f"mlflow-{name}.png"))

        pages.runs(len(runs))
        await_equal(pages.listed, [run.info.run_name for run in runs])
        keep("runs")
        pages.filter(f"params.method = '{method}'")
        await_equal(pages.listed, [run.info.run_name for run in same])
        keep("filtered")
        pages.runs(len(runs))
        # Of one method, whose runs have the same params.
        pages.compare([run.info.run_id for run in (same if len(same) > 2 else runs)[:3]])
        keep("comparison")
        pages.run(parent.info.run_id)
        await_texts(browser, "Description", "Parameters", "seed")
        keep("search")
        pages.run(parent.info.run_id, "model-metrics")
        await_equal(lambda: {name for name, width in pages.pictures().items() if width}, plots)
        pages.bring_up_pictures()
        keep("plots")
        pages.model(spec.name, version.version)
        await_texts(browser, "@ winner", client.get_run(version.run_id).info.run_name)
        keep("winner")
        assert not (errors := complaints(browser)), f"the console must show no error, but shows {errors}"
    print(f"{len(runs)} runs listed, none RUNNING; screenshots in {arguments.folder}")


if __name__ == "__main__":
    main()
