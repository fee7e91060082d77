"""Reads a page of HTML back: its elements, its texts and its tables."""

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"br", "img", "link", "meta"}


@dataclass
class Element:
    tag: str
    attributes: dict
    content: list = field(default_factory=list)

    def all(self, *tags):
        """Yields the elements below with one of the tags, in order."""
        for item in self.content:
            if isinstance(item, Element):
                if item.tag in tags:
                    yield item
                yield from item.all(*tags)

    def one(self, tag, **attributes):
        """Returns the only element below with the tag and the attributes."""
        (found,) = [
            element
            for element in self.all(tag)
            if attributes.items() <= element.attributes.items()
        ]
        return found

    @property
    def text(self):
        return "".join(c if isinstance(c, str) else c.text for c in self.content)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), attrs
        element = Element(tag, dict(attrs))
        self.open[-1].content.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag, "elements end in the order they begin"

    def handle_data(self, data):
        self.open[-1].content.append(data)


def read_html(text):
    """Returns an element that holds all others; every one of them is closed."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root]
    return reader.root


def table_of(root, caption):
    """Returns the rows of the table with the caption, lists of texts, heads first."""
    (table,) = [
        table for table in root.all("table") if table.one("caption").text == caption
    ]
    return [[cell.text for cell in row.all("th", "td")] for row in table.all("tr")]
