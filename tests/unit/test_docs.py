"""Links in the documentation lead somewhere."""

import re
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from melanoma.config.diagnose import diagnose
from melanoma.config.launch import register_resolvers, typed
from melanoma.config.schema import TrainConfig
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
    assert rows["training.max_minutes"].startswith("| `null` | above 0 and finite | fewer epochs if they would")
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


def test_a_data_source_works_as_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for comment, file in (("my_sources.py", "my_sources.py"), ("my_configs/data/", "my_configs/data/prefix.yaml")):
        [block] = re.findall(rf"```\w+\n(  # {comment}.*?)```", page, re.DOTALL)
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(textwrap.dedent(block), encoding="utf-8")
    for label in ("melanoma", "nevus"):
        for i in range(3):
            Image.new("RGB", (40, 40), (i, 0, 0)).save(tmp_path / f"{label}_{i}.jpg")
    from melanoma.workflows.stages import read_source  # here, so that the other tests stay fast

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    words = ["data=prefix", f"data.path={tmp_path}"]
    config, faults = diagnose("train", TrainConfig, words, [str(tmp_path / "my_configs")])
    assert faults == []
    source = read_source(typed(TrainConfig, config).data)
    assert source.classes == ["melanoma", "nevus"]
    assert source.table.label.tolist() == ["melanoma"] * 3 + ["nevus"] * 3
