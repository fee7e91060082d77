from pathlib import Path

import pytest

from keras_flowers.errors import InputError
from keras_flowers.files import (
    explain_os_error,
    printable_path,
    temporary_sibling,
    write_text_atomically,
)


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_text_atomically(path, "é\r\n\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_an_old_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("old and longer")
    write_text_atomically(path, "new")
    assert path.read_text() == "new"


def test_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_text("old")
    with (
        pytest.raises(RuntimeError, match="half way"),
        temporary_sibling(path) as temporary,
    ):
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        temporary.write_text("half")
        raise RuntimeError("half way")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.keras"]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing/a\.txt` cannot be written: No such"):
        write_text_atomically(tmp_path / "missing" / "a.txt", "")


def test_a_full_disk_is_the_users_error_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with (
        pytest.raises(InputError, match="cannot be written: No space left"),
        temporary_sibling(path) as temporary,
    ):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(122, "Disk quota exceeded"), "written: Disk quota exceeded. Use --x"),
        (OSError(30, None), "written: Read-only file system. Use --x"),
        (OSError("no number"), "written: no number. Use --x"),
        (OSError(), "written: OSError. Use --x"),
    ],
)
def test_an_error_of_the_system_keeps_path_and_reason(
    error: OSError, message: str
) -> None:
    explained = explain_os_error(error, "a\nb", "Use --x")
    assert isinstance(explained, InputError)
    assert str(explained) == f"`a\\nb` cannot be {message}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("röse/花 1.jpg", "röse/花 1.jpg"),
        ("two\nlines\x1b[0m", r"two\nlines\x1b[0m"),
        ("\udcff.jpg", r"\udcff.jpg"),
    ],
)
def test_a_shown_path_is_one_printable_line(path: str, shown: str) -> None:
    assert printable_path(path) == shown
    assert printable_path(path).encode()
