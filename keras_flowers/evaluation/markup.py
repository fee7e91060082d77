"""HTML elements whose text is escaped: what is not `Html` cannot become markup."""

import base64
import hashlib
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from keras_flowers.files import printable_path

_VOID = frozenset({"br", "img", "link", "meta"})


@dataclass(frozen=True)
class Html:
    """Text that is markup already.

    Attributes:
        markup: The text.
    """

    markup: str


Content = str | Html | None


@dataclass(frozen=True)
class Cell:
    """A cell of a table that is more than its text.

    Attributes:
        content: What stands in it.
        kind: Its class, for the style.
    """

    content: Content
    kind: str


def element(tag: str, /, *content: Content, **attributes: str | int | None) -> Html:
    r"""Returns an element.

    Args:
        tag: Its name.
        *content: Text, which is escaped, or `Html`; `None` is left out. Control
            characters and bytes that are no text are shown as escapes (`\n`,
            `\udcff`).
        **attributes: Values are escaped, and left out where they are `None`. Write
            `class_` for `class`, and `_` for `-`.
    """
    inner = "".join(_markup(item) for item in content if item is not None)
    head = tag + "".join(
        f' {_attribute(key)}="{escaped(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{head}>" if tag in _VOID else f"<{head}>{inner}</{tag}>")


def joined(parts: Iterable[Content]) -> Html:
    """Returns the parts after each other, text among them escaped."""
    return Html("\n".join(_markup(part) for part in parts if part is not None))


def escaped(text: str) -> str:
    """Returns text as it stands in an element or in the quotes of an attribute."""
    return html.escape(printable_path(text))


def preformatted(text: str) -> Html:
    """Returns printable text of several lines as it is."""
    return Html(f"<pre>{html.escape(text)}</pre>")


def picture(content: bytes, kind: str, alt: str, width: int, height: int) -> Html:
    """Returns an image that stands in the page itself.

    Args:
        content: The bytes of the file.
        kind: `"png"` or `"jpeg"`.
        alt: What the picture says, for those who do not see it.
        width: In pixels, as is `height`, so that the page knows its place at once.
        height: In pixels.
    """
    data = base64.b64encode(content).decode()
    source = f"data:image/{kind};base64,{data}"
    return element("img", src=source, alt=alt, width=width, height=height)


def table(
    caption: str,
    columns: Sequence[Content | Cell],
    rows: Iterable[Sequence[Content | Cell]],
    note: str | None = None,
) -> Html:
    """Returns a table whose first column names its rows.

    Args:
        caption: What it shows.
        columns: The heads of the columns.
        rows: The cells of each row; the first is its head.
        note: Line below the table.
    """
    head = element("tr", *(_cell(name, "th", scope="col") for name in columns))
    body = (
        element("tr", _cell(first, "th", scope="row"), *map(_cell, others))
        for first, *others in rows
    )
    content = element(
        "table",
        element("caption", caption),
        element("thead", head),
        element("tbody", joined(body)),
    )
    # It scrolls by itself where it is wider than the screen, also by the keyboard.
    scrolling = element(
        "div", content, class_="scroll", role="region", tabindex=0, aria_label=caption
    )
    return joined([scrolling, element("p", note, class_="note") if note else None])


def page(title: str, style: str, body: Html) -> str:
    """Returns a whole page that can load nothing, and run nothing.

    Args:
        title: Its title.
        style: CSS; the only style that takes effect.
        body: The content.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    head = (
        Html('<meta charset="utf-8">'),
        Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        Html(f"<style>{style}</style>"),
    )
    content = joined(
        [element("head", joined(head)), element("body", element("main", body))]
    )
    return f"<!DOCTYPE html>\n{element('html', content, lang='en').markup}\n"


def _markup(content: Content) -> str:
    return content.markup if isinstance(content, Html) else escaped(content or "")


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-")


def _cell(cell: Content | Cell, tag: str = "td", **attributes: str) -> Html:
    if isinstance(cell, Cell):
        return element(tag, cell.content, class_=cell.kind, **attributes)
    return element(tag, cell, **attributes)
