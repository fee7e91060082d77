import base64
import hashlib
import re

import pytest
from html_reading import read_html, table_of
from hypothesis import given
from hypothesis import strategies as st

from keras_flowers.evaluation.markup import (
    Cell,
    Html,
    element,
    joined,
    page,
    picture,
    table,
)
from keras_flowers.files import printable_path

HOSTILE = (
    "<script>alert(1)</script>",
    "</p><img src=x onerror=alert(1)>",
    "\"quoted\" & 'single' &amp;",
    "</style><!-- ]]>",
)
ANY_TEXT = st.text() | st.text(alphabet="<>&\"'/=-! \n\0\udcff")


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_no_markup(text):
    (item,) = read_html(element("p", text, title=text).markup).content
    assert item.text == text
    assert item.attributes == {"title": text}


@given(ANY_TEXT)
def test_any_text_is_read_back_on_one_line(text):
    markup = joined([element("p", text, title=text), text]).markup
    markup.encode("utf-8")
    paragraph, rest = read_html(markup).content
    shown = printable_path(text)
    assert paragraph.text == shown
    assert paragraph.attributes["title"] == shown
    assert rest == "\n" + shown


def test_an_element_has_what_it_is_given():
    inner = element("b", "bold")
    markup = element("p", "a ", inner, None, class_="x", aria_label="y", id=None).markup
    assert markup == '<p class="x" aria-label="y">a <b>bold</b></p>'
    assert element("br").markup == "<br>"
    assert (
        element("meta", name="a", content="b").markup == '<meta name="a" content="b">'
    )


def test_a_table_names_its_rows_and_columns():
    rows = [("daisy", "1", Cell("2", "total")), ("<b>", Html("<i>3</i>"), None)]
    root = read_html(table("Counts", ("class", "a", "b"), rows, "a note").markup)
    assert table_of(root, "Counts") == [
        ["class", "a", "b"],
        ["daisy", "1", "2"],
        ["<b>", "3", ""],
    ]
    scopes = [head.attributes["scope"] for head in root.all("th")]
    assert scopes == ["col", "col", "col", "row", "row"]
    assert root.one("td", **{"class": "total"}).text == "2"
    assert root.one("p").text == "a note"


def test_a_picture_stands_in_the_page():
    root = read_html(picture(b"\x89PNG", "png", 'a "b"', 3, 4).markup)
    image = root.one("img")
    assert image.attributes == {
        "src": "data:image/png;base64,iVBORw==",
        "alt": 'a "b"',
        "width": "3",
        "height": "4",
    }


def test_a_page_allows_its_own_style_alone():
    text = page("A <title>", "p { color: red; }", element("p", "body"))
    root = read_html(text)
    assert text.startswith("<!DOCTYPE html>\n")
    assert root.one("html").attributes == {"lang": "en"}
    assert root.one("title").text == "A <title>"
    assert root.one("main").one("p").text == "body"
    policy = root.one("meta", **{"http-equiv": "Content-Security-Policy"})
    rules = dict(
        re.fullmatch(r"(\S+) (.*)", rule.strip()).groups()
        for rule in policy.attributes["content"].split(";")
    )
    style = root.one("style").text.encode()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
