"""Formats report.html, a self-contained page that works offline and without scripts."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple


class ReportFigure(NamedTuple):
    """A rendered figure, also written to plots/.

    Attributes:
      name: file name without extension.
      png: content of the PNG file.
      caption: description in one or two sentences.
    """

    name: str
    png: bytes
    caption: str


class LazyFigure(NamedTuple):
    """A figure that is drawn later; drawing takes up to about two seconds.

    Attributes:
      name, caption: as in `ReportFigure`.
      draw: function that draws the figure and returns the bytes of the PNG.
    """

    name: str
    draw: Callable[[], bytes]
    caption: str


class Table(NamedTuple):
    """A table of text cells; the page right-aligns columns in which every cell is a number or `-`.

    Attributes:
      header: column names; empty: the table has no header.
      rows: cells of each row; all rows have the same length.
      caption: text above the table; empty: the table has no caption.
      strong: indices of the rows that are set in bold.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: frozenset[int] = frozenset()


class CollapsedText(NamedTuple):
    """Preformatted text, collapsed until the reader opens it.

    Attributes:
      title: summary line, always visible.
      text: content in a monospaced font.
    """

    title: str
    text: str


Element = str | ReportFigure | LazyFigure | Table | CollapsedText


class ReportSection(NamedTuple):
    """A section of a page.

    Attributes:
      title: heading of the section.
      elements: content in order; a string is a paragraph.
    """

    title: str
    elements: Sequence[Element]


_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1a1a1a;
  background: #fff; margin: 0 auto; max-width: 1080px; padding: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem;
  border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
p.lead { color: #444; margin-top: .2rem; }
nav a { margin-right: 1rem; color: #0060a0; }
figure { margin: 1rem 0; display: inline-block; vertical-align: top; max-width: 100%; }
figure img { max-width: 100%; height: auto; display: block; }
figcaption { color: #444; font-size: .87rem; max-width: 46rem; }
div.table { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; font-size: .9rem; }
caption { text-align: left; color: #444; font-size: .87rem; padding-bottom: .2rem; }
th, td { padding: .18rem .8rem .18rem 0; text-align: left; border-bottom: 1px solid #e4e4e4;
  vertical-align: top; }
th { font-weight: 600; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.strong td { font-weight: 600; }
pre { overflow-x: auto; font-size: .8rem; background: #f6f6f6; padding: .6rem; }
"""


def page(title: str, lead: str, sections: Sequence[ReportSection]) -> str:
    """Returns the HTML of a page.

    Args:
      title: title and main heading of the page.
      lead: sentence below the heading.
      sections: sections of the page, in order; every figure is rendered.
    """
    places = [
        f'<a href="#{_anchor(at)}">{html.escape(s.title)}</a>' for at, s in enumerate(sections)
    ]
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="lead">{html.escape(lead)}</p>',
        f"<nav>{' '.join(places)}</nav>",
    ]
    for at, section in enumerate(sections):
        body.append(f'<section id="{_anchor(at)}">\n<h2>{html.escape(section.title)}</h2>')
        body += [_element(element) for element in section.elements]
        body.append("</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # keeps browsers from requesting an icon
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def format_table(table: Table) -> str:
    """Formats the header and the rows of a table as aligned text, for a terminal."""
    lines = [*([table.header] if table.header else []), *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def pictures(sections: Sequence[ReportSection]) -> Iterator[ReportFigure]:
    """Yields the rendered figures of a page, in order."""
    for section in sections:
        for element in section.elements:
            if isinstance(element, ReportFigure):
                yield element


def _anchor(at: int) -> str:
    return f"part-{at + 1}"


def _element(element: Element) -> str:
    assert not isinstance(element, LazyFigure), f"{element.name} is not drawn yet"
    if isinstance(element, str):
        return f"<p>{html.escape(element)}</p>"
    if isinstance(element, ReportFigure):
        data = base64.b64encode(element.png).decode("ascii")
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(element.caption)}">'
            f"<figcaption>{html.escape(element.caption)} (plots/{html.escape(element.name)}.png)"
            "</figcaption></figure>"
        )
    if isinstance(element, CollapsedText):
        text = html.escape(element.text)
        return (
            f"<details><summary>{html.escape(element.title)}</summary><pre>{text}</pre></details>"
        )
    return _table(element)


def _table(table: Table) -> str:
    numbers = [all(map(_is_number, column)) for column in zip(*table.rows, strict=True)]
    lines = ['<div class="table"><table>']
    if table.caption:
        lines.append(f"<caption>{html.escape(table.caption)}</caption>")
    if table.header:
        cells = "".join(map(_cell, table.header, numbers, ["th"] * len(numbers)))
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for at, row in enumerate(table.rows):
        strong = ' class="strong"' if at in table.strong else ""
        lines.append(f"<tr{strong}>{''.join(map(_cell, row, numbers))}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def _cell(text: str, number: bool, kind: str = "td") -> str:
    aligned = ' class="number"' if number else ""
    return f"<{kind}{aligned}>{html.escape(text)}</{kind}>"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text == "-"
    return True
