"""What PAGE and ALTO have in common: finding files and pictures, lines as samples, and nothing dangerous in XML."""

from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.dataset.rejections import write_rejections
from ownhand.ground_truth.matching import GroundTruth, read_ground_truth
from ownhand.ground_truth.records import Waiting
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
    return {sample.filename for sample in truth.records} - {"good.jpg#l1"}


def test_a_page_is_the_group_of_its_lines(tmp_path: Path) -> None:
    truth = read(tmp_path, {"p1/a.jpg": "", "p1/a.xml": page_xml("a.jpg", ("l1", "один"), ("l2", "два"))})
    assert [(s.filename, s.text, s.page, s.row) for s in truth.records] == [
        ("good.jpg#l1", "раз", "good.jpg", "good.xml#l1"),
        ("p1/a.jpg#l1", "один", "p1/a.jpg", "p1/a.xml#l1"),
        ("p1/a.jpg#l2", "два", "p1/a.jpg", "p1/a.xml#l2"),
    ]
    assert truth.records[0].region == Region(((0, 0), (50, 0), (50, 20), (0, 20)), (100, 80))
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
        ("a.xml", "a.png", "a.pdf_page_1.png"),  # renamed since, together with the XML file
        ("alto/a.xml", "jpg/a.jpg", "a.jpg"),  # a folder of XML files alone
    ],
)
def test_the_picture_is_found_where_exporters_leave_it(tmp_path: Path, xml: str, image: str, written: str) -> None:
    assert names(read(tmp_path, {image: "", xml: page_xml(written, ("l1", "да"))})) == {f"{image}#l1"}


@pytest.mark.parametrize(
    "others",
    [
        {"monday/a.jpg": "", "tuesday/b.jpg": ""},  # beside pictures: tuesday's a.jpg is missing, monday's is another
        {"monday/a.jpg": "", "sunday/a.jpg": ""},
    ],
)
def test_a_picture_of_the_same_name_elsewhere_is_not_taken_for_it(tmp_path: Path, others: dict[str, str]) -> None:
    truth = read(tmp_path, {**others, "tuesday/c.xml": page_xml("a.jpg", ("l1", "да"))})
    assert names(truth) == set()
    assert [rejection.kind for rejection in truth.rejections] == ["image not found"]


def test_a_page_without_its_picture_rejects_each_of_its_lines_by_name(tmp_path: Path) -> None:
    truth = read(tmp_path, {"a.xml": page_xml("a.jpg", ("l1", "один"), ("l2", "два"))})
    assert [(r.file, r.row, r.kind) for r in truth.rejections] == [
        ("a.jpg#l1", "a.xml#l1", "image not found"),
        ("a.jpg#l2", "a.xml#l2", "image not found"),
    ]


def test_a_line_without_a_region_is_rejected(tmp_path: Path) -> None:
    no_region = page_xml("a.jpg", ("l1", "один")).replace(f'points="{POINTS}"', 'points="0,0 5"')
    truth = read(tmp_path, {"a.jpg": "", "a.xml": no_region})
    assert [(r.file, r.row, r.kind, r.counted) for r in truth.rejections] == [
        ("a.jpg#l1", "a.xml#l1", "no region", True)
    ]
    assert truth.waiting == []


def test_lines_without_text_pages_without_lines_and_pictures_without_a_page_wait(tmp_path: Path) -> None:
    content = page_xml("a.jpg", ("l1", "один"), ("l2", ""), ("l3", " \u200b"))
    pictures = {"a.jpg": "", "b.jpg": "", "c.jpg": ""}
    truth = read(tmp_path, {**pictures, "a.xml": content, "b.xml": page_xml("b.jpg")})
    assert names(truth) == {"a.jpg#l1"}
    assert truth.rejections == []
    assert truth.waiting == [
        Waiting("a.jpg#l2", "a.xml#l2", "line: its TextLine holds no text"),
        Waiting("a.jpg#l3", "a.xml#l3", "line: its TextLine holds no text"),
        Waiting("b.jpg", "b.xml", "page: its file holds no TextLine"),
        Waiting("c.jpg", "", "picture: no PAGE XML names it"),
    ]


