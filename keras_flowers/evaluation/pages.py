"""Renders self-contained HTML pages from the templates of this package."""

import base64
import functools
import hashlib
import math
from datetime import datetime
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from keras_flowers.files import printable_path
from keras_flowers.plots.text import shorten

_CAPTION_COLUMNS = 60


def render_page(template: str, *styles: str, **values: Any) -> str:
    """Returns a page that loads nothing and runs nothing.

    Args:
        template: The file of a template that extends `page.html.j2`.
        styles: The files of its styles.
        values: What the template shows. All text is escaped, except `Markup`.
    """
    page = page_environment().get_template(template)
    return page.render(**page_values(*styles), **values)


def page_values(*styles: str) -> dict[str, Any]:
    """Returns what every page shows: its style and the time.

    Args:
        styles: The files of its styles.
    """
    style = "\n".join(map(_read_template, styles))
    # The only style that the content security policy of the page allows.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {
        "style": Markup(style),
        "style_hash": digest,
        "now": datetime.now().astimezone(),
    }


@functools.cache
def page_environment() -> jinja2.Environment:
    """Returns what renders the templates: it escapes and formats their values."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_make_printable,
    )
    environment.filters |= {
        "count": _format_count,
        "duration": _format_duration,
        "metric": _format_metric,
        "number": format_number,
        "size": _format_size,
        "short": functools.partial(shorten, room=_CAPTION_COLUMNS),
    }
    return environment


def _read_template(name: str) -> str:
    folder = resources.files("keras_flowers.evaluation") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _make_printable(value: Any) -> Any:
    """Shows control characters and undecodable bytes of names as escapes."""
    is_plain = isinstance(value, str) and not isinstance(value, Markup)
    return printable_path(value) if is_plain else value


def _format_count(count: int) -> str:
    return f"{count:,}"


def format_number(value: float | None, pattern: str = ".3f") -> str:
    """Returns a number for people; a dash for `None`."""
    if value is None:
        return "—"
    if math.isfinite(value):
        return format(value, pattern)
    return "NaN" if math.isnan(value) else "∞" if value > 0 else "-∞"


def _format_metric(value: float, name: str) -> str:
    return str(int(value)) if name == "epoch" else format_number(value, ".4g")


def _format_size(size: int) -> str:
    return f"{size / 1e3:.0f} kB" if size < 1e6 else f"{size / 1e6:.1f} MB"


def _format_duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return format_number(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
