"""Conversion cache: pictures that were converted before are taken over, so that a few new ones cost only themselves.

It lies outside the stage's outputs, which DVC deletes before the stage starts, in a folder that belongs to one set of
parameters and one version of the code. A picture is known by the content of its file, not by its name, and what was
kept is compared with its hash before it is used. Files that stand as they were are not read for that: reading 20,000
photographs takes longer than all the rest. Kept pictures are hard links of the outputs where the system has them; once
DVC has put its own copies in the outputs' place, they take as much disk as data/processed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ownhand.files import AppendedLines, hash_file, write_text
from ownhand.ground_truth.regions import Region
from ownhand.images import ConvertedPicture, ImageLimits

INDEX, HASHES = "index.jsonl", "hashes.json"
# The modules that decide what a converted picture looks like.
CODE = ("dataset/conversion", "dataset/duplicates", "ground_truth/regions", "images")


class KnownHashes:
    """What earlier runs hashed, in a JSON file; only what this run asked for is saved again.

    A file counts as unchanged while its size, its time of change and its inode are the same, which is what DVC and git
    trust, too. Several threads may ask.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, list[Any]] = {}
        self.current: dict[str, list[Any]] = {}
        # A damaged file costs time only: everything is hashed anew.
        with suppress(OSError, ValueError, TypeError, RecursionError):
            self.known = dict(json.loads(path.read_bytes()))

    def of(self, path: Path) -> str | None:
        """The SHA-256 of a file, which is read only if it is not as it was; None when it cannot be read."""
        try:
            stat = path.stat()
            if not S_ISREG(stat.st_mode):  # a device has no end
                return None
            entry = self.current.get(path.as_posix()) or self.known.get(path.as_posix())
            state = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
            if not isinstance(entry, list) or entry[1:] != state:
                entry = [hash_file(path), *state]
        except OSError:
            return None
        self.current[path.as_posix()] = entry
        return str(entry[0])

    def save(self) -> None:
        """Write what is known now for the next run."""
        write_text(self.path, json.dumps(self.current))  # in ASCII: a name may be no UTF-8


class ConversionCache:
    """The converted pictures of one folder. `add` may be interrupted at any moment: what it had kept stays usable."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.hashes = KnownHashes(folder / HASHES)
        self.index = AppendedLines(folder / INDEX, hashed=True)
        self.kept: dict[str, list[Any]] = {key: facts for key, *facts in self.index.kept}
        self.used: set[str] = set()

    def key(self, path: Path, region: Region | None) -> str | None:
        """What the picture in a file, or the line in its region, is kept under; None when it cannot be read."""
        content_hash = self.hashes.of(path)
        return content_hash and picture_key(content_hash, region)

    def take(self, key: str, target: Path) -> ConvertedPicture | None:
        """Put the kept picture of this key at `target`, where no file is; None when it is not there or damaged."""
        if key not in self.kept:
            return None
        width_px, height_px, sha256, bits = self.kept[key]
        if self.hashes.of(self._path(key)) != sha256:
            return None
        _link(self._path(key), target)
        self.used.add(key)
        return ConvertedPicture(target, width_px, height_px, sha256, bytes.fromhex(bits))

    def add(self, key: str, picture: ConvertedPicture) -> None:
        """Keep a picture that was converted."""
        if self._path(key).is_dir():
            shutil.rmtree(self._path(key))
        self._path(key).unlink(missing_ok=True)
        _link(picture.path, self._path(key))
        self.hashes.of(self._path(key))  # while the system has it in memory
        self.kept[key] = [picture.width_px, picture.height_px, picture.sha256, picture.bits.hex()]
        self.index.append([key, *self.kept[key]])
        self.used.add(key)

    def tidy(self) -> None:
        """Remove what this run neither took nor added, and the folders of other parameters and versions."""
        self.index.file.close()
        (self.folder / INDEX).unlink()
        with AppendedLines(self.folder / INDEX, hashed=True) as index:
            for key in sorted(self.used):
                index.append([key, *self.kept[key]])
        self.hashes.save()
        for path in self.folder.glob("*.jpg"):
            if path.stem not in self.used:
                path.unlink()
        for other in [path for path in self.folder.parent.iterdir() if path.is_dir() and path != self.folder]:
            shutil.rmtree(other)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.jpg"


@contextmanager
def open_cache(limits: ImageLimits) -> Iterator[ConversionCache]:
    """The cache that belongs to these settings and to today's code; pictures kept for others are not seen.

    Another run that uses a cache is waited for.
    """
    from ownhand.runtime import alone_in, checkpoint_folder, fingerprint  # torch behind it costs each process 300 MB

    code = {name: hash_file(Path(__file__).parents[1] / f"{name}.py") for name in CODE}
    folder = checkpoint_folder("prepare", fingerprint(asdict(limits), code))
    with alone_in(folder.parent):
        yield ConversionCache(folder)


def picture_key(content_hash: str, region: Region | None) -> str:
    """What a converted picture is kept under: the hash of its file, and of its region where it is a line of a page."""
    if region is None:
        return content_hash
    return hashlib.sha256(f"{content_hash} {region}".encode()).hexdigest()


def _link(source: Path, target: Path) -> None:
    if os.name == "nt":  # DVC may make linked files read-only, and Windows does not delete those
        shutil.copyfile(source, target)
        return
    try:
        os.link(source, target)
    except OSError as error:
        if isinstance(error, (FileNotFoundError, FileExistsError)):
            raise
        shutil.copyfile(source, target)  # another disk, or a file system without links
