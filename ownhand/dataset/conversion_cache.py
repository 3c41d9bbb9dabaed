"""Conversion cache: pictures that were converted before are taken over, so that a few new ones cost only themselves.

It lies outside the stage's outputs, which DVC deletes before the stage starts, in a folder that belongs to one set of
parameters and one version of the code. A picture is known by the content of its file, not by its name, and what was
kept is compared with its hash before it is used, unless it stands as it was hashed (known_hashes.py). Kept pictures are
hard links of the outputs where the system has them; once DVC has put its own copies in the outputs' place, they take as
much disk as data/processed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ownhand.dataset.duplicates import Picture
from ownhand.dataset.known_hashes import HashedFile, KnownHashes
from ownhand.files import write_text, writing
from ownhand.ground_truth.regions import Region
from ownhand.images import ImageLimits

INDEX = "index.jsonl"
HASHES = "hashes.json"
# The modules that decide what a converted picture looks like.
CODE = ("dataset/conversion", "dataset/duplicates", "ground_truth/regions", "images")


@dataclass(frozen=True)
class _Kept:
    width_px: int
    height_px: int
    sha256: str
    bits: bytes


class ConversionCache:
    """The converted pictures of one folder. `add` may be interrupted at any moment: what it had kept stays usable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[str, _Kept] = {}
        self.used: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        self.hashes = KnownHashes(folder / HASHES)
        index = folder / INDEX
        if index.exists():
            for line in index.read_bytes().splitlines():
                try:
                    key, width, height, sha256, bits = json.loads(line)
                    self.kept[key] = _Kept(width, height, sha256, bytes.fromhex(bits))
                except ValueError:  # the line at which an earlier run was killed
                    continue
        # Unbuffered, and begun on a line of its own: a kill leaves whole lines and perhaps a part of the last.
        self.index = index.open("ab", buffering=0)
        with writing(index):
            self.index.write(b"\n")

    def take(self, key: str, target: Path) -> Picture | None:
        """Put the kept picture of this key at `target`, where no file is; None when it is not there or damaged."""
        kept = self.kept.get(key)
        if kept is None:
            return None
        source = self._path(key)
        if self.hashes.of(source) != kept.sha256:
            return None
        _link(source, target)
        self.used.add(key)
        return Picture(target, **asdict(kept))

    def add(self, key: str, picture: Picture) -> None:
        """Keep a picture that was converted."""
        target = self._path(key)
        target.unlink(missing_ok=True)
        _link(picture.path, target)
        stat = target.stat()
        self.hashes.remember(target, HashedFile(picture.sha256, stat.st_size, stat.st_mtime_ns, stat.st_ino))
        self.kept[key] = _Kept(picture.width_px, picture.height_px, picture.sha256, picture.bits)
        with writing(self.folder / INDEX):
            self.index.write(_entry(key, self.kept[key]).encode() + b"\n")
        self.used.add(key)

    def tidy(self) -> None:
        """Remove what this run neither took nor added, and the folders of other parameters and versions."""
        self.index.close()
        self.kept = {key: kept for key, kept in self.kept.items() if key in self.used}
        lines = [_entry(key, kept) for key, kept in sorted(self.kept.items())]
        write_text(self.folder / INDEX, "\n".join(lines))
        self.hashes.save()
        known = {self._path(key).name for key in self.kept} | {INDEX, HASHES}
        _remove(path for path in self.folder.iterdir() if path.name not in known)
        _remove(path for path in self.folder.parent.iterdir() if path.name != self.folder.name)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.jpg"


def _entry(key: str, kept: _Kept) -> str:
    """A line of the index."""
    return json.dumps([key, kept.width_px, kept.height_px, kept.sha256, kept.bits.hex()])


@contextmanager
def open_cache(limits: ImageLimits) -> Iterator[ConversionCache]:
    """The cache that belongs to these settings and to today's code; pictures kept for others are not seen.

    Another run that uses a cache is waited for.
    """
    from ownhand.runtime import (  # torch behind it costs each process 300 MB
        alone_in,
        checkpoint_folder,
        fingerprint,
        hash_file,
    )

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


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
