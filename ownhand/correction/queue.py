"""The queue: every line of `data/raw` with its transcription or without one, and which of them comes next."""

from __future__ import annotations

import csv
import heapq
import io
import re
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import write_text
from ownhand.folders import FoundFiles, find_files
from ownhand.ground_truth.alto_xml import FORMAT as ALTO_XML
from ownhand.ground_truth.annotations import FORMAT as ANNOTATIONS
from ownhand.ground_truth.annotations import WORKBOOK
from ownhand.ground_truth.matching import FORMATS, GroundTruth, match, read_ground_truth
from ownhand.ground_truth.page_xml import FORMAT as PAGE_XML
from ownhand.ground_truth.records import File, Format
from ownhand.ground_truth.regions import Region
from ownhand.ground_truth.set_aside import NAME as SET_ASIDE
from ownhand.ground_truth.set_aside import read_set_aside
from ownhand.ground_truth.text_files import FORMAT as TEXT_FILES
from ownhand.images import has_image_suffix
from ownhand.text import is_blank

WRITABLE = (ANNOTATIONS, TEXT_FILES, PAGE_XML, ALTO_XML)
WRITTEN = "annotations.csv or .tsv, text files beside the pictures, PAGE XML and ALTO XML"
PAGES = (PAGE_XML, ALTO_XML)
REASONS = ("unreadable", "not a line")
WAITS = " waits"  # stands for a missing text while records are matched, which would reject them; no text begins so
HELD_SECONDS = 600  # for so long a line that one tab shows comes last in the others
MOST_SPECIAL = 14
# Letters that a keyboard of their script has; others that the data hold are offered on the page.
EVERYDAY = frozenset("абвгдежзийклмнопрстуфхцчшщъыьэюяαβγδεζηθικλμνξοπρσςτυφχψω")

Stamp = tuple[int, int, int]  # size, time of change (ns) and inode: what DVC and git trust, too


@dataclass(eq=False)
class Line:
    """A line of a page, or a picture that is one. All but number and name change when the ground truth does.

    number: its own while the program runs; name: as a record's filename; picture: the name of the file that shows it;
    text: the transcription, "" while there is none; source: name and path of the file in which it stands or is to
    stand, None where there is no such file yet; row: where in it, None while nowhere; line_id: of a line of a page;
    position: among the records; place: in the order of the pages; why: the reason for which it was set aside; label:
    what a person calls it.
    """

    number: int
    name: str
    path: Path
    picture: str
    region: Region | None = None
    text: str = ""
    source: File | None = None
    row: int | None = None
    line_id: str = ""
    position: int = 0
    place: int = 0
    why: str = ""
    label: str = ""
    gone: bool = False

    @property
    def waits(self) -> bool:
        """Whether it is to be transcribed."""
        return not (self.gone or self.text or self.why)


