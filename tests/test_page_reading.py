"""Pages read through their lines: where these come from, what is cut, and what is written where."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np
import pytest
from defusedxml.ElementTree import parse
from PIL import Image, ImageDraw

from ownhand.errors import Refusal
from ownhand.ground_truth.alto_xml import read_page as read_alto
from ownhand.ground_truth.page_files import TranscribedPage, descendants
from ownhand.ground_truth.page_xml import read_page as read_page_xml
from ownhand.images import ImageLimits
from ownhand.pages.alto_xml import write_alto_xml
from ownhand.pages.geometry import FoundLine
from ownhand.pages.page_xml import Block, Page, PageLine, write_page_xml
from ownhand.pages.reading import ReadPage, place_of, read_pages, write_page
from ownhand.samples import Reading

LIMITS = ImageLimits(max_side_px=400, min_side_px=4, max_pixels=1_000_000, max_aspect=50)
SIZE = (200, 120)
HEIGHTS = (20, 30, 10)  # of three lines, by which the pictures that are read are known


def boxes() -> list[tuple[tuple[float, float], ...]]:
    made, top = [], 5.0
    for height in HEIGHTS:
        made.append(((10.0, top), (150.0, top), (150.0, top + height), (10.0, top + height)))
        top += height + 5
    return made


def read_heights(pictures: list[Image.Image]) -> list[Reading]:
    """A reader that says how high the pictures are."""
    return [Reading(f"{picture.height} px", 3, picture.height == 30, picture.height / 100) for picture in pictures]


def draw(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).line((10, 10, 150, 10), fill="black")
    image.save(path)
    return path


def known(image: str) -> Page:
    lines = [PageLine(f"l{i}", box, ((10, 20), (150, 20)), "old") for i, box in enumerate(boxes(), 1)]
    return Page(image, SIZE, [Block("r1", lines[:1]), Block("r2", lines[1:])])


def find(image: Image.Image) -> list[list[FoundLine]]:
    found = [FoundLine(box, ((10, 20), (150, 20))) for box in boxes()]
    return [found[:2], found[2:]]


def read(folder: Path, *photos: Path, **options: object) -> list[ReadPage]:
    return list(read_pages([(folder, photo) for photo in photos], read_heights, LIMITS, **options))  # type: ignore[arg-type]


def written(path: Path) -> tuple[Element, TranscribedPage]:
    root = parse(path).getroot()
    return root, (read_page_xml if root.tag.endswith("PcGts") else read_alto)(root)


@pytest.mark.parametrize("write", [write_page_xml, write_alto_xml])
def test_lines_of_the_file_beside_are_read_in_their_order(tmp_path: Path, write: object) -> None:
    photo = draw(tmp_path / "a.png")
    write(tmp_path / "a.xml", known("a.png"))  # type: ignore[operator]
    (page,) = read(tmp_path, photo, find=lambda _: pytest.fail("its lines are known"))
    assert page.text == "20 px\n30 px\n10 px"
    record = page.record()
    assert record["lines"][1] == {"line": "l2", "text": "30 px", "confidence": 0.3, "runaway": True}
    assert record["runaway"] is True
    assert record["confidence"] == pytest.approx((0.2 * 0.3 * 0.1) ** (1 / 3), abs=1e-6)


def test_lines_are_found_where_no_file_says_them_or_the_picture_is_one(tmp_path: Path) -> None:
    photo = draw(tmp_path / "a.png")
    assert [page.text for page in read(tmp_path, photo, find=find)] == ["20 px\n30 px\n10 px"]
    assert [page.text for page in read(tmp_path, photo)] == ["120 px"]
    write_page_xml(tmp_path / "a.xml", known("a.png"))
    assert [page.text for page in read(tmp_path, photo, find=find, whole=True)] == ["120 px"]
    (empty,) = read(tmp_path, draw(tmp_path / "b.png"), find=lambda _: [])
    assert (empty.page, empty.problem) == (None, "no line of writing found")


def test_regions_of_a_smaller_copy_are_scaled(tmp_path: Path) -> None:
    photo = draw(tmp_path / "a.png", (400, 240))
    write_page_xml(tmp_path / "a.xml", known("a.png"))
    (page,) = read(tmp_path, photo)
    assert page.text == "40 px\n60 px\n20 px"
    assert page.page is not None
    assert page.page.lines[0].polygon[2] == (300, 50)


def test_one_bad_page_or_line_never_stops_the_rest(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    bad_xml = draw(tmp_path / "b.png")
    (tmp_path / "b.xml").write_text("<PcGts >", encoding="utf-8")
    bad_line = draw(tmp_path / "c.png")
    off = PageLine("l2", ((500, 500), (600, 500), (600, 600)))
    write_page_xml(tmp_path / "c.xml", Page("c.png", SIZE, [Block("r", [PageLine("l1", boxes()[0])])]))
    text = (tmp_path / "c.xml").read_text(encoding="utf-8")
    corners = " ".join(f"{x},{y}" for x, y in off.polygon)
    extra = f'<TextLine id="l2"><Coords points="{corners}"/></TextLine><TextLine id="l3"/></TextRegion>'
    (tmp_path / "c.xml").write_text(text.replace("</TextRegion>", extra), encoding="utf-8")
    first, second, third, fourth = read(tmp_path, tmp_path / "a.png", bad_xml, bad_line, tmp_path / "gone.png")
    assert first.problem.startswith("not a readable picture")
    assert "b.xml cannot be read (broken XML" in second.problem
    assert (third.text, third.problem) == ("20 px", "")
    assert third.problems is not None
    assert [reason.partition(":")[0] for reason in third.problems.values()] == ["no region", "no region"]
    assert "No such file" in fourth.problem


def test_pages_are_read_one_after_the_other(tmp_path: Path) -> None:
    photos = [draw(tmp_path / name) for name in ("a.png", "b.png")]
    seen: list[int] = []

    def note(pictures: list[Image.Image]) -> list[Reading]:
        seen.append(len(pictures))
        return read_heights(pictures)

    pages = read_pages([(tmp_path, photo) for photo in photos], note, LIMITS, find)
    assert next(pages).photo == photos[0]
    assert seen == [3]


def test_page_output_keeps_what_was_there_and_says_how_sure_it_is(tmp_path: Path) -> None:
    photo = draw(tmp_path / "raw/a.png")
    write_page_xml(tmp_path / "raw/a.xml", known("a.png"))
    before = (tmp_path / "raw/a.xml").read_bytes()
    (page,) = read(tmp_path / "raw", photo)
    target = place_of(photo, tmp_path / "raw", tmp_path / "read")
    assert target == tmp_path / "read/a.xml"
    write_page(page, target, "page")
    root, said = written(target)
    assert said.image == "../raw/a.png"
    assert [line.text for line in said.lines] == ["20 px", "30 px", "10 px"]
    assert [text.get("conf") for text in descendants(root, "TextEquiv")] == ["0.2000", "0.3000", "0.1000"]
    assert [region.get("id") for region in descendants(root, "TextRegion")] == ["r1", "r2"]
    assert len(descendants(root, "Baseline")) == 3
    assert (tmp_path / "raw/a.xml").read_bytes() == before


def test_alto_output_of_an_alto_page_and_of_a_page_with_other_lines(tmp_path: Path) -> None:
    photo = draw(tmp_path / "a.png")
    write_alto_xml(tmp_path / "a.xml", known("a.png"))
    (page,) = read(tmp_path, photo)
    write_page(page, tmp_path / "read/a.xml", "alto")
    root, said = written(tmp_path / "read/a.xml")
    assert (said.image, [line.text.strip() for line in said.lines]) == ("../a.png", ["20 px", "30 px", "10 px"])
    assert [string.get("WC") for string in descendants(root, "String")] == ["0.2000", "0.3000", "0.1000"]
    write_page(page, tmp_path / "other/a.xml", "page")
    root, said = written(tmp_path / "other/a.xml")
    assert [(line.line_id, line.text) for line in said.lines] == [("l1", "20 px"), ("l2", "30 px"), ("l3", "10 px")]
    assert [line.polygon for line in said.lines] == boxes()
    assert len(descendants(root, "Baseline")) == 3


@pytest.mark.parametrize("style", ["page", "alto"])
def test_found_lines_are_written_with_their_texts(tmp_path: Path, style: str) -> None:
    photo = draw(tmp_path / "a.png")
    (page,) = read(tmp_path, photo, find=find)
    write_page(page, tmp_path / "a.xml", style)
    root, said = written(tmp_path / "a.xml")
    assert (said.image, said.size) == ("a.png", SIZE)
    assert [line.text.strip() for line in said.lines] == ["20 px", "30 px", "10 px"]
    assert len(descendants(root, "TextRegion" if style == "page" else "TextBlock")) == 2


def test_nothing_is_overwritten_unasked_and_ground_truth_never(tmp_path: Path) -> None:
    photo = draw(tmp_path / "a.png")
    write_page_xml(tmp_path / "a.xml", known("a.png"))
    (page,) = read(tmp_path, photo)
    with pytest.raises(Refusal, match="name another folder"):
        write_page(page, tmp_path / "a.xml", "page", force=True)
    target = tmp_path / "read/a.xml"
    write_page(page, target, "page")
    with pytest.raises(Refusal, match="--force replaces it"):
        write_page(page, target, "page")
    write_page(page, target, "alto", force=True)
    assert written(target)[0].tag.endswith("alto")
    with pytest.raises(Refusal, match="no line of writing found"):
        write_page(ReadPage(photo, problem="no line of writing found"), tmp_path / "x.xml", "page")


def test_pictures_that_differ_in_their_suffix_have_files_of_their_own(tmp_path: Path) -> None:
    photos = [draw(tmp_path / "p" / name) for name in ("a.png", "a.jpg", "b.png")]
    places = [place_of(photo, tmp_path, tmp_path / "read") for photo in photos]
    assert [path.relative_to(tmp_path).as_posix() for path in places] == [
        "read/p/a.png.xml",
        "read/p/a.jpg.xml",
        "read/p/b.xml",
    ]


def test_lines_are_cut_as_for_training(tmp_path: Path) -> None:
    photo = draw(tmp_path / "a.png")
    triangle = PageLine("l1", ((0, 0), (100, 0), (0, 60)))
    write_page_xml(tmp_path / "a.xml", Page("a.png", SIZE, [Block("r1", [triangle])]))
    shown: list[Image.Image] = []

    def keep(pictures: list[Image.Image]) -> list[Reading]:
        shown.extend(pictures)
        return read_heights(pictures)

    list(read_pages([(tmp_path, photo)], keep, LIMITS))
    assert shown[0].size == (100, 60)
    assert np.asarray(shown[0])[50, 90].tolist() == [255, 255, 255]
