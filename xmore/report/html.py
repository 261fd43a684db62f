"""Pages from templates, and images embedded in them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2

from xmore.images.decode import ImageRejected, decode_image

TEMPLATES = Path(__file__).with_name("templates")
SIDE = 160  # pixels of an image's longer side in a page


def render(template: str, **values: Any) -> str:
    """Fill in a template; all values are shown as text, never interpreted as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # captions are untrusted text
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(values)


def inline(data: bytes | None, side: int = SIDE) -> str | None:
    """Return a small WebP as a data URI; None if there is no image or it cannot be decoded."""
    if data is None:
        return None
    try:
        image = decode_image(data)
    except ImageRejected:
        return None
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=75)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