class OpenLines:
    """All lines of a folder, transcribed or not, in a format that `prepare` reads and this program writes.

    all: by number; in_order: those that are there, by picture and place on it; form: None where there is no file of
    ground truth yet; bare_pages: pictures without a line beside PAGE or ALTO files; unusable: records that `prepare`
    rejects, which are not shown; stamps: of the files of ground truth when they were read or written last.
    """

    def __init__(self, raw: Path, encoding: str, not_truth: Iterable[str] = ()) -> None:
        self.raw = raw
        self.encoding = encoding
        self.not_truth = frozenset(not_truth)
        self.all: list[Line] = []
        self.by_name: dict[str, Line] = {}
        self.in_order: list[Line] = []
        self.form: Format | None = None
        self.stamps: dict[Path, Stamp | None] = {}
        self.bare_pages = 0
        self.unusable = 0
        self.scan()

    def scan(self) -> None:
        """Read everything anew. Lines keep their numbers; those that are no longer there are `gone`.

        Refusal for ground truth that cannot be read as a whole, and for formats that are only read.
        """
        if not self.raw.is_dir():
            raise Refusal(f"{self.raw.as_posix()} is missing; put the pictures there")
        found = find_files(self.raw)
        files = [file for file in found.files if file[0] not in self.not_truth]
        seen = [(form, own) for form in FORMATS if (own := form.find(files))]
        if len(seen) > 1 or any(form.single and len(own) > 1 for form, own in seen):
            read_ground_truth(self.raw, self.encoding, self.not_truth)  # which says what is wrong
        form, own = seen[0] if seen else (None, [])
        if form and (form not in WRITABLE or own[0][1].suffix.casefold() == WORKBOOK):
            seen_as = own[0][0] if form is ANNOTATIONS else form.name
            raise Refusal(
                f"{self.raw.as_posix()} holds its transcriptions as {seen_as}, which is read but not written here; "
                f"written are {WRITTEN} (DATA.md)"
            )
        own_names = {name for name, _ in own}
        found = replace(found, files=[file for file in files if file[0] not in own_names])
        stamps = {path: stamp_of(path) for _, path in own}  # before they are read
        truth = _read(form, own, found, self.encoding) if form else None
        noted = read_set_aside(self.raw)
        # What cannot be read has left everything as it was up to here, and is said again the next time.
        self.form, self.found, self.stamps = form, found, stamps
        for line in self.all:
            line.gone = True
        if truth:
            self._take(truth, own)
        self.unusable = sum(one.counted for one in truth.rejections) if truth else 0
        paths = dict(self.found.files)
        named = {image.path for image in truth.records if image.region or form not in PAGES} if truth else set()
        if truth:
            named |= {paths[one.file] for one in truth.rejections if one.row is not None and one.file in paths}
        bare = [(name, path) for name, path in self.found.files if has_image_suffix(name) and path not in named]
        self.bare_pages = len(bare) if form in PAGES else 0
        for name, path in [] if form in PAGES else bare:
            line = self._line(name, path, name)
            line.region, line.text, line.row, line.source = None, "", None, self._new_source(name, own)
        self._arrange(noted)

    def refresh(self, line: Line) -> None:
        """Read the line's file of ground truth anew if it is not as it was; nothing where there is no file yet."""
        if line.source is None or stamp_of(line.source[1]) == self.stamps.get(line.source[1]):
            return
        if self.form is None or self.form.single or not line.source[1].exists():
            self.scan()
            return
        stamp = stamp_of(line.source[1])
        truth = _read(self.form, [line.source], self.found, self.encoding)
        noted = read_set_aside(self.raw)
        self.stamps[line.source[1]] = stamp
        for other in self.all:
            other.gone |= other.source == line.source
        self._take(truth, [line.source])
        self._arrange(noted)

    def set_aside(self, line: Line, why: str) -> None:
        """Note in data/raw that a line is no ground truth, and why; "" takes the note back."""
        noted = read_set_aside(self.raw)
        if noted.pop(line.name, "") == why == "":
            return
        if why:
            noted[line.name] = why
        rows = io.StringIO()
        csv.writer(rows, lineterminator="\n").writerows([("filename", "why"), *noted.items()])
        write_text(self.raw / SET_ASIDE, rows.getvalue())
        line.why = why

    def _take(self, truth: GroundTruth, own: list[File]) -> None:
        """Take over what some files of ground truth say."""
        assert self.form is not None
        sources, names = dict(own), {path: name for name, path in self.found.files}
        for position, image in enumerate(truth.records):
            if self.form in PAGES and image.region is None:  # its file holds no line
                continue
            line = self._line(image.filename, image.path, names[image.path])
            line.region, line.position = image.region, position
            line.text = "" if image.text == WAITS else image.text
            line.line_id = image.line
            source = own[0][0] if self.form.single else str(image.row).removesuffix(f"#{line.line_id}")
            line.source = source, sources[source]
            line.row = image.row if isinstance(image.row, int) else None

    def _line(self, name: str, path: Path, picture: str) -> Line:
        """The line of that name, a new one if need be."""
        line = self.by_name.get(name)
        if line is None:
            line = self.by_name[name] = Line(len(self.all), name, path, picture)
            self.all.append(line)
        line.path, line.picture, line.gone = path, picture, False
        return line

    def _new_source(self, name: str, own: list[File]) -> File | None:
        """Where the transcription of a picture that no record names is to stand."""
        if self.form is not TEXT_FILES:
            return own[0] if own else None
        suffix = ".gt.txt" if any(text.casefold().endswith(".gt.txt") for text, _ in own) else ".txt"
        path = dict(self.found.files)[name]
        return name[: len(name) - len(path.suffix)] + suffix, path.with_suffix(suffix)

    def _arrange(self, noted: Mapping[str, str]) -> None:
        """Put the lines that are there in order, name them for a person, and note which were set aside."""
        there = [line for line in self.all if not line.gone]
        keys = {picture: _natural(picture) for picture in {line.picture for line in there}}
        self.in_order = sorted(there, key=lambda line: (keys[line.picture], line.position))
        on_page = Counter(line.picture for line in there)
        so_far: Counter[str] = Counter()
        for place, line in enumerate(self.in_order):
            so_far[line.picture] += 1
            line.place = place
            line.label = f"{line.picture}, line {so_far[line.picture]} of {on_page[line.picture]}"
            line.label = line.label if line.region else line.picture
            line.why = noted.get(line.name, "")


