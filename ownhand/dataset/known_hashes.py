"""Hashes of files, remembered while a file stands as it was: reading 20,000 photographs takes longer than all the rest.

A file counts as unchanged while its size, its time of change (nanoseconds) and its inode are the same, which is what
DVC and git trust, too.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ownhand.files import write_text


class HashedFile(NamedTuple):
    """SHA-256 of a file (hexadecimal), and the size, time of change (ns) and inode that it had before it was read."""

    sha256: str
    size: int
    changed_ns: int
    inode: int


def hash_file(path: Path) -> HashedFile | None:
    """Read and hash a file; None when it cannot be read, which the conversion then explains."""
    try:
        stat = path.stat()
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
    return HashedFile(digest, stat.st_size, stat.st_mtime_ns, stat.st_ino)


class KnownHashes:
    """What earlier runs hashed, in a JSON file. Only what this run asked for or was told is saved again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, HashedFile] = {}
        self.current: dict[str, HashedFile] = {}
        # A damaged file costs time only: everything is hashed anew.
        with suppress(FileNotFoundError, ValueError, TypeError, AttributeError):
            self.known = {name: HashedFile(*entry) for name, entry in json.loads(path.read_bytes()).items()}

    def of(self, path: Path) -> str | None:
        """The SHA-256 of a file, which is read only if it is not as it was; None when it cannot be read."""
        try:
            stat = path.stat()
        except OSError:
            return None
        known = self.known.get(path.as_posix())
        if known is None or known[1:] != (stat.st_size, stat.st_mtime_ns, stat.st_ino):
            known = hash_file(path)
        self.remember(path, known)
        return known.sha256 if known else None

    def remember(self, path: Path, hashed: HashedFile | None) -> None:
        """Note what another process found out about a file."""
        if hashed:
            self.current[path.as_posix()] = hashed

    def save(self) -> None:
        """Write what is known now for the next run."""
        write_text(self.path, json.dumps(self.current, ensure_ascii=False))
