"""Pages are read through their lines: cut as `prepare` cuts them, read together, and written where they stand.

A photograph that a PAGE or ALTO file names has the lines of that file; else they are found, where that is asked for, or
the picture is read as one line. What was read is never put into the ground truth: pages go into a folder of their own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from PIL import Image

from ownhand.dataset.conversion import OpenPage
from ownhand.errors import Refusal
from ownhand.ground_truth.page_files import PageFileError, children, descendants, points
from ownhand.ground_truth.regions import Region, box
from ownhand.images import ImageLimits, UnreadableImage, has_image_suffix
from ownhand.pages import alto_xml, page_xml
from ownhand.pages.geometry import TurnedPage
from ownhand.pages.known_lines import PageFile, PageFiles
from ownhand.pages.lines import Blocks, as_page, name_of, relative_name
from ownhand.pages.page_xml import Block, Page, PageLine
from ownhand.samples import Reading

ReadPictures = Callable[[list[Image.Image]], list[Reading]]
FindLines = Callable[[Image.Image], Blocks]
STYLES = ("page", "alto")
KINDS = {"page": "PcGts", "alto": "alto"}


@dataclass(frozen=True)
class ReadPage:
    """A photograph with what was read on it.

    page: its lines with texts and confidences where they were read; image "", for nothing is written yet; source: the
    file that the lines come from, None where they were found; readings and problems: by the line's number, counted from
    0 in reading order; problem: why nothing of it could be read.
    """

    photo: Path
    page: Page | None = None
    source: PageFile | None = None
    readings: dict[int, Reading] | None = None
    problems: dict[int, str] | None = None
    problem: str = ""

    @property
    def text(self) -> str:
        """The lines that were read, one below the other."""
        return "\n".join(reading.text for reading in (self.readings or {}).values())

    def record(self) -> dict[str, Any]:
        """What JSON holds of the page: path, text, confidence of all tokens together, runaway, and the same by line."""
        readings = self.readings or {}
        assert self.page is not None
        names = [line.line_id for line in self.page.lines]
        tokens = {
            number: reading.new_tokens + 1 for number, reading in readings.items()
        }  # the end has a confidence, too
        log = sum(tokens[number] * math.log(max(reading.confidence, 1e-9)) for number, reading in readings.items())
        return {
            "path": name_of(self.photo),
            "text": self.text,
            "confidence": round(math.exp(log / max(sum(tokens.values()), 1)), 6) if readings else 0.0,
            "runaway": any(reading.runaway for reading in readings.values()),
            "lines": [
                {"line": names[number], "text": one.text, "confidence": one.confidence, "runaway": one.runaway}
                for number, one in readings.items()
            ],
        }


def read_pages(
    photos: Iterable[tuple[Path, Path]],
    read_pictures: ReadPictures,
    limits: ImageLimits,
    find: FindLines | None = None,
    whole: bool = False,
) -> Iterator[ReadPage]:
    """Each (folder, photograph) as soon as it is read, in order; one page is in memory at a time.

    Its lines are those of a PAGE or ALTO file below the folder that names it, else what `find` finds; without `find`,
    and where `whole` is asked for, the picture is read as one. limits: those of `prepare`, for each line.
    """
    known: dict[Path, PageFiles] = {}
    for folder, photo in photos:
        try:
            if folder not in known:
                known[folder] = PageFiles(folder)
            yield _read_page(photo, None if whole else known[folder].of(photo), read_pictures, limits, find, whole)
        except UnreadableImage as error:
            yield ReadPage(photo, problem=error.reason)
        except (PageFileError, TurnedPage) as error:
            yield ReadPage(photo, problem=str(error))
        except OSError as error:
            yield ReadPage(photo, problem=error.strerror or str(error))


def _read_page(
    photo: Path,
    source: PageFile | None,
    read_pictures: ReadPictures,
    limits: ImageLimits,
    find: FindLines | None,
    whole: bool,
) -> ReadPage:
    opened = OpenPage(photo, limits)
    if isinstance(opened.image, str):
        raise UnreadableImage(photo, opened.image)
    size = opened.image.size
    problems: dict[int, str] = {}
    if source is not None:
        page, regions, problems = _known_page(source, size)
    elif find is not None and not whole:
        page = as_page("", size, find(opened.image))
        regions = [Region(line.polygon, None) for line in page.lines]
    else:
        frame = box(0, 0, *size)
        page, regions = Page("", size, [Block("r1", [PageLine("l1", frame)])]), [Region(frame, None)]
    if not page.lines:
        return ReadPage(photo, problem="no line of writing found")
    pictures: dict[int, Image.Image] = {}
    for number, region in enumerate(regions):
        if number not in problems:
            try:
                pictures[number] = opened.cut(region)
            except UnreadableImage as error:
                problems[number] = error.reason
    readings = dict(zip(pictures, read_pictures(list(pictures.values())), strict=True)) if pictures else {}
    return ReadPage(photo, _with_texts(page, readings), source, readings, problems)


def _known_page(source: PageFile, size: tuple[int, int]) -> tuple[Page, list[Region], dict[int, str]]:
    """The lines of a page file in one block, their regions, and what is wrong with some of them."""
    drawn_on = source.page.size
    scale = (size[0] / drawn_on[0], size[1] / drawn_on[1]) if drawn_on else (1.0, 1.0)
    lines, problems = [], {}
    for number, (line, element) in enumerate(zip(source.page.lines, _elements(source.root), strict=True)):
        if line.problem or len(line.polygon) < 3:
            problems[number] = line.problem or "no region: no polygon or box is given"
        try:
            baseline = points(
                next((b.get("points", "") for b in children(element, "Baseline")), element.get("BASELINE", ""))
            )
        except PageFileError:
            baseline = ()
        polygon, baseline = (tuple((x * scale[0], y * scale[1]) for x, y in some) for some in (line.polygon, baseline))
        lines.append(PageLine(line.line_id or f"l{number + 1}", polygon, baseline if len(baseline) > 1 else ()))
    regions = [Region(line.polygon, drawn_on) for line in source.page.lines]
    return Page("", size, [Block("r1", lines)]), regions, problems


def _elements(root: Element) -> list[Element]:
    return descendants(descendants(root, "Page")[0], "TextLine")


def _with_texts(page: Page, readings: dict[int, Reading]) -> Page:
    blocks, number = [], 0
    for block in page.blocks:
        lines = []
        for line in block.lines:
            reading = readings.get(number)
            lines.append(replace(line, text=reading.text, confidence=reading.confidence) if reading else line)
            number += 1
        blocks.append(replace(block, lines=lines))
    return replace(page, blocks=blocks)


def place_of(photo: Path, folder: Path, out: Path) -> Path:
    """Where the reading of a photograph below `folder` goes: at the same place below `out`, as a.xml, or as a.jpg.xml
    where a.png stands beside a.jpg."""
    target = out / photo.relative_to(folder)
    alike = [path for path in photo.parent.iterdir() if path.stem == photo.stem and has_image_suffix(path.name)]
    return target.with_name(target.name + ".xml") if len(alike) > 1 else target.with_suffix(".xml")


def write_page(read: ReadPage, target: Path, style: str, force: bool = False) -> None:
    """What was read as PAGE ("page": TextEquiv with conf) or ALTO ("alto": String with WC), whole or not at all.

    Where the lines come from a file of that format, all else in it stays: regions, names, reading order. Raises Refusal
    for a page that was not read, for a target that is there, unless forced, and always for the file that the lines come
    from: it is ground truth.
    """
    if read.page is None:
        raise Refusal(f"{name_of(read.photo)}: {read.problem}")
    if read.source is not None and target.exists() and target.samefile(read.source.path):
        raise Refusal(f"{name_of(target)} is where the lines come from; name another folder for what was read")
    if target.exists() and not force:
        raise Refusal(f"{name_of(target)} is there already; --force replaces it")
    image = relative_name(read.photo, target.parent)
    if read.source is not None and read.source.kind == KINDS[style] and _names_a_picture(read.source):
        root = _filled(read, image, style)
    else:
        page = replace(read.page, image=image)
        root = page_xml.page_xml(page) if style == "page" else alto_xml.alto_xml(page)
    page_xml.write_xml(target, root, str(root.tag).rpartition("}")[0].lstrip("{"))


def _names_a_picture(source: PageFile) -> bool:
    return source.kind == "PcGts" or bool(descendants(source.root, "fileName"))


def _filled(read: ReadPage, image: str, style: str) -> Element:
    """A copy of the file that the lines come from, with the texts that were read and no others."""
    assert read.page is not None and read.source is not None
    root = copy.deepcopy(read.source.root)
    set_text = page_xml.set_text if style == "page" else alto_xml.set_text
    for line, element in zip(read.page.lines, _elements(root), strict=True):
        set_text(element, line.text or "", line.confidence)
    if style == "page":
        descendants(root, "Page")[0].set("imageFilename", image)
        for region in descendants(root, "TextRegion"):
            for text in children(region, "TextEquiv"):  # what the whole region said
                region.remove(text)
    else:
        descendants(root, "fileName")[0].text = image
    return root
