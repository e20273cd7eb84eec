"""What the page of a report is made of: tables, pictures, and the template that lays them out (page/report.html.j2)."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

_FOLDER = Path(__file__).parent / "page"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: What it shows.
      value: The number by which a column of numbers is sorted; None is undefined and comes last. "" for a cell of text.
      kind: Class names of the style sheet.
      mark: A small remark after the text.
    """

    text: str
    value: float | None | str = ""
    kind: str = ""
    mark: str = ""

    @property
    def sorted_by(self) -> str:
        """The value as the script reads it; "" if it is undefined."""
        return "" if self.value is None else repr(float(self.value))


@dataclass(frozen=True)
class Table:
    """A table that can be sorted by each column. The first cell of a row is its heading.

    Attributes:
      caption: The text above it.
      head: A cell for each column.
      rows: The cells of each row, as many as the head has.
      own_row: The row that is set off, if there is one.
    """

    caption: str
    head: Sequence[Cell]
    rows: Sequence[Sequence[Cell]]
    own_row: int | None = None


@dataclass(frozen=True)
class Picture:
    """A picture inside the page.

    Attributes:
      data: The content of the picture's file.
      kind: Its media type, such as "image/png".
      text: What it shows, for those who cannot see it.
      caption: The text below it.
    """

    data: bytes
    kind: str
    text: str
    caption: str = ""

    @property
    def source(self) -> str:
        """A "data:" address, which contains the file."""
        return f"data:{self.kind};base64,{base64.b64encode(self.data).decode()}"


def render_page(**values: object) -> str:
    """Returns the page of a report as HTML, with its style and its script. The template says which `values` it needs.

    Raises:
      jinja2.UndefinedError: a value that the template needs was not given.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["digest"] = _digest
    style, script = ((_FOLDER / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    return environment.get_template("report.html.j2").render(style=style, script=script, **values)


def _digest(text: str) -> Markup:
    """A style's or script's source expression in a content security policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return Markup(f"'sha256-{digest}'")


def encode_image(image: np.ndarray, width: int) -> tuple[bytes, str]:
    """Returns a picture's file at a width of at most `width` pixels, and its media type.

    Args:
      image: (H, W, 3) uint8 RGB, (H, W) uint8 or (H, W) bool. A bool image becomes a PNG, the others a JPEG.
      width: The largest width in pixels; a narrower image keeps its size.
    """
    levels = image.astype(np.uint8) * 255 if image.dtype == bool else image
    if levels.shape[1] > width:
        size = width, max(1, round(width * levels.shape[0] / levels.shape[1]))
        levels = cv2.resize(levels, size, interpolation=cv2.INTER_AREA)
    buffer = io.BytesIO()
    if image.dtype == bool:
        Image.fromarray(levels).save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), "image/png"
    Image.fromarray(levels).save(buffer, "JPEG", quality=80, optimize=True)
    return buffer.getvalue(), "image/jpeg"


def reduce_colours(png: bytes) -> bytes:
    """Returns a PNG of few colours, such as a chart, as a PNG with a palette, which has a quarter of the size."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        palette = image.convert("RGB").quantize(32, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
