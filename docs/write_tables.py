"""Writes the generated tables of the documentation: `python docs/write_tables.py`.

The tables of options in docs/cli.md follow from the settings, that of findings in
docs/guides/clean.md from their kinds, and those of modules in docs/design.md from the
first lines of docstrings. They are part of the pages, so that these read well without a
build; a test fails when a table is out of date.
"""

import ast
import re
from pathlib import Path

from keras_flowers_settings import Setting, settings_of
from keras_flowers_settings.kinds import Choice, Strength, Switch

_DOCS = Path(__file__).parent
_ROOT = _DOCS.parent
_CLI, _DESIGN = _DOCS / "cli.md", _DOCS / "design.md"
_CLEAN = _DOCS / "guides" / "clean.md"
_SECTION = re.compile(r"^## keras-flowers ([\w-]+)$", re.MULTILINE)
_PACKAGE = re.compile(
    r"^### ([\w/]+)\n\n(\| module \|.*?)(?=^(?!\|)|\Z)", re.DOTALL | re.MULTILINE
)
_TABLE = re.compile(r"^\| option \|.*?(?=^(?!\|)|\Z)", re.DOTALL | re.MULTILINE)


def write_option_tables(page: str) -> str:
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
    if not isinstance(setting.kind, Choice | Strength):
        return setting.meaning
    words = [f"`{word}`" for word in setting.kind.words]
    if all(word in setting.meaning for word in words):
        return setting.meaning
    return f"{setting.meaning}: {', '.join(words[:-1])} or {words[-1]}"


def write_finding_table(page: str) -> str:
    """Returns the text of the page with the table of the kinds of findings."""
    from keras_flowers.data.findings import KINDS

    head = "| kind | meaning | in training |\n| --- | --- | --- |\n"
    rows = "".join(
        f"| `{kind.name}` | {kind.meaning} | {kind.action} |\n"
        for kind in KINDS.values()
    )
    pattern = re.escape(head) + r"(?:\|.*\n)*"
    page, count = re.subn(pattern, lambda _: head + rows, page)
    if count != 1:
        raise ValueError(f"the page has {count} tables of findings")
    return page


def write_module_tables(page: str) -> str:
    """Returns the text of the page with the tables of all packages it has sections of.

    Raises:
        ValueError: If a package of the repository has no section.
    """
    packages = {
        path.parent.relative_to(_ROOT).as_posix()
        for folder in (
            "keras_flowers",
            "callbacks",
            "tuning",
            "runtime",
            "serving",
            "cli",
            "settings",
        )
        for path in (_ROOT / folder).rglob("__init__.py")
    }
    missing = packages - {match[1] for match in _PACKAGE.finditer(page)}
    if missing:
        raise ValueError(f"docs/design.md has no section ### {sorted(missing)}")
    return _PACKAGE.sub(lambda m: f"### {m[1]}\n\n{module_table(_ROOT / m[1])}", page)


def module_table(package: Path) -> str:
    """Returns the table of the modules of a package in Markdown."""
    rows = ["| module | responsibility |", "| --- | --- |"]
    for path in sorted(package.glob("*.py")):
        if path.stem != "__init__":
            docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
            summary = docstring.partition("\n")[0].rstrip(".").replace("|", "\\|")
            rows.append(f"| `{path.stem}` | {summary} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    _CLI.write_text(write_option_tables(_CLI.read_text()))
    _DESIGN.write_text(write_module_tables(_DESIGN.read_text()))
    _CLEAN.write_text(write_finding_table(_CLEAN.read_text()))
