"""Ground truth: which picture holds which text. Read in this one place, whatever its format.

`read_ground_truth` finds out which format the folder holds, has it read (a format is one file beside this one), and
matches what was read with the files that really exist.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rapidfuzz import fuzz, process

from ownhand.folders import FoundFiles, find_files, find_unfit_files, is_system_file
from ownhand.ground_truth.alto_xml import FORMAT as ALTO_XML
from ownhand.ground_truth.annotations import FORMAT as ANNOTATIONS
from ownhand.ground_truth.image_folder import FORMAT as IMAGE_FOLDER
from ownhand.ground_truth.json_lines import FORMAT as JSON_LINES
from ownhand.ground_truth.page_xml import FORMAT as PAGE_XML
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
from ownhand.ground_truth.set_aside import read_set_aside
from ownhand.ground_truth.text_files import FORMAT as TEXT_FILES
from ownhand.images import has_image_suffix
from ownhand.text import is_blank, to_nfc

SHOWN = 20  # entries that are no files, in one message
FORMATS = (ANNOTATIONS, TEXT_FILES, JSON_LINES, IMAGE_FOLDER, PAGE_XML, ALTO_XML)
GUESSES = 200  # missing files for which a similar name is looked for; a person reads no more
ROWS_SHOWN = 5  # of rows that contradict each other; each has its own rejection
LINE_WAITS = "line: its TextLine holds no text"
PAGE_WAITS = "page: its file holds no TextLine"
EMPTY = "empty text: nothing is transcribed"
LIKE = 60  # of 100: names less alike than this are no guess


@dataclass(frozen=True)
class GroundTruth:
    """All that a folder holds: records whose picture exists, in the order of their rows, rejections, and notes for the
    person at hand.

    waiting: pictures and lines without a transcription, which are no rejections; set_aside: how many of those a person
    has set aside, which are in no list;
    source: the format and its files, for the log; rows: entries read; images: pictures in the folder, with or without
    a transcription.
    """

    source: str
    rows: int
    images: int
    records: list[Record]
    rejections: list[Rejection]
    waiting: list[Waiting]
    notes: list[str]
    set_aside: int = 0


def read_ground_truth(folder: Path, encoding: str, not_truth: Collection[str] = ()) -> GroundTruth:
    """The ground truth of `folder`; every record gets its picture, or becomes a rejection, or waits for its text.

    A picture without a record waits, too; what was set aside does not. `encoding` is that of tables, text files and
    JSON lines; XML says its own. `not_truth` names files that are something else, such as a list of validation
    pictures. Raises GroundTruthError when the folder holds no format or more than one, when it holds a FIFO, a dangling
    link or another entry that is no file, when its files cannot be read as a whole, or when two files differ only in
    case or Unicode form.
    """
    if not folder.is_dir():
        raise GroundTruthError(f"{folder.as_posix()} is missing; put the pictures and annotations.csv there")
    if unfit := find_unfit_files(folder):
        raise GroundTruthError(
            f"{folder.as_posix()} holds what is no file; `dvc repro` would wait for it for ever, or stop without a "
            f"reason. Remove it, or put the file itself there: {_listed(unfit)}"
        )
    found = find_files(folder)
    found = replace(found, files=[file for file in found.files if file[0] not in not_truth])
    seen = [(form, own) for form in FORMATS if (own := form.find(found.files))]
    if not seen:
        names = ", ".join(form.name for form in FORMATS)
        raise GroundTruthError(
            f"{folder.as_posix()} holds no transcriptions in a known format; seen: none of {names}. "
            "The simplest is a file annotations.csv with the columns filename and text; DATA.md shows all"
        )
    if len(seen) > 1:
        lines = "".join(f"\n  {form.name}: {_some(own)}" for form, own in seen)
        raise GroundTruthError(
            f"{folder.as_posix()} holds transcriptions in {len(seen)} formats, and which one is right cannot be known; "
            f"leave one and move the others out of it:{lines}"
        )
    ((form, own),) = seen
    if form.single and len(own) > 1:
        raise GroundTruthError(f"{folder.as_posix()} must hold one file of the format {form.name}; seen: {_some(own)}")
    own_names = {name for name, _ in own}
    others = [file for file in found.files if file[0] not in own_names]
    truth = match(form, own, form.read(own, others, encoding), replace(found, files=others))
    return _leave_out(truth, read_set_aside(folder))


def _leave_out(truth: GroundTruth, set_aside: Collection[str]) -> GroundTruth:
    """What was set aside waits no longer, and its empty text is no fault."""
    waiting = [one for one in truth.waiting if one.file not in set_aside]
    rejections = [one for one in truth.rejections if not (one.file in set_aside and one.reason == EMPTY)]
    left_out = len(truth.waiting) - len(waiting) + len(truth.rejections) - len(rejections)
    return replace(truth, waiting=waiting, rejections=rejections, set_aside=left_out)


def _listed(unfit: dict[str, str]) -> str:
    lines = [f"\n  {name}: {what}" for name, what in unfit.items()]
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "".join(lines[:SHOWN]) + more


def _some(files: list[tuple[str, Path]]) -> str:
    shown = ", ".join(name for name, _ in files[:5])
    return shown + (f" and {len(files) - 5} more" if len(files) > 5 else "")


def match(form: Format, own: Sequence[File], said: Transcriptions, found: FoundFiles) -> GroundTruth:
    """The records of `said` with their pictures, which are files of `found`.

    Raises GroundTruthError when two files that a record or a picture's suffix makes relevant differ only in letter
    case or Unicode form.
    """
    files = _Files(found, [name for record in said.records for name in (record.filename, *record.elsewhere)])
    names = [files.find(record) for record in said.records]
    named = {name for name in names if name is not None}
    faulty = {_key(rejection.file.partition("#")[0]) for rejection in said.rejections}  # lines with a fault
    unnamed = [
        name for key, name in files.by_key.items() if name not in named and key not in faulty and has_image_suffix(name)
    ]
    rejections = list(said.rejections)
    waiting: list[Waiting] = []
    taken: dict[str, list[Record]] = {}
    paths: dict[str, str] = {}
    other_case, missing = 0, 0
    for record, name in zip(said.records, names, strict=True):
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
    matched = []
    for sample_name, records in taken.items():
        refused = _settle_repeats(sample_name, records)
        rejections += refused
        if len(refused) < len(records):
            first, name = records[0], paths[sample_name]
            page = first.page or (name if first.region else "")
            matched.append(replace(first, filename=sample_name, page=page, path=files.paths[name]))
    waiting += [Waiting(name, "", f"picture: {form.without}") for name in unnamed]
    notes = list(said.notes)
    if other_case:
        notes.append(f"{other_case} row(s) write their file name in another letter case")
    if matched and not any(record.page for record in matched):
        notes.append(
            "no page is named: every picture counts as a page of its own, and lines of one sheet may be split between "
            "training and validation; name the sheets in a column page (DATA.md)"
        )
    images = sum(has_image_suffix(name) or name in named for name in files.paths)
    listed = own[0][0] if len(own) == 1 else f"{len(own)} files, such as {own[0][0]}"
    return GroundTruth(f"{form.name} from {listed}", said.rows, images, matched, rejections, waiting, notes)


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
