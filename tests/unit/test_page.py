"""The page of a report: one file, nothing from elsewhere, nothing that a name could break."""

from __future__ import annotations

import base64
import html.parser
import re

from engine.reporting.page import Folded, Picture, Section, Table, as_text, page, pictures

PICTURE = Picture("a", b"\x89PNG bytes", "What is <seen>")
SECTIONS = [
    Section("One & two", ["A <b>paragraph</b>", PICTURE]),
    Section(
        "Three",
        [
            Table(("name", "value"), [("<script>", "1,234.5"), ("b", "98.7%"), ("c", "-")], "t"),
            Folded("more", "a\n  <b>"),
        ],
    ),
]


class Balanced(html.parser.HTMLParser):
    """Every tag that is opened is closed, in order."""

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


def test_tags_are_balanced_and_text_is_escaped():
    text = page("A <title>", "lead & more", SECTIONS)
    checked = Balanced()
    checked.feed(text)
    assert checked.open == []
    assert "script" not in checked.seen and "b" not in checked.seen
    for written in ("A &lt;title&gt;", "lead &amp; more", "&lt;script&gt;", "What is &lt;seen&gt;"):
        assert written in text


def test_nothing_comes_from_elsewhere():
    text = page("t", "l", SECTIONS)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)\"", text)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "url(" not in text and "@import" not in text
    assert base64.b64encode(PICTURE.png).decode() in text


def test_columns_of_numbers_alone_are_aligned_as_numbers():
    rows = [("a", "1,234.5", "7"), ("b", "98.7%", "seven"), ("c", "-", "8")]
    text = page("t", "l", [Section("s", [Table(("name", "share", "mixed"), rows)])])
    aligned = re.findall(r'<t[dh] class="number">([^<]*)</t[dh]>', text)
    assert aligned == ["share", "1,234.5", "98.7%", "-"]


def test_every_section_can_be_gone_to():
    text = page("t", "l", SECTIONS)
    assert re.findall(r'<a href="#([^"]*)">', text) == re.findall(r'<section id="([^"]*)">', text)


def test_its_pictures_are_those_of_all_sections():
    assert list(pictures(SECTIONS)) == [PICTURE]


def test_a_table_on_a_terminal_is_in_columns():
    table = Table(("class", "n"), [("a", "1"), ("long", "1,000")])
    assert as_text(table) == "class      n\na          1\nlong   1,000"
