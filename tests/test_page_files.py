"""What PAGE and ALTO have in common: finding files and pictures, lines as samples, and nothing dangerous in XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.ground_truth import GroundTruth, read_ground_truth
from ownhand.ground_truth.regions import Region

POINTS = "0,0 50,0 50,20 0,20"


def page_xml(image: str, *lines: tuple[str, str], head: str = "") -> str:
    rows = "".join(
        f'<TextLine id="{line_id}"><Coords points="{POINTS}"/>'
        f"<TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine>"
        for line_id, text in lines
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<PcGts xmlns="http://schema.primaresearch.org/PAGE/2019">'
        f'<Page imageFilename="{image}" imageWidth="100" imageHeight="80">'
        f"<TextRegion>{rows}</TextRegion></Page></PcGts>"
    )


GOOD = page_xml("good.jpg", ("l1", "раз"))


def read(folder: Path, files: dict[str, str]) -> GroundTruth:
    for name, content in {"good.jpg": "", "good.xml": GOOD, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return read_ground_truth(folder, "utf-8")


def names(truth: GroundTruth) -> set[str]:
    return {sample.name for sample in truth.samples} - {"good.jpg#l1"}


def test_a_page_is_the_group_of_its_lines(tmp_path: Path) -> None:
    truth = read(tmp_path, {"p1/a.jpg": "", "p1/a.xml": page_xml("a.jpg", ("l1", "один"), ("l2", "два"))})
    assert [(s.name, s.text, s.page, s.row) for s in truth.samples] == [
        ("good.jpg#l1", "раз", "good.jpg", "good.xml#l1"),
        ("p1/a.jpg#l1", "один", "p1/a.jpg", "p1/a.xml#l1"),
        ("p1/a.jpg#l2", "два", "p1/a.jpg", "p1/a.xml#l2"),
    ]
    assert truth.samples[0].region == Region(((0, 0), (50, 0), (50, 20), (0, 20)), (100, 80))
    assert (truth.rows, truth.images) == (3, 2)
    assert truth.source == "PAGE XML from 2 files, such as good.xml"


def test_lines_without_an_id_are_numbered(tmp_path: Path) -> None:
    content = page_xml("a.jpg", ("", "один"), ("", "два"))
    assert names(read(tmp_path, {"a.jpg": "", "a.xml": content})) == {"a.jpg#1", "a.jpg#2"}


@pytest.mark.parametrize(
    ("xml", "image", "written"),
    [
        ("page/a.xml", "a.jpg", "a.jpg"),  # an exporter's own folder
        ("page/a.xml", "images/a.jpg", "../images/a.jpg"),
        ("a.xml", "a.jpg", "/home/somebody/a.jpg"),  # another computer's path
        ("a.xml", "a.jpg", "C:\\scans\\a.jpg"),
        ("a.xml", "a.tif", ""),  # named like the XML file
    ],
)
def test_the_picture_is_found_where_exporters_leave_it(tmp_path: Path, xml: str, image: str, written: str) -> None:
    assert names(read(tmp_path, {image: "", xml: page_xml(written, ("l1", "да"))})) == {f"{image}#l1"}


def test_a_page_without_its_picture_rejects_each_of_its_lines_by_name(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.xml": page_xml("a.jpg", ("l1", "один"), ("l2", "два"))})
    assert [(r.file, r.row, r.kind) for r in truth.rejections] == [
        ("a.jpg#l1", "a.xml#l1", "image not found"),
        ("a.jpg#l2", "a.xml#l2", "image not found"),
    ]


def test_a_line_without_a_region_and_a_page_without_lines_are_rejected(tmp_path: Path) -> None:
    no_region = page_xml("a.jpg", ("l1", "один")).replace(f'points="{POINTS}"', 'points="0,0 5"')
    truth = read(tmp_path, {"a.jpg": "", "a.xml": no_region, "b.jpg": "", "b.xml": page_xml("b.jpg")})
    assert {(r.file, r.row, r.kind, r.counted) for r in truth.rejections} == {
        ("a.jpg#l1", "a.xml#l1", "no region", True),
        ("b.jpg", "b.xml", "no lines", False),
        ("a.jpg", None, "no transcription", False),
        ("b.jpg", None, "no transcription", False),
    }


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]>'
THEFT = '<!DOCTYPE x [<!ENTITY a SYSTEM "SECRET">]>'


@pytest.mark.parametrize("head", [BOMB, THEFT])
def test_entities_are_refused_and_nothing_is_read_through_them(tmp_path: Path, head: str) -> None:
    (tmp_path / "secret.txt").write_text("hidden", encoding="utf-8")
    head = head.replace("SECRET", (tmp_path / "secret.txt").as_uri())
    raw = tmp_path / "raw"
    truth = read(raw, {"a.jpg": "", "a.xml": page_xml("a.jpg", ("l1", "&a;"), head=head)})
    assert names(truth) == set()
    rejection = truth.rejections[0]
    assert (rejection.file, rejection.kind, rejection.counted) == ("a.xml", "unsafe XML", True)


@pytest.mark.parametrize(
    "content", [GOOD[:-20], GOOD.replace("UTF-8", "no-such-encoding"), GOOD.replace("UTF-8", "utf-16")]
)
def test_broken_xml_is_one_rejection(tmp_path: Path, content: str) -> None:
    truth = read(tmp_path, {"a.jpg": "", "a.xml": content})
    assert [(r.file, r.kind) for r in truth.rejections if r.counted] == [("a.xml", "broken XML")]


def test_other_xml_files_are_no_ground_truth(tmp_path: Path) -> None:
    truth = read(tmp_path, {"mets.xml": "<mets><PcGtsFile/></mets>", "empty.xml": ""})
    assert (len(truth.samples), truth.rejections) == (1, [])
