"""Rendering of a model card from the facts of a run."""

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
_AFTER_RESULTS = "## Subgroups"


def checklist_items() -> set[str]:
    """Return the names of all checklist items, such as `clear_derm_8`; they are the keys of the user's answers."""
    return {f"{name}_{item['id']}" for name, one in _checklists().items() for item in one["items"]}


def model_card(facts: CardFacts, answers: Mapping[str, str]) -> str:
    """Render the model card in Markdown, with the checklists of CLEAR Derm and TRIPOD+AI.

    The answer to a checklist item is the user's, or else comes from what the run recorded. Other items are marked as
    not known.

    Args:
        facts: Facts of the runs.
        answers: The user's answers by item, such as `clear_derm_8`.
    """
    content = {name: getattr(facts, name) for name in (*(one.name for one in fields(facts)), "assessed")}
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("melanoma", "card"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_html,
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
    """Shorten a model card to at most `most` characters.

    Whole sections are kept, the results before others, and the titles of the others are listed at the end. The text is
    empty if no section fits.
    """
    head, *sections = re.split(r"(?m)^(?=## )", markdown)
    rest = "\n\nMore in `model_card.md` of the run and of the package: {}.\n"
    titles = [section.splitlines()[0].removeprefix("## ") for section in sections]
    room = most - len(rest) - len(", ".join(titles)) - len(head) - 2
    kept = set()
    for title, section in sorted(zip(titles, sections, strict=True), key=lambda one: one[0] != "Results"):
        if len(section) <= room:
            kept.add(title)
            room -= len(section)
    if not kept:
        return ""
    text = "".join(section for title, section in zip(titles, sections, strict=True) if title in kept)
    left = [title for title in titles if title not in kept]
    return f"\n\n{head}{text}".rstrip() + (rest.format(", ".join(left)) if left else "\n")


def model_card_page(markdown: str, title: str, figures: Mapping[str, str] | None = None) -> str:
    """Render the model card as a self-contained HTML page, with HTML in its text escaped.

    Args:
        markdown: The model card.
        title: Title of the page.
        figures: Data URLs by caption, shown at the end of the results.
    """
    # Before the section that follows the results; at the end of a card of an older version without such a section.
    before, heading, after = markdown.partition(_AFTER_RESULTS)
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    content = {"title": title, "before": parser.render(before), "after": parser.render(heading + after)}
    return render_page("card", "model_card.html.j2", {**content, "figures": figures or {}})


def _checklists() -> dict[str, Any]:
    text = resources.files("melanoma.card").joinpath("checklists.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def _cell(text: object) -> str:
    """Escape a text for a cell of a Markdown table, so that no name of a class or file makes a link or an image."""
    return " ".join(str(text).replace("|", "\\|").replace("](", "]\\(").split())


def _without_html(value: object) -> object:
    """Escape HTML in the value of an expression, because viewers of Markdown may render it."""
    return value.replace("<", "&lt;") if isinstance(value, str) else value
