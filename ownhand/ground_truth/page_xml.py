"""PAGE XML: pages of lines with polygons, as Transkribus, eScriptorium, LAREX and OCR-D write them."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ownhand.ground_truth.page_files import (
    PageFileError,
    TranscribedPage,
    children,
    descendants,
    find_page_files,
    numbers,
    page_size,
    points,
    read_line,
    read_page_files,
)
from ownhand.ground_truth.records import File, Format, Transcriptions
from ownhand.ground_truth.regions import Points


def read_page(root: Element) -> TranscribedPage:
    """The lines of all regions, nested ones and tables included, in the order of the file.

    Of several transcriptions of a line the one with the lowest index counts; a line without one is put together from
    its words.
    """
    pages = descendants(root, "Page")
    if len(pages) != 1:
        raise PageFileError(f"no single page: {len(pages)} Page elements in one file")
    lines = [read_line(line, line.get("id", ""), _text, _polygon) for line in descendants(pages[0], "TextLine")]
    return TranscribedPage(
        pages[0].get("imageFilename", "").strip(), page_size(pages[0], "imageWidth", "imageHeight"), lines
    )


def _text(line: Element) -> str:
    own = _transcription(line)
    if own is not None:
        return own
    found = children(line, "Word")
    if any(children(word, "Word") for word in found):
        raise PageFileError("nested words: a Word stands inside a Word, so that their order cannot be known")
    return " ".join(_transcription(word) or "" for word in found)


def _transcription(element: Element) -> str | None:
    """What its first TextEquiv says; None without one."""
    for transcription in sorted(children(element, "TextEquiv"), key=lambda one: numbers(one.get("index", "")) or [0.0]):
        for unicode in children(transcription, "Unicode"):
            return unicode.text or ""
    return None


def _polygon(line: Element) -> Points:
    for coords in children(line, "Coords"):
        # Before 2013 every point was an element.
        old = " ".join(f"{point.get('x', '')},{point.get('y', '')}" for point in children(coords, "Point"))
        return points(coords.get("points", old))
    return ()


def _find(files: Sequence[File]) -> list[File]:
    return find_page_files(files, "PcGts")


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    return read_page_files(own, files, read_page)


FORMAT = Format("PAGE XML", _find, _read, single=False, without="no PAGE XML names it", blank_waits=True)
