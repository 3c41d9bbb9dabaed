"""PAGE XML, written: pages with blocks of lines, their polygons, baselines and texts, as the schema of 2019 has it.

What is written here, `ownhand.ground_truth.page_xml` reads, and so do eScriptorium and Transkribus.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import regex

from ownhand.files import write_text
from ownhand.ground_truth.regions import Points

NAMESPACE = "http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15"
SCHEMA = f"{NAMESPACE} {NAMESPACE}/pagecontent.xsd"
INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
_UNWRITABLE = regex.compile(r"[^\t\n\r\x20-\uD7FF\uE000-\uFFFD\U00010000-\U0010FFFF]")


@dataclass(frozen=True)
class PageLine:
    """A line: its name, (x, y) points in the page's pixels, and perhaps a text with a confidence between 0 and 1."""

    line_id: str
    polygon: Points
    baseline: Points = ()
    text: str | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Block:
    """Lines that belong together, in reading order: a column, notes in the margin."""

    block_id: str
    lines: list[PageLine]


@dataclass(frozen=True)
class Page:
    """image: the picture's path from the XML file on, with "/"; size: (width, height) of the upright picture in px."""

    image: str
    size: tuple[int, int]
    blocks: list[Block]

    @property
    def lines(self) -> list[PageLine]:
        """All lines in reading order."""
        return [line for block in self.blocks for line in block.lines]


def write_page_xml(path: Path, page: Page) -> None:
    """The page as a PAGE XML file, whole or not at all; points are clipped to the page."""
    write_xml(path, page_xml(page), NAMESPACE)


def page_xml(page: Page) -> Element:
    """The PcGts element of a page."""
    root = Element(_name("PcGts"), {f"{{{INSTANCE}}}schemaLocation": SCHEMA})
    metadata = SubElement(root, _name("Metadata"))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    for name, text in (("Creator", "ownhand"), ("Created", now), ("LastChange", now)):
        SubElement(metadata, _name(name)).text = text
    width, height = page.size
    attributes = {"imageFilename": writable(page.image), "imageWidth": str(width), "imageHeight": str(height)}
    element = SubElement(root, _name("Page"), attributes)
    blocks = [block for block in page.blocks if block.lines]
    if blocks:
        order = SubElement(SubElement(element, _name("ReadingOrder")), _name("OrderedGroup"), {"id": "reading-order"})
        for index, block in enumerate(blocks):
            SubElement(order, _name("RegionRefIndexed"), {"index": str(index), "regionRef": block.block_id})
    for block in blocks:
        region = SubElement(element, _name("TextRegion"), {"id": block.block_id})
        SubElement(region, _name("Coords"), {"points": points_text(_frame(block), page.size)})
        for line in block.lines:
            _add_line(region, line, page.size)
    return root


def write_xml(path: Path, root: Element, namespace: str) -> None:
    """An XML tree as an indented UTF-8 file in which `namespace` needs no prefix."""
    ElementTree.register_namespace("", namespace)
    ElementTree.register_namespace("xsi", INSTANCE)
    ElementTree.indent(root)
    write_text(path, '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n")


def set_text(line: Element, text: str, confidence: float | None) -> None:
    """Give a TextLine of any PAGE version this text, in place of every other one and of its words."""
    namespace = str(line.tag).rpartition("}")[0] + "}"
    for child in [child for child in line if str(child.tag).rpartition("}")[2] in ("TextEquiv", "Word")]:
        line.remove(child)
    attributes = {} if confidence is None else {"conf": f"{confidence:.4f}"}
    equivalent = Element(namespace + "TextEquiv" if namespace != "}" else "TextEquiv", attributes)
    SubElement(equivalent, equivalent.tag.replace("TextEquiv", "Unicode")).text = writable(text)
    after = [
        i for i, child in enumerate(line, 1) if str(child.tag).rpartition("}")[2] not in ("TextStyle", "UserDefined")
    ]
    line.insert(max(after, default=0), equivalent)


def points_text(points: Points, size: tuple[int, int]) -> str:
    """Points as PAGE and ALTO write them, in whole pixels of a page of that size."""
    width, height = size
    return " ".join(f"{min(max(round(x), 0), width)},{min(max(round(y), 0), height)}" for x, y in points)


def writable(text: str) -> str:
    """The text without the control characters that no XML file can hold."""
    return _UNWRITABLE.sub("", text)


def _add_line(region: Element, line: PageLine, size: tuple[int, int]) -> None:
    element = SubElement(region, _name("TextLine"), {"id": line.line_id})
    SubElement(element, _name("Coords"), {"points": points_text(line.polygon, size)})
    if line.baseline:
        SubElement(element, _name("Baseline"), {"points": points_text(line.baseline, size)})
    if line.text is not None:
        set_text(element, line.text, line.confidence)


def _frame(block: Block) -> Points:
    xs, ys = zip(*(point for line in block.lines for point in line.polygon), strict=True)
    return ((min(xs), min(ys)), (max(xs), min(ys)), (max(xs), max(ys)), (min(xs), max(ys)))


def _name(tag: str) -> str:
    return f"{{{NAMESPACE}}}{tag}"
