"""Self-contained HTML pages from templates that stand beside the code that fills them."""

from typing import Any

import jinja2

__all__ = ["render_page"]


def render_page(folder: str, template: str, content: dict[str, Any]) -> str:
    """A page from a template of the package, with everything in `content` escaped.

    Args:
        folder: below the package, such as `audit`.
        template: name of the file.
        content: names that the template uses.
    """
    loader = jinja2.PackageLoader("melanoma", folder)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(content)
