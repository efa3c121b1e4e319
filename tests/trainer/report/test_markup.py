"""No text becomes markup, and none that cannot be seen stays hidden."""

from __future__ import annotations

import os
from html.parser import HTMLParser

import pytest

from trainer.report.markup import Markup, join, signed, tag

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "&lt;b&gt; & </td></table>",
    "]]></style><script>",
]


class Reader(HTMLParser):
    """Lists what a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


@pytest.mark.parametrize("text", HOSTILE)
def test_text_comes_out_as_it_went_in_and_opens_no_element(text: str) -> None:
    found = read(tag("p", text, title=text))

    assert found.tags == [("p", [("title", text)])]
    assert found.text == text


def test_elements_stay_elements_inside_each_other() -> None:
    assert tag("ul", tag("li", "a < b"), tag("li", "c")) == "<ul><li>a &lt; b</li><li>c</li></ul>"
    assert join("<", Markup("<br>"), "&") == "&lt;<br>&amp;"


def test_attributes_may_be_words_of_python_and_none_is_left_out() -> None:
    drawn = tag("text", class_="tick", text_anchor="end", transform=None, x=1.5)

    assert drawn == '<text class="tick" text-anchor="end" x="1.5"></text>'


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        pytest.param(os.fsdecode(b"bad\xff.png"), r"bad\udcff.png", id="no UTF-8"),
        pytest.param("two\nlines.png", r"two\nlines.png", id="line end"),
        pytest.param("gnp.\u202etxt", r"gnp.\u202etxt", id="turned direction"),
        pytest.param("mutter-größe 部品.png", "mutter-größe 部品.png", id="letters stay"),
    ],
)
def test_what_cannot_be_seen_is_written_out(name: str, seen: str) -> None:
    said = tag("p", name)

    assert said == f"<p>{seen}</p>"
    said.encode("utf-8")


def test_a_negative_number_has_a_true_minus_sign() -> None:
    assert (signed(-0.5, ".2f"), signed(0.5, ".2f")) == ("−0.50", "0.50")
