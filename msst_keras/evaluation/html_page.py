"""One HTML page in one file: its style, its script, and the pieces that reports are made of.

Everything is inside, and the page's own content security policy forbids the rest: no request to any host, and no script
but ours, whatever a folder is called.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from PIL import Image

STYLE = """
:root { color-scheme: light; --paper: #fff; --ink: #1b1f24; --faint: #57606a; --line: #d0d7de; --band: #f6f8fa;
  --link: #0b5cad; --own: #e8f1fb; }
@media screen and (prefers-color-scheme: dark) {
  :root { color-scheme: dark; --paper: #15191e; --ink: #e6e9ec; --faint: #a3adb8; --line: #39424d; --band: #1e242b;
    --link: #79b8ff; --own: #1c2f45; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--link); }
.faint, figcaption, footer { color: var(--faint); font-size: .875rem; }
nav ul { list-style: none; padding: 0; margin: 1rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1rem; margin: 1rem 0;
  font-size: .9rem; max-width: 60rem; }
dt { color: var(--faint); }
dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--faint); padding-bottom: .25rem; }
th, td { padding: .3rem .55rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
thead th { background: var(--band); vertical-align: bottom; }
tbody th, td.text, th.text { text-align: left; }
tbody th { font-weight: 400; position: sticky; left: 0; background: var(--paper); min-width: 7rem; max-width: 16rem;
  white-space: normal; overflow-wrap: anywhere; }
td.long { white-space: normal; min-width: 24rem; }
tr.own > *, tr.own > th { background: var(--own); font-weight: 600; }
td.best { font-weight: 700; text-decoration: underline; text-underline-offset: .2em; }
.mark { font-size: .75rem; font-weight: 400; color: var(--faint); white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button::after { content: " \\2195"; color: var(--faint); font-weight: 400; }
th[aria-sort=ascending] button::after { content: " \\2191"; color: inherit; }
th[aria-sort=descending] button::after { content: " \\2193"; color: inherit; }
:focus-visible, th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
select { font: inherit; color: inherit; background: var(--band); border: 1px solid var(--line); border-radius: .3rem;
  padding: .35rem .5rem; max-width: 100%; }
label { display: block; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; border: 1px solid var(--line); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem;
  align-items: start; }
.charts img, .timeline img { width: 100%; max-width: 40rem; background: #fff; padding: .4rem; border-radius: .3rem; }
.frame { margin: 1rem 0 1.5rem; }
.frame > figcaption { color: var(--ink); margin-bottom: .35rem; overflow-wrap: anywhere; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .6rem; }
.pictures img { width: 100%; }
.pictures figcaption { overflow-wrap: anywhere; line-height: 1.3; margin-top: .2rem; font-size: .8rem; }
details { margin: .75rem 0; }
summary { cursor: pointer; }
footer { margin: 3rem 0 1rem; padding-top: .75rem; border-top: 1px solid var(--line); }
[hidden] { display: none !important; }
@media (min-width: 40rem) { tbody th { min-width: 11rem; } }
@page { margin: 14mm; }
@media print {
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; }
  nav, .chooser, th button::after { display: none; }
  .scroll { overflow: visible; }
  table { font-size: 7.5pt; }
  th, td { padding: .15rem .3rem; }
  tbody th { position: static; min-width: 0; }
  td.long { min-width: 0; }
  thead { display: table-header-group; }
  tr, figure, .scroll, .frame { break-inside: avoid; }
  h2, h3, caption { break-after: avoid; }
  .charts { grid-template-columns: 1fr 1fr; gap: .75rem; }
  .pictures { grid-template-columns: repeat(auto-fill, minmax(2.3cm, 1fr)); gap: .3rem; }
  .timeline img { max-width: 13cm; }
  a { color: inherit; text-decoration: none; }
}
"""

SCRIPT = """
"use strict";
// Empty values stand last in either order.
function compare(one, other, isAscending) {
  const [a, b] = [one, other].map((cell) => cell.dataset.value ?? cell.textContent);
  if (a === "" || b === "") return (a === "") - (b === "");
  const order = one.dataset.value === undefined ? a.localeCompare(b, undefined, { numeric: true }) : a - b;
  return isAscending ? order : -order;
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const isAscending = header.getAttribute("aria-sort") !== "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows];
      rows.sort((one, other) => compare(one.cells[column], other.cells[column], isAscending));
      table.tBodies[0].append(...rows);
    });
  });
}
// Without script all panels are there; with it the one that is chosen.
for (const chooser of document.querySelectorAll(".chooser")) {
  const select = chooser.querySelector("select");
  const panels = [...document.getElementById(select.dataset.panels).children];
  const show = () => panels.forEach((panel, place) => { panel.hidden = place !== select.selectedIndex; });
  select.addEventListener("change", show);
  chooser.hidden = false;
  show();
}
"""


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
      text: What it shows; escaped when written.
      value: What a numeric column is sorted by: None is undefined and stands last. "" for a cell of text.
      kind: Class names of the style sheet.
      mark: A small remark behind the text.
    """

    text: str
    value: float | None | str = ""
    kind: str = ""
    mark: str = ""


