"""Writing files: whole or not at all.

Every file is written under a temporary name in its own folder, flushed to the disk and then renamed, so that a kill or
a full disk leaves the previous file intact. Text is UTF-8 with "\\n" line ends on every system.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed and renamed to `path`, else removed.

    Raises OSError, naming the file, when the disk is full or the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"{path} could not be written ({error.strerror}); the previous file is intact"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as a UTF-8 file."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON in which non-ASCII letters stay readable; NaN is refused with ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


class AppendedLines:
    """A JSON Lines file that grows while work goes on; what a kill leaves of a last line is dropped.

    kept: the objects that it held when it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = self.read(path)
        whole = b"".join(_line(value) for value in self.kept)
        if not path.exists() or path.read_bytes() != whole:
            write_text(path, whole.decode("utf-8"))
        self.file = path.open("ab")

    @staticmethod
    def read(path: Path) -> list[Any]:
        """The objects of the file up to the first line that is not whole; none where there is no file."""
        values = []
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            try:
                values.append(json.loads(line))
            except ValueError:
                break
            if not line.endswith(b"\n"):
                values.pop()
        return values

    def append(self, value: Any) -> None:
        """Write one object behind the others; it is in the hands of the system when this returns."""
        self.file.write(_line(value))
        self.file.flush()

    def __enter__(self) -> AppendedLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
