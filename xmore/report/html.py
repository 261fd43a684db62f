"""Pages from templates, and pictures inside them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2

from xmore.images.decode import ImageRejected, decode_image

TEMPLATES = Path(__file__).with_name("templates")
SIDE = 160  # pixels of a picture in the page


def render(template: str, **values: Any) -> str:
    """A template filled in; whatever the values hold, it is shown as text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,  # captions come from strangers
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(values)


def inline(data: bytes | None, side: int = SIDE) -> str | None:
    """A small WebP as a data URI; none where there is no picture or it cannot be read."""
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
