"""The page: its contents, and whether a phone can show it."""

import re

import pytest
from markupsafe import escape

from autopeft.reporting import page
from tests.browser import chromium, missing
from tests.reporting.test_report import ANSWERS, LABELS, PREDICTIONS, SCORES, HeldOut, gather, record, store

PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}


@pytest.fixture
def report(tmp_path):
    """Of a study with three methods, whose winner was scored on the held-out rows."""
    name = "prefix_tuning prefix_length=20 prefix_projection=True learning_rate=0.0031 batch_size=16 epochs=4"
    found = [
        record(0, name=name, folds=(0.74, 0.75, 0.76)),
        record(1, "adapter", folds=(0.74, 0.70, 0.70)),
        record(2, "prefix_tuning", folds=(0.6, 0.6, 0.61)),
        record(3, "lora", "PRUNED", folds=(0.4, 0.4, 0.4), reason="fell behind: " + "x" * 60),
    ]
    limits = {number: {"max_trainable_params": -0.5 + 0.1 * number} for number in range(4)}
    store(tmp_path, found, defaults=(1, 2), constraints=limits, test_scores={"number": 0, "scores": SCORES})
    HeldOut([str(i) for i in range(120)], LABELS, ANSWERS).write(tmp_path / PREDICTIONS)
    return gather(tmp_path)


def test_the_contents_lead_to_every_heading(report):
    text = page.render(report)
    titles = dict(re.findall(r'<h2 id="(\w+)">([^<]+)</h2>', text))
    linked = dict(re.findall(r'<li><a href="#(\w+)">([^<]+)</a></li>', text))
    assert linked == titles
    assert {"detail", "leads", "fronts", "test", "cost", "trials"} <= {*titles}
    assert text.index("<nav") > text.index(escape(report.main[-1]))


@pytest.mark.browser
@pytest.mark.skipif(bool(missing()), reason=f"needs a browser, but there is no {missing()}")
def test_a_phone_shows_the_main_sentences_at_once_and_nothing_beside_the_screen(report, tmp_path):
    path = tmp_path / "report.html"
    page.write(page.render(report), path)
    with chromium() as browser:
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
        browser.get(path.as_uri())
        wide, low = browser.execute_script(
            "const main = document.querySelector('.main');"
            "return [document.documentElement.scrollWidth, main.getBoundingClientRect().bottom]"
        )
        assert wide <= PHONE["width"]
        assert low <= PHONE["height"]
