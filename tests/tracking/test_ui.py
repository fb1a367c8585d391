"""What people see of a finished study: its runs in the MLflow UI, and its report, in a real browser."""

import pytest
from mlflow import MlflowClient

from autopeft.study.file import StudySpec
from autopeft.tracking import PARENT, serving
from tests.browser import Pages, await_equal, await_texts, chromium, complaints, missing
from tests.conftest import autopeft_here, write_tiny_study

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        bool(missing()), reason=f"needs a browser, but there is no {missing()} (Debian: chromium, chromium-driver)"
    ),
]

SCORE = "metrics.score"


@pytest.fixture(scope="module")
def study(tmp_path_factory, tiny_model):
    """Each method's default and three trials that were drawn, all of them complete."""
    path = write_tiny_study(tmp_path_factory.mktemp("ui"), tiny_model)
    path.write_text(path.read_text().replace("trials = 4\nepochs = 4", 'trials = 6\nepochs = 2\npruner = "none"'))
    done = autopeft_here("run", path.name, cwd=path.parent)
    assert done.returncode == 0, done.stderr
    return StudySpec.from_file(path).model_copy(update={"output": path.parent / "outputs" / "tiny"})


@pytest.fixture(scope="module")
def client(study):
    return MlflowClient(f"sqlite:///{study.output / 'mlflow.db'}")


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def served(study, browser):
    with serving(None, study.output, study.name, port=0) as (address, _):
        yield Pages(browser, address)


@pytest.fixture
def pages(served):
    complaints(served.browser)
    yield served
    assert complaints(served.browser) == []


@pytest.fixture
def runs(client):
    """Every run, the best score first."""
    return search(client)


@pytest.fixture
def parent(runs):
    (parent,) = [run for run in runs if PARENT not in run.data.tags]
    return parent


def search(client, condition="", order="DESC"):
    experiment = client.get_experiment_by_name("tiny")
    return client.search_runs([experiment.experiment_id], condition, order_by=[f"{SCORE} {order}"])


def names(runs):
    return [run.info.run_name for run in runs]


def test_the_experiment_lists_the_search_and_its_trials_and_sorts_them_by_score(pages, client, runs):
    assert len(runs) == 7
    assert {run.data.params.get("method") for run in runs} == {"adapter", "lora", "prefix_tuning", None}
    pages.runs(len(runs))
    await_equal(pages.listed, names(runs))
    await_texts(pages.browser, "lost by", "won", *(run.data.tags["state"] for run in runs))
    pages.turn_order()
    worst_first = names(search(client, order="ASC"))
    assert worst_first != names(runs)
    await_equal(pages.listed, worst_first)


def test_the_search_box_filters_by_method(pages, client, runs):
    condition = "tags.state = 'COMPLETE' and params.method = 'lora'"
    wanted = [run for run in runs if run.data.params.get("method") == "lora"]
    assert 0 < len(wanted) < len(runs) - 1
    pages.runs(len(runs))
    pages.filter(condition)
    await_equal(pages.listed, names(wanted))
    await_texts(pages.browser, f"{len(wanted)} matching runs")


def test_three_trials_are_compared_in_parallel_coordinates(pages, runs):
    trials = [run for run in runs if PARENT in run.data.tags]
    chosen, rest = [trials[0], trials[1], trials[-1]], trials[2:-1]
    pages.runs(len(runs))
    *params, metric = pages.compare([run.info.run_id for run in chosen])
    assert metric == "mean_score"
    assert params
    assert all(len({run.data.params.get(name) for run in chosen}) > 1 for name in params)
    best, worst = chosen[0].data.metrics[metric], chosen[-1].data.metrics[metric]
    assert best > worst
    text = await_texts(pages.browser, *names(chosen), f"{best:.5f}", f"{worst:.5f}")
    assert not [name for name in names(rest) if name in text]


def test_the_page_of_the_search_shows_who_won_and_how_it_went(pages, client, parent):
    pages.run(parent.info.run_id)
    first, *table = parent.data.tags["mlflow.note.content"].splitlines()
    await_texts(pages.browser, "Description", first.replace("**", ""), table[-1].split("|")[1].strip())
    await_texts(pages.browser, "best_score", str(parent.data.metrics["best_score"]))
    assert "system/cpu_utilization_percentage" in parent.data.metrics
    pages.run(parent.info.run_id, "system-metrics")
    pages.find_charts("cpu_utilization")
    await_texts(pages.browser, "System metrics\n(1)")
    pages.to_the_end()
    await_texts(pages.browser, "search (system/cpu_utilization_percentage)")


def test_the_page_of_the_search_shows_the_plots(pages, client, parent):
    plots = [file.path for file in client.list_artifacts(parent.info.run_id, "plots")]
    assert {"plots/leads.svg", "plots/fronts.svg", "plots/curves.svg", "plots/confusion.svg"} <= {*plots}
    pages.run(parent.info.run_id, "model-metrics")
    loaded = {plot.removesuffix(".svg"): True for plot in plots}
    await_equal(lambda: {name: width > 100 for name, width in pages.pictures().items()}, loaded)
    await_texts(pages.browser, *loaded)


def test_the_winner_is_registered_under_the_studys_name(pages, client, runs):
    version = client.get_model_version_by_alias("tiny", "winner")
    pages.model("tiny")
    scores = f"accuracy {version.tags['held_out_score']} on held-out rows, {version.tags['score']} in cross-validation."
    await_texts(
        pages.browser, "Registered Models", f"Version {version.version}", "@ winner", scores, "untuned default of"
    )
    pages.model("tiny", version.version)
    winner = client.get_run(version.run_id)
    assert winner.data.tags["winner"] == "true"
    assert winner.data.metrics["score"] == runs[0].data.metrics["score"]
    await_texts(pages.browser, "@ winner", winner.info.run_name, "Inputs (1)", "Outputs (2)")


def test_the_report_opens_from_the_disk_without_a_network(study, browser, tmp_path):
    done = autopeft_here("report", study.output, "--html", tmp_path / "report.html", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    complaints(browser)
    browser.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        (tmp_path / "bad.html").write_text(page.replace("<main>", '<main><img src="https://example.org/a.png">'))
        browser.get((tmp_path / "bad.html").as_uri())
        await_equal(lambda: bool(complaints(browser)), expected=True)  # so that silence says something
        browser.get((tmp_path / "report.html").as_uri())
        shown = await_texts(browser, "Score against cost")
        assert complaints(browser) == []
    finally:
        browser.delete_network_conditions()
    assert f"{search(MlflowClient(f'sqlite:///{study.output}/mlflow.db'))[0].data.metrics['score']:.4f}" in shown
    drawn = "return [...document.querySelectorAll('svg')].map(svg => svg.getBoundingClientRect().width > 100)"
    assert browser.execute_script(drawn) == [True] * page.count("<svg")
