"""Links in the documentation lead somewhere."""

import re
from pathlib import Path

import pytest

from tools import pages

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "experiments" / "README.md"])
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's titles, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {"#" + re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    lost = []
    for target, anchor in LINK.findall(page.read_text(encoding="utf-8")):
        file = page if not target else (page.parent / target).resolve()
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(f"{target}{anchor}")
    assert lost == []


def test_the_reference_of_the_keys_has_defaults_values_and_comments():
    rows = dict(re.findall(r"^\| `([\w.]+)` (\|.*)$", pages.keys_page(), re.MULTILINE))
    assert rows["training.max_minutes"].startswith("| `null` | above 0 | fewer epochs if they would take longer")
    assert rows["protocol"].startswith("| `clean` | `clean`, `published`, `both` | published: ")
    assert rows["primary_metric"].endswith("accuracy for the published protocol |")  # a comment of two lines
    assert {"sweep.n_trials", "launcher.workers", "registry.champion.margin", "model", "include_seen"} <= set(rows)
    described = [key for key, row in rows.items() if not row.endswith("|  |")]
    assert len(described) > 0.6 * len(rows) > 80


def test_every_page_of_the_site_exists():
    nav = re.findall(r": ([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    made = {"index.md", "reference/keys.md", "reference/python.md"}
    assert len(nav) > 15
    assert [name for name in nav if name not in made and not (ROOT / name).is_file()] == []
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= set(nav)


def test_every_page_is_reached_from_the_readme():
    linked = {target for target, _ in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8"))}
    assert {f"docs/{page.name}" for page in ROOT.glob("docs/*.md")} <= linked
