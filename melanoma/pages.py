"""Self-contained HTML pages from templates that are stored next to the code that fills them."""

import base64
from typing import Any

import jinja2

__all__ = ["image_url", "render_page"]


def render_page(folder: str, template: str, content: dict[str, Any]) -> str:
    """Render a template of the package as HTML, with all values of `content` escaped.

    Args:
        folder: Folder of the template within the package, such as `audit`.
        template: File name of the template.
        content: Variables of the template.
    """
    loader = jinja2.PackageLoader("melanoma", folder)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(content)


def image_url(content: bytes, kind: str = "png") -> str:
    """Return the content of an image file as a data URL, for a page without other files."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
