"""ALTO XML: pages of lines with boxes or polygons, as kraken, eScriptorium, Transkribus and libraries write them."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element

from ownhand.ground_truth.page_files import (
    PageFileError,
    TranscribedPage,
    descendants,
    find_page_files,
    numbers,
    page_size,
    points,
    read_line,
    read_page_files,
    tag,
)
from ownhand.ground_truth.records import File, Format, Transcriptions
from ownhand.ground_truth.regions import Points, box

PIXELS = "pixel"


def read_page(root: Element) -> TranscribedPage:
    """The lines of all blocks, in the order of the file; the text is what stands on the line.

    A hyphen at the line's end (HYP) belongs to it, the rest of the word does not. A polygon wins over the box. Units
    other than pixels need the page's size in the same units.
    """
    pages = descendants(root, "Page")
    if len(pages) != 1:
        raise PageFileError(f"no single page: {len(pages)} Page elements in one file")
    unit = next((element.text or "" for element in descendants(root, "MeasurementUnit")), PIXELS).strip().casefold()
    size = page_size(pages[0], "WIDTH", "HEIGHT")
    if unit != PIXELS and size is None:
        raise PageFileError(f"no page size: regions in {unit} need WIDTH and HEIGHT of the page")
    image = next((element.text or "" for element in descendants(root, "fileName")), "").strip()
    lines = [read_line(line, line.get("ID", ""), _text, _polygon) for line in descendants(pages[0], "TextLine")]
    return TranscribedPage(image, size, lines)


def _text(line: Element) -> str:
    """Words with a space between them, whether or not SP says so, and no space before a hyphen."""
    parts: list[str] = []
    for element in line:
        if tag(element) == "String":
            parts += [" ", element.get("CONTENT", "")]
        elif tag(element) == "HYP":
            parts.append(element.get("CONTENT", "-"))
    return "".join(parts)


def _polygon(line: Element) -> Points:
    for polygon in [polygon for shape in line if tag(shape) == "Shape" for polygon in descendants(shape, "Polygon")]:
        return points(polygon.get("POINTS", ""))
    values = [numbers(line.get(name, "")) for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
    if any(len(value) != 1 for value in values):
        return ()
    (x,), (y,), (width,), (height,) = values
    return box(x, y, width, height)


def _find(files: Sequence[File]) -> list[File]:
    return find_page_files(files, "alto")


def _read(own: Sequence[File], files: Sequence[File], encoding: str) -> Transcriptions:
    return read_page_files(own, files, read_page)


FORMAT = Format("ALTO XML", _find, _read, single=False, without="no ALTO XML names it", blank_waits=True)
