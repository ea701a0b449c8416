"""What a sweep looks like in MLflow's own page, in a real browser."""

import re
from collections.abc import Iterator

import pytest

from melanoma.tracking.page import VIEW
from tests.browser import CHROMIUM, needs_chromium
from tests.commands import run_melanoma
from tests.integration.conftest import client, mlflow_server
from tests.integration.test_sweep import TINY

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of MLflow's page for the experiment of a sweep with three trials, one of which failed."""
    folder = tmp_path_factory.mktemp("page")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    done = run_melanoma(
        "sweep", *TINY, "optimizer.learning_rate=1e-3,1e-4,1e30", "sweep.name=shown", f"tracking.uri={uri}"
    )
    assert done.returncode == 4, done.stderr
    experiment = client(uri).get_experiment_by_name("melanoma").experiment_id
    with mlflow_server(uri, folder / "log", "--workers", "1") as address:
        yield f"{address}/#/experiments/{experiment}/runs"


def test_trials_are_nested_and_can_be_compared_in_charts(page_of: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1800, "height": 1100})
        page.goto(page_of)
        page.get_by_role("link", name="shown", exact=True).wait_for(timeout=120_000)
        assert page.get_by_role("link", name="optimizer.learning_rate=0.001", exact=True).count() == 0
        page.locator("button[data-component-id*=runnamecellrenderer]").first.click()
        for value in ("0.001", "0.0001", "1e+30"):
            page.get_by_role("link", name=f"optimizer.learning_rate={value}", exact=True).wait_for(timeout=30_000)
        page.goto(f"{page_of}?compareRunsMode=CHART")
        page.get_by_placeholder("Search metric charts").fill("balanced_accuracy")
        page.get_by_text("test/balanced_accuracy", exact=True).first.wait_for(timeout=60_000)
        page.get_by_text("optimizer.learning_rate=0.0001").first.wait_for()
        browser.close()


def test_the_description_leads_to_a_ranking_with_the_curves_first(page_of: str):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1900, "height": 1100})
        page.goto(page_of)
        with page.context.expect_page(timeout=120_000) as opened:
            page.get_by_role("link", name="Ranking of the runs by validation/auc").click(timeout=120_000)
        ranking = opened.value
        ranking.get_by_text("Ranking by validation/auc").first.wait_for(timeout=60_000)
        shown = [ranking.get_by_text(f"{name}", exact=True).first for name in ("validation/auc", "test/auc")]
        for column in shown:
            column.wait_for(timeout=60_000)
        assert shown[0].bounding_box()["x"] < shown[1].bounding_box()["x"]
        names = [link.inner_text() for link in ranking.get_by_role("link", name="optimizer.learning_rate=").all()]
        assert names[-1] == "optimizer.learning_rate=1e+30"  # it failed, so that it has no value
        charts = browser.new_page(viewport={"width": 1900, "height": 1100})
        charts.goto(f"{page_of}?viewStateShareKey={VIEW}&compareRunsMode=CHART")
        curves, results = (charts.get_by_text(re.compile(name)).first for name in ("^Learning curves", "^Results"))
        curves.wait_for(timeout=60_000)
        assert curves.bounding_box()["y"] < results.bounding_box()["y"]
        browser.close()
