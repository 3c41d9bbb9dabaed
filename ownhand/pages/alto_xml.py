"""ALTO XML, written: what `page_xml` writes as PAGE, in the other format that editors and libraries read."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement

from ownhand.ground_truth.page_files import tag
from ownhand.ground_truth.regions import Points
from ownhand.pages.page_xml import Page, PageLine, points_text, writable, write_xml

NAMESPACE = "http://www.loc.gov/standards/alto/ns-v4#"


def write_alto_xml(path: Path, page: Page) -> None:
    """The page as an ALTO XML file, whole or not at all; points are clipped to the page."""
    write_xml(path, alto_xml(page), NAMESPACE)


def alto_xml(page: Page) -> Element:
    """The alto element of a page."""
    root = Element(_name("alto"))
    description = SubElement(root, _name("Description"))
    SubElement(description, _name("MeasurementUnit")).text = "pixel"
    SubElement(SubElement(description, _name("sourceImageInformation")), _name("fileName")).text = writable(page.image)
    size = {"WIDTH": str(page.size[0]), "HEIGHT": str(page.size[1])}
    element = SubElement(
        SubElement(root, _name("Layout")), _name("Page"), {"ID": "page", "PHYSICAL_IMG_NR": "1"} | size
    )
    space = SubElement(element, _name("PrintSpace"), {"HPOS": "0", "VPOS": "0"} | size)
    for block in page.blocks:
        if block.lines:
            points = tuple(point for line in block.lines for point in line.polygon)
            part = SubElement(space, _name("TextBlock"), {"ID": block.block_id} | _box(points, page.size))
            for line in block.lines:
                _add_line(part, line, page.size)
    return root


def set_text(line: Element, text: str, confidence: float | None) -> None:
    """Give a TextLine of any ALTO version this text as one String, in place of all its words."""
    for child in [child for child in line if tag(child) in ("String", "SP", "HYP")]:
        line.remove(child)
    attributes = {"CONTENT": writable(text)} | ({} if confidence is None else {"WC": f"{confidence:.4f}"})
    box = {name: line.get(name, "") for name in ("HPOS", "VPOS", "WIDTH", "HEIGHT") if line.get(name)}
    string = Element(line.tag.replace("TextLine", "String"), attributes | box)
    line.insert(sum(tag(child) == "Shape" for child in line), string)


def _add_line(block: Element, line: PageLine, size: tuple[int, int]) -> None:
    baseline = {"BASELINE": points_text(line.baseline, size)} if line.baseline else {}
    element = SubElement(block, _name("TextLine"), {"ID": line.line_id} | baseline | _box(line.polygon, size))
    shape = SubElement(element, _name("Shape"))
    SubElement(shape, _name("Polygon"), {"POINTS": points_text(line.polygon, size)})
    set_text(element, line.text or "", line.confidence)


def _box(points: Points, size: tuple[int, int]) -> dict[str, str]:
    """The frame of some points within the page."""
    (left, right), (upper, lower) = (
        (min(max(round(min(values)), 0), limit), min(max(round(max(values)), 0), limit))
        for values, limit in zip(zip(*points, strict=True), size, strict=True)
    )
    return {"HPOS": str(left), "VPOS": str(upper), "WIDTH": str(right - left), "HEIGHT": str(lower - upper)}


def _name(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"
