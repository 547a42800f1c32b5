"""Formats report.html, a self-contained page that works offline and without scripts."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property
from html import escape
from typing import NamedTuple


@dataclasses.dataclass(frozen=True)
class ReportFigure:
    """A figure of a report, drawn on first use, for the page and for plots/NAME.png."""

    name: str
    draw: Callable[[], bytes]  # returns the content of the PNG; takes up to about two seconds
    caption: str  # one or two sentences

    @cached_property
    def png(self) -> bytes:
        """The bytes of the PNG file; the first access draws the figure."""
        return self.draw()


class ReportTable(NamedTuple):
    """A table of text cells; the page right-aligns columns that have only numbers and `-`."""

    header: Sequence[str]  # column names; empty: no header
    rows: Sequence[Sequence[str]]  # all rows have the same length
    caption: str = ""  # text above the table; empty: none
    bold: frozenset[int] = frozenset()  # indices of the rows that are set in bold


class CollapsedText(NamedTuple):
    """Preformatted text, collapsed to its title until the reader opens it."""

    title: str
    text: str


Element = str | ReportFigure | ReportTable | CollapsedText  # a string is a paragraph


class ReportSection(NamedTuple):
    """A section of a report: a heading and the elements below it, in order."""

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


def page(title: str, lead: str, sections: Sequence[ReportSection], plots: str = "plots") -> str:
    """Returns the HTML text of a report's page; draws figures that are not drawn yet.

    Args:
      title: heading of the page.
      lead: sentence below the heading.
      sections: sections in the order of the page, with links to each at the top.
      plots: directory beside the page that has the figures as PNG files; empty: there is none.
    """
    links = [
        f'<a href="#part-{number}">{escape(section.title)}</a>'
        for number, section in enumerate(sections, 1)
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{escape(lead)}</p>',
        f"<nav>{' '.join(links)}</nav>",
    ]
    for number, section in enumerate(sections, 1):
        body.append(f'<section id="part-{number}">\n<h2>{escape(section.title)}</h2>')
        body += [_element(element, plots) for element in section.elements]
        body.append("</section>")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # keeps browsers from requesting an icon
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def text(section: ReportSection) -> str:
    """Formats a section as text for a terminal: its title, paragraphs and tables.

    A figure is replaced by its caption, and collapsed text is left out. Columns that have only
    numbers and `-` are right-aligned.
    """
    blocks = [f"{section.title}\n{'=' * len(section.title)}"]
    for element in section.elements:
        if isinstance(element, str):
            blocks.append(element)
        elif isinstance(element, ReportTable):
            caption = f"{element.caption}\n" if element.caption else ""
            blocks.append(caption + format_table(element))
        elif isinstance(element, ReportFigure):
            blocks.append(f"[{element.caption}]")
    return "\n\n".join(blocks)


def format_table(table: ReportTable) -> str:
    """Formats a table as text, one line per row, for a terminal.

    Columns that have only numbers and `-` are right-aligned. The caption is omitted.
    """
    numeric = [all(map(_is_number, column)) for column in zip(*table.rows, strict=True)]
    lines = [*([table.header] if table.header else []), *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cells = (zip(line, widths, numeric, strict=True) for line in lines)
    return "\n".join(
        "  ".join(c.rjust(width) if number else c.ljust(width) for c, width, number in row).rstrip()
        for row in cells
    )


def _element(element: Element, plots: str) -> str:
    if isinstance(element, str):
        return f"<p>{escape(element)}</p>"
    if isinstance(element, ReportTable):
        return _table(element)
    if isinstance(element, CollapsedText):
        title, text = escape(element.title), escape(element.text)
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"
    data, caption = base64.b64encode(element.png).decode("ascii"), escape(element.caption)
    file = f" ({escape(plots)}/{escape(element.name)}.png)" if plots else ""
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
        f"<figcaption>{caption}{file}</figcaption></figure>"
    )


def _table(table: ReportTable) -> str:
    numeric = [all(map(_is_number, column)) for column in zip(*table.rows, strict=True)]
    lines = ['<div class="table"><table>']
    if table.caption:
        lines.append(f"<caption>{escape(table.caption)}</caption>")
    if table.header:
        lines.append(f"<thead><tr>{_cells('th', table.header, numeric)}</tr></thead>")
    lines.append("<tbody>")
    for index, row in enumerate(table.rows):
        strong = ' class="strong"' if index in table.bold else ""
        lines.append(f"<tr{strong}>{_cells('td', row, numeric)}</tr>")
    lines.append("</tbody></table></div>")
    return "\n".join(lines)


def _cells(tag: str, cells: Sequence[str], numeric: Sequence[bool]) -> str:
    tags = [f'{tag} class="number"' if number else tag for number in numeric]
    # A table without rows has no numeric columns, and shows no header cells.
    return "".join(f"<{start}>{escape(cell)}</{tag}>" for start, cell in zip(tags, cells))  # noqa: B905


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").removesuffix("%"))
    except ValueError:
        return text == "-"
    return True
