"""Figures as inline SVG: part of a page, in its colors and fonts.

Matplotlib writes SVG with its own style sheet, inline styles and colors. A page with a
strict content security policy refuses the first two, and a page in dark mode would show
black text on black.
"""

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#([\w-]+)")
# Lines and text take the color of the page's text, and edges that separate bars that
# of its ground: a class, which the style of the page gives a color.
_INK, _GROUND = ("#000000", "black"), ("#ffffff", "white")
_GROUND_CLASS = "ground"
# Of the shorthand `font`, the size alone: the page has its own font.
_FONT_SIZE = re.compile(r"([\d.]+)px")


def svg_markup(figure: "Figure", name: str, description: str) -> str:
    """Returns a figure as an element `svg` for the body of a page.

    It has no styles, scripts or addresses. Black becomes `currentColor`; what is white
    has the class `ground` in place of a color; the background is transparent.

    Args:
        figure: The figure.
        name: Begins each id in it, so that they are unique on the page.
        description: What is read aloud in its place.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": name}
    with mpl.rc_context(settings):
        figure.savefig(buffer, format="svg", transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    _remove_foreign(root)
    used = {found for item in root.iter() for found in _references(item)}
    for item in root.iter():
        _convert(item, name, used)
    for size in ("width", "height"):
        del root.attrib[size]  # as wide as its place, in the proportions of `viewBox`
    root.attrib |= {"role": "img", "aria-label": description}
    ElementTree.register_namespace("", _SVG)
    text = ElementTree.tostring(root, encoding="unicode")
    # HTML knows the elements without their namespace.
    text = text.replace(f' xmlns="{_SVG}"', "")
    return re.sub(r">\s+<", "><", re.sub(r"\s+", " ", text))


def _remove_foreign(root: ElementTree.Element) -> None:
    """Removes the metadata and the style sheet of Matplotlib."""
    for parent in list(root.iter()):
        for item in list(parent):
            if item.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(item)


def _references(item: ElementTree.Element) -> list[str]:
    return [
        found
        for name, value in item.attrib.items()
        if name != "id"
        for found in _REFERENCE.findall(value)
        if f"url(#{found})" in value or name == _LINK
    ]


def _convert(item: ElementTree.Element, name: str, used: set[str]) -> None:
    identifier = item.attrib.pop("id", "")
    if identifier in used:
        item.set("id", f"{name}-{identifier}")
    link = item.attrib.pop(_LINK, None)
    if link is not None:
        item.set("href", f"#{name}-{link[1:]}")
    for rule in item.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in rule.partition(":"))
        if key == "font":
            found = _FONT_SIZE.search(value)
            key, value = "font-size", found[1] if found else ""
        if key and value:
            item.set(key, value)
    for key, value in list(item.attrib.items()):
        if "url(#" in value:
            item.set(key, value.replace("url(#", f"url(#{name}-"))
        elif value in _INK:
            item.set(key, "currentColor")
        elif value in _GROUND:
            item.set(key, "none")
            item.set("class", f"{_GROUND_CLASS}-{key}")
    if item.tag == f"{{{_SVG}}}text" and "fill" not in item.attrib:
        item.set("fill", "currentColor")
