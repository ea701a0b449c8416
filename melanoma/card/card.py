"""From the facts of a run to its model card."""

import re
from collections.abc import Mapping
from dataclasses import fields
from importlib import resources
from typing import Any

import jinja2
import yaml
from markdown_it import MarkdownIt

from melanoma.card.facts import CardFacts
from melanoma.pages import render_page

__all__ = ["abridged", "checklist_items", "model_card", "model_card_page"]

NOT_KNOWN = "**Not known.**"


def checklist_items() -> set[str]:
    """Names of all items of the checklists, such as `clear_derm_8`, by which answers are given."""
    return {f"{name}_{item['id']}" for name, one in _checklists().items() for item in one["items"]}


def model_card(facts: CardFacts, answers: Mapping[str, str]) -> str:
    """The card in Markdown, with the checklists of CLEAR Derm and TRIPOD+AI.

    An item of a checklist is answered by what the run has recorded or by the user, and is marked as not known
    otherwise.

    Args:
        facts: of the runs.
        answers: the user's, by item, as `clear_derm_8`.
    """
    content = {name: getattr(facts, name) for name in (*(one.name for one in fields(facts)), "assessed")}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("melanoma", "card"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = _cell
    lists = []
    for name, one in _checklists().items():
        items = []
        for item in one["items"]:
            given = answers.get(f"{name}_{item['id']}")
            answer = given or environment.from_string(item.get("answer", "")).render(content).strip()
            items.append({"id": item["id"], "item": item["item"], "answer": answer or NOT_KNOWN})
        known = sum(item["answer"] != NOT_KNOWN for item in items)
        lists.append({"title": one["title"], "source": one["source"], "items": items, "known": known})
    return environment.get_template("model_card.md.j2").render({**content, "checklists": lists})


def abridged(markdown: str, most: int) -> str:
    """Of a card what fits in so many characters, in whole sections, and which others it has; empty where none fits."""
    head, *sections = re.split(r"(?m)^(?=## )", markdown)
    rest = "\n\nMore in `model_card.md` of the run and of the package: {}.\n"
    titles = [section.splitlines()[0].removeprefix("## ") for section in sections]
    room = most - len(rest) - len(", ".join(titles)) - len(head) - 2
    kept, left = [], []
    for title, section in zip(titles, sections, strict=True):
        if len(section) <= room:
            kept.append(section)
            room -= len(section)
        else:
            left.append(title)
    if not kept:
        return ""
    return f"\n\n{head}{''.join(kept)}".rstrip() + (rest.format(", ".join(left)) if left else "\n")


def model_card_page(markdown: str, title: str) -> str:
    """The card as a self-contained HTML page; HTML in names is shown, not obeyed."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return render_page("card", "model_card.html.j2", {"title": title, "body": body})


def _checklists() -> dict[str, Any]:
    text = resources.files("melanoma.card").joinpath("checklists.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _cell(text: object) -> str:
    """A text that stays in its cell of a Markdown table."""
    return " ".join(str(text).replace("|", "\\|").split())