def page(title: str, body: str) -> str:
    """Returns the document: `body` is HTML, `title` is text."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    policy = f"default-src 'none'; img-src data:; style-src {digest(STYLE)}; script-src {digest(SCRIPT)}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def table(caption: str, header: Sequence[Cell], rows: Sequence[Sequence[Cell]], own_row: int | None = None) -> str:
    """Returns a table that sorts by each column; the first cell of a row is its heading.

    Args:
      caption: Text above it.
      header: A cell per column.
      rows: Cells, as many in each row as the header has.
      own_row: The row to be set off, if any.
    """
    head = "".join(f'<th scope="col"{_kind(cell)}>{_content(cell)}</th>' for cell in header)
    lines = []
    for place, (first, *rest) in enumerate(rows):
        cells = "".join(f"<td{_kind(cell)}{_value(cell)}>{_content(cell)}</td>" for cell in rest)
        own = ' class="own"' if place == own_row else ""
        lines.append(f'<tr{own}><th scope="row"{_kind(first)}>{_content(first)}</th>{cells}</tr>')
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="sortable">'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody></table></div>"
    )


def _kind(cell: Cell) -> str:
    return f' class="{cell.kind}"' if cell.kind else ""


def _value(cell: Cell) -> str:
    return "" if cell.value == "" else f' data-value="{"" if cell.value is None else repr(float(cell.value))}"'


def _content(cell: Cell) -> str:
    return escape(cell.text) + (f' <span class="mark">{escape(cell.mark)}</span>' if cell.mark else "")


def picture(data: bytes, kind: str, text: str, caption: str = "") -> str:
    """Returns a figure with a picture inside the page.

    Args:
      data: The picture's file.
      kind: Its media type, such as "image/png".
      text: What it shows, for those who cannot see it.
      caption: Below it.
    """
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{source}" alt="{escape(text)}">{below}</figure>'


def panels(name: str, label: str, choices: Sequence[str], contents: Sequence[str]) -> str:
    """Returns panels of which one is shown: the one chosen in a box above them. `name` is unique in the page."""
    options = "".join(f"<option>{escape(choice)}</option>" for choice in choices)
    parts = "".join(f'<div class="panel">{content}</div>\n' for content in contents)
    chooser = f'<label>{escape(label)} <select data-panels="{name}" autocomplete="off">{options}</select></label>'
    return f'<div class="chooser" hidden>{chooser}</div>\n<div id="{name}">{parts}</div>'


def encode_image(image: np.ndarray, width: int) -> tuple[bytes, str]:
    """Returns a picture's file at a width of at most `width` pixels, and its media type.

    Args:
      image: (H, W, 3) uint8 RGB, (H, W) uint8 or (H, W) bool. What has two values becomes a PNG, all else a JPEG.
      width: Pixels; a smaller image stays as it is.
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
    """Returns a PNG of few colours (a chart) as one with a palette, a quarter of the size."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        palette = image.convert("RGB").quantize(32, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        palette.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
