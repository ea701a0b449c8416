"""Search and pages of the audit's report, in a real browser."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser import CHROMIUM, needs_chromium
from tests.commands import run_melanoma

pytestmark = [pytest.mark.slow, needs_chromium]


def test_clusters_are_searched_and_shown_in_pages(tmp_path: Path):
    from playwright.sync_api import sync_playwright

    for label in ("nevus", "melanoma"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for i in range(60):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{label}-{i:02d}.png")
    done = run_melanoma(
        "audit", "data=folder", f"data.path={tmp_path / 'set'}", "audit.near_duplicates=false",
        f"audit.output={tmp_path}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((tmp_path / "audit.html").as_uri())
        conflicts = page.locator("details").filter(has_text="contradicting labels").first
        shown = conflicts.locator(".cluster:visible")
        assert shown.count() == 24
        assert conflicts.locator(".pages").inner_text().endswith("1 to 24 of 60")
        conflicts.get_by_text("Next").click()
        conflicts.get_by_text("Next").click()
        assert shown.count() == 12
        assert conflicts.get_by_text("Next").is_disabled()
        page.get_by_placeholder("Search by file").fill("melanoma-41")
        assert shown.count() == 1
        assert "melanoma-41.png" in shown.inner_text()
        page.get_by_placeholder("Search by file").fill("no such file")
        assert (shown.count(), "nothing found" in conflicts.inner_text()) == (0, True)
        page.get_by_placeholder("Search by file").fill("")
        browser.close()
    assert faults == []
