"""Files are whole or not there at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from ownhand.files import write_atomically, write_json, write_text


def test_text_is_utf8_with_unix_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "sub" / "a.txt", "ё\nдва\n")
    assert (tmp_path / "sub" / "a.txt").read_bytes() == "ё\nдва\n".encode()


def test_a_failure_while_writing_leaves_the_previous_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), write_atomically(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise RuntimeError
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with (
        pytest.raises(OSError, match=r"a\.txt could not be written \(No space left.*previous file is intact"),
        write_atomically(path),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text(encoding="utf-8") == "old"


def test_json_keeps_letters_readable_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ё": 1})
    assert "ё" in (tmp_path / "a.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