DEEP = "<Word>" * 3000 + "</Word>" * 3000
EQUIV = "<TextEquiv><Unicode>один</Unicode></TextEquiv>"


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        (POINTS, "20,30 1e999,30 40,40", "bad number"),
        (POINTS, f"20,30 {'9' * 400},30 40,40", "bad number"),
        (POINTS, "20,30 -1e300,30 40,40", "bad number"),
        (POINTS, "20,30 nan,30 40,40", "no region"),
        (EQUIV, f'<TextEquiv index="1e999"><Unicode>a</Unicode></TextEquiv>{EQUIV}', "bad number"),
        (EQUIV, DEEP, "nested words"),
    ],
)
def test_one_bad_line_is_one_rejected_line_and_the_rest_is_read(
    tmp_path: Path, right: str, wrong: str, kind: str
) -> None:
    content = page_xml("a.jpg", ("l1", "один"), ("l2", "два")).replace(right, wrong, 1)
    truth = read(tmp_path, {"a.jpg": "", "a.xml": content})
    assert names(truth) == {"a.jpg#l2"}
    assert [(r.file, r.row, r.kind, r.counted) for r in truth.rejections] == [("a.jpg#l1", "a.xml#l1", kind, True)]
    assert len(truth.rejections[0].reason) < 200


@pytest.mark.parametrize("size", ["1e999", "9" * 400, "1e-300"])
def test_a_page_of_an_impossible_size_is_one_rejection(tmp_path: Path, size: str) -> None:
    content = page_xml("a.jpg", ("l1", "один")).replace('imageWidth="100"', f'imageWidth="{size}"')
    truth = read(tmp_path, {"a.jpg": "", "a.xml": content})
    assert names(truth) == set()
    assert [(r.file, r.kind, r.counted) for r in truth.rejections] == [("a.xml", "bad number", True)]


def test_elements_that_are_nested_far_deeper_harm_nothing(tmp_path: Path) -> None:
    regions = "<TextRegion>" * 20_000 + "<TextLine/>" + "</TextRegion>" * 20_000
    content = page_xml("a.jpg", ("l1", "один")).replace("</TextRegion>", f"{regions}</TextRegion>")
    assert names(read(tmp_path, {"a.jpg": "", "a.xml": content})) == {"a.jpg#l1"}


def test_a_number_of_5000_digits_as_id_of_two_lines_is_rejected_and_listed(tmp_path: Path) -> None:
    line_id = "7" * 5000
    content = page_xml("a.jpg", (line_id, "один"), (line_id, "два"), ("l3", "три"))
    truth = read(tmp_path, {"a.jpg": "", "a.xml": content})
    assert names(truth) == {"a.jpg#l3"}
    assert [r.kind for r in truth.rejections] == ["named twice with different texts"] * 2
    write_rejections(tmp_path / "rejected.csv", truth.rejections)
    assert line_id in (tmp_path / "rejected.csv").read_text(encoding="utf-8")


ALTO_LINE = '<TextLine ID="{}" HPOS="0" VPOS="0" WIDTH="{}" HEIGHT="20"><String CONTENT="{}"/></TextLine>'


@pytest.mark.parametrize("width", ["1e999", "9" * 400])
def test_one_bad_alto_line_is_one_rejected_line_and_one_without_text_waits(tmp_path: Path, width: str) -> None:
    lines = (
        ALTO_LINE.format("l1", width, "раз") + ALTO_LINE.format("l2", "50", "два") + ALTO_LINE.format("l3", "50", "")
    )
    content = f"<alto><Layout><Page WIDTH='100' HEIGHT='80'>{lines}</Page></Layout></alto>"
    for name, text in {"a.jpg": "", "a.xml": content}.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    truth = read_ground_truth(tmp_path, "utf-8")
    assert [sample.filename for sample in truth.records] == ["a.jpg#l2"]
    assert [(r.file, r.kind) for r in truth.rejections] == [("a.jpg#l1", "bad number")]
    assert [one.file for one in truth.waiting] == ["a.jpg#l3"]


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
    assert (len(truth.records), truth.rejections) == (1, [])
