"""Writes the tables of options in docs/cli.md: `python docs/write_option_tables.py`.

The tables follow from the settings that the command line is made of. They are part of
the page, so that it reads well where it is not built; a test tells when they are old.
"""

import re
from pathlib import Path

from keras_flowers_settings import Setting, settings_of
from keras_flowers_settings.kinds import Choice, Switch

_PAGE = Path(__file__).with_name("cli.md")
_SECTION = re.compile(r"^## keras-flowers (\w+)$", re.MULTILINE)
_TABLE = re.compile(r"^\| option \|.*?(?=^(?!\|)|\Z)", re.DOTALL | re.MULTILINE)


def write_tables(page: str) -> str:
    """Returns the text of the page with the tables of all its commands."""
    before, *parts = _SECTION.split(page)
    for command, section in zip(parts[::2], parts[1::2], strict=True):
        table = option_table(command)
        section, count = _TABLE.subn(lambda _, table=table: table, section)
        if count != 1:
            raise ValueError(f"the section on {command} has {count} tables of options")
        before += f"## keras-flowers {command}{section}"
    return before


def option_table(command: str) -> str:
    """Returns the table of a command in Markdown."""
    rows = ["| option | meaning | default |", "| --- | --- | --- |"]
    for setting in settings_of(command):
        cells = (_option(setting), _meaning(setting), setting.default_text)
        escaped = (cell.replace("|", "\\|") for cell in cells)
        rows.append(f"| {' | '.join(escaped)} |".replace("|  |", "| |"))
    return "\n".join(rows) + "\n"


def _option(setting: Setting) -> str:
    option = f"`{setting.flag}`"
    if isinstance(setting.kind, Switch):
        option += f", `--no-{setting.flag.removeprefix('--')}`"
    return option


def _meaning(setting: Setting) -> str:
    if not isinstance(setting.kind, Choice):
        return setting.meaning
    words = [f"`{word}`" for word in setting.kind.words]
    if all(word in setting.meaning for word in words):
        return setting.meaning
    return f"{setting.meaning}: {', '.join(words[:-1])} or {words[-1]}"


if __name__ == "__main__":
    _PAGE.write_text(write_tables(_PAGE.read_text()))
