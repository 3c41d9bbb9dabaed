"""Page files: what PAGE XML and ALTO XML have in common: one XML file per page that names its picture and its lines.

XML is parsed by defusedxml: entities, internal or external, are refused.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import parse

from ownhand.ground_truth.records import File, Record, Rejection, Transcriptions, beside
from ownhand.ground_truth.regions import FARTHEST_PX, Points, Region
from ownhand.images import has_image_suffix
from ownhand.text import clean_transcription, to_nfc

SNIFFED_BYTES = 4096
SHOWN_DIGITS = 20


@dataclass(frozen=True)
class TranscribedLine:
    """A line of a page; line_id may be "", polygon is empty where the file gives no region.

    problem: why the line cannot be used, else "".
    """

    line_id: str
    text: str
    polygon: Points
    problem: str = ""


@dataclass(frozen=True)
class TranscribedPage:
    """What a page file says: the picture's name as written, the page's size in the units of its polygons, lines."""

    image: str
    size: tuple[float, float] | None
    lines: list[TranscribedLine]


class PageFileError(ValueError):
    """A page file, or a line of one, that cannot be used; the message is a reason."""


def tag(element: Element) -> str:
    """The name of an element without its namespace, which differs between versions of the same format."""
    return str(element.tag).rpartition("}")[2]


def children(element: Element, name: str) -> list[Element]:
    """The direct children of that name."""
    return [child for child in element if tag(child) == name]


def descendants(element: Element, name: str) -> list[Element]:
    """All elements of that name below, in the order of the file."""
    return [child for child in element.iter() if tag(child) == name]


def read_line(
    element: Element, line_id: str, text: Callable[[Element], str], polygon: Callable[[Element], Points]
) -> TranscribedLine:
    """The line of a TextLine, read by `text` and `polygon`; what is wrong with it is its `problem`, not the file's."""
    try:
        return TranscribedLine(line_id, text(element), polygon(element))
    except PageFileError as error:
        return TranscribedLine(line_id, "", (), str(error))


def numbers(text: str) -> list[float]:
    """The numbers of a list of points, however they are separated; PageFileError for one that no page can hold."""
    found = re.findall(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?", text)
    for number in found:
        if abs(float(number)) > FARTHEST_PX:
            shown = number if len(number) <= SHOWN_DIGITS else f"{number[:SHOWN_DIGITS]}… ({len(number)} characters)"
            raise PageFileError(f"bad number: {shown} can be no place on a page")
    return [float(number) for number in found]


def points(text: str) -> Points:
    """(x, y) pairs; none at all when a number is left over."""
    values = numbers(text)
    return () if len(values) % 2 else tuple(zip(values[::2], values[1::2], strict=True))


def page_size(element: Element, width: str, height: str) -> tuple[float, float] | None:
    """The size that two attributes give; None when they are missing or not positive.

    PageFileError for a size that no page can have.
    """
    values = [numbers(element.get(name, "")) for name in (width, height)]
    if all(len(value) == 1 and value[0] > 0 for value in values):
        if values[0][0] < 1 or values[1][0] < 1:
            raise PageFileError(f"bad number: {values[0][0]:g} x {values[1][0]:g} is no size of a page")
        return values[0][0], values[1][0]
    return None


def find_page_files(files: Sequence[File], root: str) -> list[File]:
    """The XML files that begin with an element `root`, in any namespace."""
    begins = re.compile(rb"<(?:[\w.-]+:)?" + root.encode() + rb"[\s>]")
    found = []
    for name, path in files:
        if name.casefold().endswith(".xml"):
            with path.open("rb") as file:
                start = file.read(SNIFFED_BYTES)
            # UTF-16 is ASCII with zero bytes between, as far as this goes.
            if begins.search(start.replace(b"\0", b"")):
                found.append((name, path))
    return found


def read_page_files(
    own: Sequence[File], files: Sequence[File], read_page: Callable[[Element], TranscribedPage]
) -> Transcriptions:
    """The lines of all pages as records whose region is to be cut; a page is a group of the split.

    A file that cannot be read is one rejection, and so is a line with a bad number or without a region. A page without
    a line is a record without text.
    """
    pictures = Pictures(files)
    records: list[Record] = []
    rejections: list[Rejection] = []
    for source, path in own:
        try:
            page = read_page(parse_page_file(path))
        except PageFileError as error:
            rejections.append(Rejection(source, source, str(error)))
            continue
        filename, *elsewhere = pictures.places(source, page.image)
        if not page.lines:  # the page itself waits
            records.append(Record(source, filename, "", elsewhere=tuple(elsewhere)))
        for number, line in enumerate(page.lines, 1):
            line_id = line.line_id or str(number)
            row = f"{source}#{line_id}"
            problem = line.problem or ("no region: no polygon or box is given" if len(line.polygon) < 3 else "")
            if problem:
                rejections.append(Rejection(f"{filename}#{line_id}", row, problem))
                continue
            region = Region(line.polygon, page.size)
            text = clean_transcription(line.text)
            records.append(Record(row, filename, text, region=region, line=line_id, elsewhere=tuple(elsewhere)))
    return Transcriptions(len(records) + len(rejections), records, rejections)


def parse_page_file(path: Path) -> Element:
    """The root element of an XML file; PageFileError for broken XML and for entities."""
    try:
        root: Any = parse(path).getroot()
    except ParseError as error:
        raise PageFileError(f"broken XML: {error}") from None
    except DefusedXmlException as error:
        raise PageFileError(f"unsafe XML: it defines entities, which are never read ({error})") from None
    except (LookupError, ValueError) as error:  # an encoding that does not exist, or another one than declared
        raise PageFileError(f"broken XML: {error}") from None
    return root  # type: ignore[no-any-return]


class Pictures:
    """The names of the pictures among files, found by an XML file that is called like them or that names them."""

    def __init__(self, files: Sequence[File]) -> None:
        self._by_stem: dict[str, list[str]] = {}
        self._by_last_part: dict[str, list[str]] = {}
        self._folders: set[str] = set()
        for name, _ in files:
            if has_image_suffix(name):
                self._by_stem.setdefault(_stem(name), []).append(name)
                self._by_last_part.setdefault(_last_part(name), []).append(name)
                self._folders.add(posixpath.dirname(name))

    def called_like(self, source: str) -> list[str]:
        """The pictures that differ from an XML file in their suffix alone."""
        return self._by_stem.get(_stem(source), [])

    def places(self, source: str, written: str) -> list[str]:
        """Where the picture of an XML file may be: as written from the XML file on; its name beside the XML or one
        folder up; the picture that is called like the XML file; for an XML file in a folder without pictures, the
        only picture anywhere that has the written name.
        """
        if not written:  # then it is called like the XML file
            return self.called_like(source) or [str(PurePosixPath(source).with_suffix(".jpg"))]
        # A picture's path may be another computer's; exporters put XML files into a folder of their own.
        last = re.split(r"[/\\]", written)[-1]
        folder = posixpath.dirname(source)
        places = [beside(source, written), beside(source, last)]
        if folder:
            places.append(posixpath.join(posixpath.dirname(folder), last))
        alike = self.called_like(source)
        named = [] if folder in self._folders else self._by_last_part.get(_last_part(last), [])
        for others in (alike, named):
            places += others if len(others) == 1 else []
        return places


def _stem(name: str) -> str:
    return to_nfc(str(PurePosixPath(name).with_suffix("")).casefold())


def _last_part(name: str) -> str:
    return to_nfc(posixpath.basename(name).casefold())