def _read(form: Format, own: list[File], found: FoundFiles, encoding: str) -> GroundTruth:
    """What some files of ground truth say of the others; a line without a text has WAITS for one."""
    reading = form.read(own, found.files, encoding)
    records = [replace(one, text=WAITS) if is_blank(one.text) else one for one in reading.records]
    return match(form, own, replace(reading, records=records), found)


class Queue:
    """Which line comes next. A line that is shown in one tab is offered to another only when no other is left.

    review: the lines that have a transcription, instead of those that wait for one; urgency: of a line, the greatest
    first, -inf where nothing is known, for the order "uncertain"; None for the order of the pages.
    """

    def __init__(self, lines: OpenLines, review: bool, urgency: Callable[[Line], float] | None) -> None:
        self.lines = lines
        self.review = review
        self.urgency = urgency
        self.skipped: set[int] = set()
        self.checked: dict[str, str] = {}  # by name: the transcription that a person looked at
        self.held: dict[int, tuple[str, float]] = {}

    def is_open(self, line: Line) -> bool:
        """Whether the line is still to be done, skipped or not."""
        if self.review:
            return bool(line.text) and not (line.gone or line.why) and self.checked.get(line.name) != line.text
        return line.waits

    def next(self, tab: str, after: Line | None = None, count: int = 1) -> list[Line]:
        """The next lines for a tab, [] at the end: those that another tab shows last, else the most urgent first.

        Of equally urgent ones those come first that follow `after` on the pages.
        """
        now = time.monotonic()
        held = {number for number, (other, since) in self.held.items() if other != tab and now - since < HELD_SECONDS}
        behind = after.place if after else -1
        urgency = self.urgency or (lambda line: 0.0)
        candidates = (line for line in self.lines.in_order if line.number not in self.skipped and self.is_open(line))
        return heapq.nsmallest(
            count, candidates, lambda line: (line.number in held, -urgency(line), line.place <= behind, line.place)
        )

    def hold(self, tab: str, line: Line) -> None:
        """Note that a tab shows the line, and no other any more."""
        self.held = {number: held for number, held in self.held.items() if held[0] != tab}
        self.held[line.number] = tab, time.monotonic()

    def count_open(self) -> tuple[int, int]:
        """(lines that are to be done, skipped ones among them)."""
        left = [line.number in self.skipped for line in self.lines.in_order if self.is_open(line)]
        return len(left), sum(left)


def special_characters(lines: Iterable[Line]) -> list[str]:
    """Characters of the transcriptions that are hard to type, the most frequent first: « — № ё, accents, old letters.

    Letters that every keyboard of the script has are left out, and those of scripts without small and capital ones;
    combining marks stand alone.
    """
    counts = Counter(character for line in lines for character in line.text)
    special = [
        character
        for character, _ in counts.most_common()
        if not character.isascii()
        and character.lower() not in EVERYDAY
        and (unicodedata.category(character)[0] in "PSMN" or unicodedata.category(character) in ("Ll", "Lu"))
    ]
    return special[:MOST_SPECIAL]


def stamp_of(path: Path) -> Stamp | None:
    """What tells that a file was changed; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _natural(name: str) -> list[tuple[str, int]]:
    """A key under which page 10 follows page 9."""
    return [(before.casefold(), int(number or 0)) for before, number in re.findall(r"(\D*)(\d*)", name)]
