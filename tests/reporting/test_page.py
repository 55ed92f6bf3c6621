from __future__ import annotations

import base64
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.reporting import page

VOID = {"meta", "img", "source", "link", "br"}


class Reader(HTMLParser):
    """Reads a page: every tag must be closed, in order."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


@pytest.fixture(scope="module")
def text(make):
    return page.render([make(scale="tiny"), make()])


def test_it_asks_nobody_for_anything(text):
    for tag, attributes in read(text).tags:
        assert tag not in ("script", "link", "iframe")
        for name in ("src", "href", "srcset"):
            if name in attributes:
                assert attributes[name].startswith(("data:image/png;base64,", "#"))
    assert "@import" not in text
    assert "url(" not in text


def test_it_shows_tables_plots_and_cautions(text):
    said = " ".join(read(text).text)
    for expected in ("28.50 ± 0.58", "not given", "orderings with the paper, not levels", "Protocol: a metric on"):
        assert expected in said
    assert "a processor, 2 cores, 16.0 GiB" in said
    assert "0123456789ab" in said
    assert "from 44 records" in said.replace("  ", " ")


def test_it_shows_what_the_paper_says_of_no_cell(make, text):
    facts = "  facts: [{name: SPP's memory, value: 25830, unit: MiB, read: a log}]\n"
    said = " ".join(read(page.render([make(("  cells:\n", facts + "  cells:\n"))])).text)
    assert "What the paper also says" in said and "25830 MiB" in said
    assert "What the paper also says" not in text


def test_plots_come_in_two_inks(text):
    tags = read(text).tags
    images = [a["src"] for tag, a in tags if tag == "img"]
    sources = [a["srcset"] for tag, a in tags if tag == "source"]
    assert len(images) == len(sources) == 2
    assert not set(images) & set(sources)
    for image in (*images, *sources):
        assert base64.b64decode(image.partition(",")[2]).startswith(b"\x89PNG")
    assert "prefers-color-scheme: dark" in text


def test_its_own_links_lead_somewhere(text):
    tags = read(text).tags
    links = [a["href"] for tag, a in tags if tag == "a"]
    assert links == [f"#{a['id']}" for tag, a in tags if tag == "section"]


def test_the_same_records_give_the_same_bytes(make, text):
    assert page.render([make(scale="tiny"), make()]) == text


def test_what_people_write_cannot_become_markup(make):
    said = page.render([make(("title: Made-up numbers for tests", "title: <script>alert(1)</script> & co"))])
    assert "<script>" not in said
    assert "&lt;script&gt;" in said
    read(said)


def test_it_is_named_after_the_entry_or_the_paper(make, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "render", lambda comparisons: "the page")
    path = page.write([make()], tmp_path)
    assert (path.name, path.read_text()) == ("sample.translation.paper.html", "the page")
    assert page.write([make(), make(scale="tiny")], tmp_path).name == "sample.translation.html"
    other, stranger = replace(make(), entry="sample/speech"), replace(make(), entry="quickstart")
    assert page.write([make(), other], tmp_path).name == "sample.paper.html"
    assert page.write([make(), stranger], tmp_path).name == "all.paper.html"


def test_blanks_and_the_papers_numbers_look_different(text):
    kinds = {a.get("class") for tag, a in read(text).tags if tag == "td"}
    assert {None, "theirs", "theirs blank"} <= kinds
