"""Writing files and folders: whole or not at all; and reading JSON, which may be damaged.

Everything is written under a temporary name beside its place, flushed to the disk and then renamed, so that a kill or a
full disk leaves what was there before intact. Text is UTF-8 with "\\n" line ends on every system.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from ownhand.errors import Refusal, describe_disk, is_disk_full

# safetensors and torch raise errors of their own; torch's does not even say what the system said.
WRITE_ERRORS = ("I/O error", "inline_container", "PytorchStreamWriter", "iostream error")


class Unwritable(Refusal):
    """The system refused to write."""


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on a clean exit it is flushed and renamed to `path`, else removed.

    Unwritable, naming the file and its disk, when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.absolute())
        try:
            yield temporary
            _flush_file(temporary)
            with suppress(OSError):  # whoever may not read it, may not afterwards; there may be none yet
                shutil.copymode(path, temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def write_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`; on a clean exit it is flushed and takes the place of `target`, else it is
    removed.

    For one process at a time. Killed between its two renames, it leaves the previous folder as `target`.previous.tmp,
    which the next call puts back. A link in the place of `target` goes, not what it leads to; a file there is refused.
    Unwritable as for a file.
    """
    unfinished, previous = (target.with_name(f"{target.name}{end}.tmp") for end in ("", ".previous"))
    with writing(target):
        if target.is_file() and not target.is_symlink():
            raise Unwritable(f"{target.as_posix()} is a file, and a folder is to be written there: move the file away")
        if previous.exists() and not target.exists():
            previous.replace(target)
        for leftover in (unfinished, previous):
            remove(leftover)
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            flush_folder(unfinished)
            if target.exists() or target.is_symlink():
                target.replace(previous)
            unfinished.replace(target)
        finally:
            remove(unfinished)
        remove(previous)


def remove(path: Path) -> None:
    """Have nothing at `path`, as far as the system allows; a link goes, not what it leads to."""
    if path.is_symlink() or path.is_file():
        with suppress(OSError):
            path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong while `path` is written into Unwritable, which names it, and its disk where that is full.

    Covers OSError and the errors that safetensors and torch raise in its place; everything else passes.
    """
    try:
        yield
    except Exception as error:
        if not is_write_error(error):
            raise
        remedy = f"; {describe_disk(path)}" if is_disk_full(error, path) else ""
        seen = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
        raise Unwritable(
            f"{path.as_posix()} could not be written ({seen}); what was there before is intact{remedy}"
        ) from error


def is_write_error(error: BaseException) -> bool:
    """Whether the system refused to write, in the words of Python, safetensors or torch."""
    if isinstance(error, Refusal):  # says so already
        return False
    return isinstance(error, OSError) or any(word in str(error) for word in WRITE_ERRORS)


def clear_folder(folder: Path) -> None:
    """Have an empty folder, whatever stands in its place; a link goes, not what it leads to, as when DVC does this."""
    with writing(folder):
        if folder.is_symlink() or folder.is_file():
            folder.unlink()
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)


def flush_folder(folder: Path) -> None:
    """Have the system put every file below `folder`, and the names of all of them, on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            _flush_file(path)
    if os.name != "nt":  # Windows opens no folder
        for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _flush_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@cache  # once for each folder
def _sweep(folder: Path) -> None:
    """Remove temporary files whose process was killed."""
    for path in folder.glob("*.tmp"):
        process = re.fullmatch(r".+\.(\d+)\.tmp", path.name)
        if process and path.is_file() and not psutil.pid_exists(int(process[1])):
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """`text` as a UTF-8 file."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """`value` as indented JSON in which non-ASCII letters stay readable; NaN is refused with ValueError."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A CSV file with a header; None is an empty cell, every other value stands as Python writes it."""
    import pandas  # here, for it takes its time and few stages write tables

    frame = pandas.DataFrame(list(rows), columns=list(columns), dtype=object)
    write_text(path, frame.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file of ours by column; none without the file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


class AppendedLines:
    """A JSON Lines file that grows while work goes on; what a kill leaves of a last line is dropped.

    hashed: each object stands behind a hash of itself, for unfinished work that nobody reads but we: what was altered
    since is then said and dropped, with all behind it. key: what each object of ours has a text under. kept: the
    objects that the file held when it was opened.
    """

    def __init__(self, path: Path, hashed: bool = False, key: str | None = None) -> None:
        self.path = path
        self.hashed = hashed
        self.kept = self.read(path, hashed)
        if key and not all(isinstance(value, dict) and isinstance(value.get(key), str) for value in self.kept):
            raise Refusal(f"{path.as_posix()} was not written by this command: take another name")
        whole = b"".join(map(self._line, self.kept))
        if not path.exists() or path.read_bytes() != whole:
            write_text(path, whole.decode("utf-8"))
        self.file = path.open("ab")

    @staticmethod
    def read(path: Path, hashed: bool = False) -> list[Any]:
        """The objects of the file but a last line that was cut; none where there is no file.

        Refusal for a file that is no such file, or was damaged where nothing may be dropped, and for what is no file:
        a device or a FIFO may have no end.
        """
        if path.exists() and not path.is_file():
            raise Refusal(f"{path.as_posix()} is no file: take another name")
        values: list[Any] = []
        *lines, cut = path.read_bytes().split(b"\n") if path.exists() else [b""]
        if cut and (not cut.startswith((b"{", b"[")) or (not hashed and _is_json(cut))):
            lines.append(cut)  # no line of ours, or a whole one
        for line in lines:
            try:
                value = json.loads(line)
                if hashed:
                    digest, value = value
                    if digest != hash_value(value):
                        raise ValueError
            except (ValueError, TypeError, RecursionError):
                where = f"{path.as_posix()}, line {len(values) + 1}, is damaged or no JSON"
                if not hashed:
                    raise Refusal(f"{where}: remove the file, or take another name") from None
                print(f"{where}: what it held, and all behind it, is done again", flush=True)
                break
            values.append(value)
        return values

    def append(self, value: Any) -> None:
        """Write one object behind the others; it is in the hands of the system when this returns."""
        with writing(self.path):
            self.file.write(self._line(value))
            self.file.flush()

    def _line(self, value: Any) -> bytes:
        return _line([hash_value(value), value] if self.hashed else value)

    def __enter__(self) -> AppendedLines:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_value(value: Any) -> str:
    """SHA-256, hexadecimal, of what JSON can hold; ValueError for NaN."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _line(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file in UTF-8. Refusal, with the remedy, when it is damaged or cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{path.as_posix()} is missing; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(f"{path.as_posix()} is damaged or cannot be read ({error}); {remedy}") from None
