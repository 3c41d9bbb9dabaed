"""Matching: what ground truth names, and the files that really exist, whatever the format."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rapidfuzz import fuzz, process

from ownhand.ground_truth.records import (
    File,
    Format,
    GroundTruthError,
    Record,
    Rejection,
    Transcriptions,
    Waiting,
    is_absolute,
)
from ownhand.ground_truth.regions import Region
from ownhand.images import FoundFiles, has_image_suffix, is_system_file
from ownhand.text import is_blank, to_nfc

GUESSES = 200  # missing files for which a similar name is looked for; a person reads no more
ROWS_SHOWN = 5  # of rows that contradict each other; each has its own rejection
LINE_WAITS = "line: its TextLine holds no text"
PAGE_WAITS = "page: its file holds no TextLine"
EMPTY = "empty text: nothing is transcribed"
LIKE = 60  # of 100: names less alike than this are no guess


@dataclass(frozen=True)
class TranscribedImage:
    """A picture that exists and its text; page and hand may be "".

    name: the picture's NFC POSIX path below the folder, for a line of a page with "#" and the line's name behind it;
    path: the file; region: the part of it that is meant, None for the whole; row: where the text was found.
    """

    name: str
    path: Path
    text: str
    page: str
    hand: str
    row: int | str
    region: Region | None = None


@dataclass(frozen=True)
class GroundTruth:
    """All that a folder holds: samples in the order of their rows, rejections, and notes for the person at hand.

    waiting: pictures and lines without a transcription, which are no rejections; set_aside: how many of those a person
    has set aside, which are in no list;
    source: the format and its files, for the log; rows: entries read; images: pictures in the folder, with or without
    a transcription.
    """

    source: str
    rows: int
    images: int
    samples: list[TranscribedImage]
    rejections: list[Rejection]
    waiting: list[Waiting]
    notes: list[str]
    set_aside: int = 0


def match(form: Format, own: Sequence[File], reading: Transcriptions, found: FoundFiles) -> GroundTruth:
    """The samples of `reading`, whose records name files of `found`.

    Raises GroundTruthError when two files that a record or a picture's suffix makes relevant differ only in letter
    case or Unicode form.
    """
    files = _Files(found, [name for record in reading.records for name in (record.filename, *record.elsewhere)])
    names = [files.find(record) for record in reading.records]
    named = {name for name in names if name is not None}
    faulty = {_key(rejection.file.partition("#")[0]) for rejection in reading.rejections}  # lines with a fault
    unnamed = [
        name for key, name in files.by_key.items() if name not in named and key not in faulty and has_image_suffix(name)
    ]
    rejections = list(reading.rejections)
    waiting: list[Waiting] = []
    taken: dict[str, list[Record]] = {}
    paths: dict[str, str] = {}
    other_case, missing = 0, 0
    for record, name in zip(reading.records, names, strict=True):
        if name is None:
            missing += 1
            reason = files.why_not_found(record.filename, unnamed if missing <= GUESSES else [])
            rejections.append(Rejection(_with_line(record.filename, record), record.row, reason))
            continue
        other_case += name not in [
            place for written in (record.filename, *record.elsewhere) for place in (to_nfc(written), _place(written))
        ]
        sample_name = _with_line(name, record)
        if is_blank(record.text) and form.blank_waits:
            waiting.append(Waiting(sample_name, record.row, LINE_WAITS if record.line else PAGE_WAITS))
        elif is_blank(record.text):
            rejections.append(Rejection(sample_name, record.row, EMPTY))
        elif "\N{REPLACEMENT CHARACTER}" in record.text:
            reason = "damaged text: it holds U+FFFD, the trace of a wrong encoding; restore the original text"
            rejections.append(Rejection(sample_name, record.row, reason))
        else:
            taken.setdefault(sample_name, []).append(record)
            paths[sample_name] = name
    samples = []
    for sample_name, records in taken.items():
        refused = _settle_repeats(sample_name, records)
        rejections += refused
        if len(refused) < len(records):
            first, name = records[0], paths[sample_name]
            page = first.page or (name if first.region else "")
            samples.append(
                TranscribedImage(sample_name, files.paths[name], first.text, page, first.hand, first.row, first.region)
            )
    waiting += [Waiting(name, "", f"picture: {form.without}") for name in unnamed]
    notes = list(reading.notes)
    if other_case:
        notes.append(f"{other_case} row(s) write their file name in another letter case")
    if samples and not any(sample.page for sample in samples):
        notes.append(
            "no page is named: every picture counts as a page of its own, and lines of one sheet may be split between "
            "training and validation; name the sheets in a column page (DATA.md)"
        )
    images = sum(has_image_suffix(name) or name in named for name in files.paths)
    listed = own[0][0] if len(own) == 1 else f"{len(own)} files, such as {own[0][0]}"
    return GroundTruth(f"{form.name} from {listed}", reading.rows, images, samples, rejections, waiting, notes)


def _with_line(name: str, record: Record) -> str:
    return f"{name}#{record.line}" if record.line else name


def _settle_repeats(name: str, records: list[Record]) -> list[Rejection]:
    """The rejections among the rows of one picture: all but the first when they agree, all when they do not."""
    first = records[0]
    said: dict[str, set[object]] = {
        "texts": {record.text for record in records},
        "pages": {record.page for record in records},
        "hands": {record.hand for record in records},
        "regions": {record.region for record in records},
    }
    for what, values in said.items():
        if len(values) > 1:
            rows = ", ".join(str(record.row) for record in records[:ROWS_SHOWN])
            rows += f" and {len(records) - ROWS_SHOWN} more" if len(records) > ROWS_SHOWN else ""
            reason = f"named twice with different {what}: rows {rows}; keep the right one"
            return [Rejection(name, record.row, reason) for record in records]
    reason = f"repeated: row {first.row} says the same and is kept"
    return [Rejection(name, record.row, reason, counted=False) for record in records[1:]]


def _place(filename: str) -> str | None:
    """The NFC POSIX path below the folder that a row means; None when it is absolute or leaves the folder."""
    if is_absolute(filename):
        return None
    path = posixpath.normpath(to_nfc(filename).replace("\\", "/"))
    return None if path == ".." or path.startswith("../") else path


def _key(name: str) -> str:
    """What two names share when a file system could take them for one."""
    return to_nfc(name.casefold())


class _Files:
    """The files of the folder, found by what a row calls them. A row never touches the disk itself.

    paths: name to path; by_key: name by what it shares with names that a file system could take for it.
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
        self.by_last_part = {posixpath.basename(key): name for key, name in self.by_key.items()}

    def find(self, record: Record) -> str | None:
        """The name of the file that a record means, in whatever case and Unicode form; None when there is none."""
        for written in (record.filename, *record.elsewhere):
            # Where a backslash or a colon may stand in a name, the file that is called so comes first.
            for place in (written, _place(written)):
                if place is not None and _key(place) in self.by_key:
                    return self.by_key[_key(place)]
        return None

    def why_not_found(self, filename: str, unnamed: list[str]) -> str:
        """The reason for a record whose file `find` does not know; a similar name is looked for in `unnamed`."""
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
        if not nearest and (like := process.extractOne(place, unnamed, scorer=fuzz.ratio, score_cutoff=LIKE)):
            nearest = [like[0]]
        return f'image not found: nearest "{nearest[0]}"' if nearest else "image not found: no file has a similar name"
