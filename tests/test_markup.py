"""Whatever text becomes part of an element, it is text to whoever parses the result."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdorc_telemetry.markup import Markup, escaped, html, joined

NASTY = st.text() | st.text(st.sampled_from("<>&\"'/=! \x00\n\u202e\ud800ab;#39"))


class Parsed(HTMLParser):
    """What a parser finds: elements with their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def harmless(text: str) -> str:
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in text)


@given(NASTY, NASTY)
def test_text_stays_text(inside: str, attribute: str) -> None:
    made = html.p(inside, html.b("x"), title=attribute)
    found = Parsed(made)
    assert [tag for tag, _ in found.tags] == ["p", "b"]
    assert found.tags[0][1] == {"title": harmless(attribute)}
    assert found.text == harmless(inside) + "x"
    made.encode()


def test_elements_and_attributes_are_written_as_html_has_them() -> None:
    assert (
        html.input(readonly=True, disabled=False, value=None, aria_label="a b") == '<input readonly aria-label="a b">'
    )
    assert html.rect(x=1.5, width=2) == '<rect x="1.5" width="2"/>'
    assert html.rect(html.title("t")) == "<rect><title>t</title></rect>"
    assert html.p(class_="a", for_="b") == '<p class="a" for="b"></p>'
    assert html.p("a", None, 1, 2.5, [html.i("b"), ["c"]]) == "<p>a12.5<i>b</i>c</p>"


def test_only_markup_is_taken_as_it_is() -> None:
    assert joined("<", Markup("<br>")) == "&lt;<br>"
    assert joined(f"{html.b('x')}") == "&lt;b&gt;x&lt;/b&gt;", "text made of markup is text again"


@pytest.mark.parametrize(("text", "shown"), [("a\tb\nc", "a b c"), ("\x1b[2J", "�[2J"), ("\u202egnp.exe", "�gnp.exe"),
                                             ("\ud800", "�"), ("שלום", "שלום")])  # fmt: skip
def test_what_has_no_form_is_shown_as_such(text: str, shown: str) -> None:
    assert escaped(text) == shown
