"""Ground truth: which picture holds which text. Read in this one place, whatever its format.

`read_ground_truth` looks at the folder, reads what it finds there and matches it with the files that really exist.
Today's format is the table of `annotations.py`; another one is another function that returns a `Table`. Matching,
duplicates and rejections are the same for all.
"""

from __future__ import annotations

import difflib
import posixpath
import re
from dataclasses import dataclass, replace
from pathlib import Path

from stages.lib.annotations import GroundTruthError, Record, Rejection, Table, read_table
from stages.lib.images import FoundFiles, find_files, has_image_suffix, is_system_file
from stages.lib.text import is_blank, to_nfc

TABLE_NAMES = ("annotations.csv", "annotations.tsv")


@dataclass(frozen=True)
class TranscribedImage:
    """A picture that exists and its text. `name` is its NFC POSIX path below the folder; page and hand may be ""."""

    name: str
    path: Path
    text: str
    page: str
    hand: str
    row: int


@dataclass(frozen=True)
class GroundTruth:
    """All that a folder holds: samples in the order of their rows, rejections, and notes for the person at hand.

    rows: entries of the table; images: pictures in the folder, with or without a transcription.
    """

    rows: int
    images: int
    samples: list[TranscribedImage]
    rejections: list[Rejection]
    notes: list[str]


def read_ground_truth(folder: Path, encoding: str) -> GroundTruth:
    """The ground truth of `folder`; every row becomes a sample or a rejection, every picture without a row is listed.

    `encoding` is that of the annotations table. Raises GroundTruthError when the table is missing, doubled or
    unreadable as a whole, or when two files differ only in case or Unicode form.
    """
    if not folder.is_dir():
        raise GroundTruthError(f"{folder.as_posix()} is missing; put the pictures and annotations.csv there")
    found = find_files(folder)
    tables = [(name, path) for name, path in found.files if name.casefold() in TABLE_NAMES]
    if len(tables) != 1:
        seen = ", ".join(name for name, _ in tables) or "none"
        raise GroundTruthError(f"{folder.as_posix()} must hold one annotations.csv or annotations.tsv; seen: {seen}")
    table = read_table(tables[0][1], encoding)
    return _match(table, replace(found, files=[file for file in found.files if file != tables[0]]))


def _match(table: Table, found: FoundFiles) -> GroundTruth:
    files = _Files(found, [record.filename for record in table.records])
    rejections = list(table.rejections)
    taken: dict[str, list[Record]] = {}
    other_case = 0
    for record in table.records:
        name = files.find(record.filename)
        if name is None:
            rejections.append(Rejection(record.filename, record.row, files.why_not_found(record.filename)))
            continue
        other_case += name != _place(record.filename)
        if is_blank(record.text):
            rejections.append(Rejection(name, record.row, "empty text: nothing is transcribed"))
        elif "\N{REPLACEMENT CHARACTER}" in record.text:
            reason = "damaged text: it holds U+FFFD, the trace of a wrong encoding; restore the original text"
            rejections.append(Rejection(name, record.row, reason))
        else:
            taken.setdefault(name, []).append(record)
    samples = []
    for name, records in taken.items():
        refused = _settle_repeats(name, records)
        rejections += refused
        if len(refused) < len(records):
            first = records[0]
            samples.append(TranscribedImage(name, files.paths[name], first.text, first.page, first.hand, first.row))
    without = f"no transcription: no row of {table.name} names it"
    rejections += [Rejection(name, None, without, counted=False) for name in files.unnamed]
    notes = []
    if table.unused_columns:
        notes.append(f"{table.name}: columns that are not used: {', '.join(table.unused_columns)}")
    if other_case:
        notes.append(f"{table.name}: {other_case} row(s) write their file name in another letter case")
    images = sum(has_image_suffix(name) or name in taken for name in files.paths)
    return GroundTruth(table.rows, images, samples, rejections, notes)


def _settle_repeats(name: str, records: list[Record]) -> list[Rejection]:
    """The rejections among the rows of one picture: all but the first when they agree, all when they do not."""
    first = records[0]
    for what, values in {
        "texts": {record.text for record in records},
        "pages": {record.page for record in records},
        "hands": {record.hand for record in records},
    }.items():
        if len(values) > 1:
            rows = ", ".join(str(record.row) for record in records)
            reason = f"named twice with different {what}: rows {rows}; keep the right one"
            return [Rejection(name, record.row, reason) for record in records]
    reason = f"repeated: row {first.row} says the same and is kept"
    return [Rejection(name, record.row, reason, counted=False) for record in records[1:]]


def _place(filename: str) -> str | None:
    """The NFC POSIX path below the folder that a row means; None when it is absolute or leaves the folder."""
    path = to_nfc(filename).replace("\\", "/")
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return None
    path = posixpath.normpath(path)
    return None if path == ".." or path.startswith("../") else path


def _key(name: str) -> str:
    """What two names share when a file system could take them for one."""
    return to_nfc(name.casefold())


class _Files:
    """The files of the folder, found by what a row calls them. A row never touches the disk itself.

    paths: name to path; unnamed: pictures that no row names.
    """

    def __init__(self, found: FoundFiles, filenames: list[str]) -> None:
        self.paths = dict(found.files)
        self.root = found.root
        self.links = {_key(name): target for name, target in found.links.items()}
        by_key: dict[str, list[str]] = {}
        for name, _ in found.files:
            by_key.setdefault(_key(name), []).append(name)
        places = map(_place, filenames)
        named = {_key(place) for place in places if place is not None}
        clashes = [
            " and ".join(f'"{name}"' for name in names)
            for key, names in by_key.items()
            if len(names) > 1 and (key in named or has_image_suffix(key))
        ]
        if clashes:
            raise GroundTruthError(
                "files whose names differ only in letter case or Unicode form, rename one of each:\n  "
                + "\n  ".join(clashes)
            )
        self.by_key = {key: names[0] for key, names in by_key.items()}
        self.unnamed = [name for key, name in self.by_key.items() if key not in named and has_image_suffix(name)]
        self.by_last_part = {posixpath.basename(key): name for key, name in self.by_key.items()}

    def find(self, filename: str) -> str | None:
        """The name of the file that a row means, in whatever case and Unicode form; None when there is none."""
        place = _place(filename)
        return None if place is None else self.by_key.get(_key(place))

    def why_not_found(self, filename: str) -> str:
        """The reason for a row whose file `find` does not know."""
        if not filename:
            return "no file name: the field is empty"
        place = _place(filename)
        if place is None:
            return "outside data/raw: write the path from data/raw on, such as page1/line3.jpg"
        parts = place.split("/")
        for end in range(1, len(parts) + 1):
            target = self.links.get(_key("/".join(parts[:end])))
            if target is not None and not Path(target).is_relative_to(self.root):
                return f"outside data/raw: a link leads to {target}; copy the file itself into data/raw"
            if target is not None:
                return f"link that is not followed: it leads to {target}; name the file by its own path"
        if any(is_system_file(part) for part in parts if part != "."):
            return "system file: hidden and system files are not read; rename it if it is a picture"
        # The right name in another folder first; else what looks alike among the pictures that still lack a row.
        nearest = [self.by_last_part[_key(parts[-1])]] if _key(parts[-1]) in self.by_last_part else []
        nearest = nearest or difflib.get_close_matches(place, self.unnamed, n=1)
        return f'image not found: nearest "{nearest[0]}"' if nearest else "image not found: no file has a similar name"
