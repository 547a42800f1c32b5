"""The HTML page of a report: one file without external resources, with escaped text."""

from __future__ import annotations

import base64
import html.parser
import re

from engine.reporting.html_page import (
    CollapsedText,
    ReportFigure,
    ReportSection,
    ReportTable,
    format_table,
    page,
)

PICTURE = ReportFigure("a", lambda: b"\x89PNG bytes", "What is <seen>")
SECTIONS = [
    ReportSection("One & two", ["A <b>paragraph</b>", PICTURE]),
    ReportSection(
        "Three",
        [
            ReportTable(
                ("name", "value"), [("<script>", "1,234.5"), ("b", "98.7%"), ("c", "-")], "t"
            ),
            CollapsedText("more", "a\n  <b>"),
        ],
    ),
]


class Balanced(html.parser.HTMLParser):
    """HTML parser that checks that every opened tag is closed, in order."""

    VOID = frozenset({"meta", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_tags_balanced_text_escaped():
    text = page("A <title>", "lead & more", SECTIONS)
    checked = Balanced()
    checked.feed(text)
    assert checked.open == []
    assert "script" not in checked.seen and "b" not in checked.seen
    for written in ("A &lt;title&gt;", "lead &amp; more", "&lt;script&gt;", "What is &lt;seen&gt;"):
        assert written in text


def test_page_is_self_contained():
    text = page("t", "l", SECTIONS)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in text and "@import" not in text
    assert base64.b64encode(PICTURE.png).decode() in text


def test_numeric_columns_aligned():
    rows = [("a", "1,234.5", "7"), ("b", "98.7%", "seven"), ("c", "-", "8")]
    text = page("t", "l", [ReportSection("s", [ReportTable(("name", "share", "mixed"), rows)])])
    aligned = re.findall(r'<t[dh] class="number">([^<]*)</t[dh]>', text)
    assert aligned == ["share", "1,234.5", "98.7%", "-"]


def test_sections_are_linked():
    text = page("t", "l", SECTIONS)
    assert re.findall(r'<a href="#([^"]*)">', text) == re.findall(r'<section id="([^"]*)">', text)


def test_table_as_text():
    table = ReportTable(("class", "n"), [("a", "1"), ("long", "1,000")])
    assert format_table(table) == "class      n\na          1\nlong   1,000"
