"""PAGE XML as the tools write it: namespaces of several years, nested regions, words, several transcriptions."""

from __future__ import annotations

from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring, parse

from ownhand.files import Unwritable
from ownhand.ground_truth.alto_xml import read_page as read_alto
from ownhand.ground_truth.page_files import TranscribedLine, descendants, tag
from ownhand.ground_truth.page_xml import read_page
from ownhand.pages import page_xml
from ownhand.pages.alto_xml import write_alto_xml
from ownhand.pages.page_xml import Block, Page, PageLine, set_text, write_page_xml

TRANSKRIBUS = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2013-07-15">
  <Metadata><Creator>TRP</Creator></Metadata>
  <Page imageFilename="0001.jpg" imageWidth="800" imageHeight="600">
    <ReadingOrder/>
    <TextRegion id="r1" custom="readingOrder {index:0;}">
      <Coords points="10,10 700,10 700,200 10,200"/>
      <TextLine id="r1l1" custom="readingOrder {index:0;}">
        <Coords points="12,14 690,20 690,60 12,58"/><Baseline points="12,50 690,52"/>
        <TextEquiv><Unicode>Утро серое,</Unicode></TextEquiv>
      </TextLine>
      <TextLine id="r1l2">
        <Coords points="12,64 690,70 690,110 12,108"/>
        <TextEquiv><Unicode/></TextEquiv>
      </TextLine>
      <TextEquiv><Unicode>the whole region</Unicode></TextEquiv>
    </TextRegion>
  </Page>
</PcGts>"""

OLD_AND_NESTED = """<p:PcGts xmlns:p="http://schema.primaresearch.org/PAGE/gts/pagecontent/2010-03-19">
  <p:Page imageFilename="a.tif" imageWidth="100" imageHeight="80">
    <p:TextRegion id="outer"><p:TextRegion id="inner">
      <p:TextLine id="l1">
        <p:Coords><p:Point x="1" y="2"/><p:Point x="50" y="2"/><p:Point x="50" y="9"/></p:Coords>
        <p:Word id="w1"><p:TextEquiv><p:Unicode>два</p:Unicode></p:TextEquiv></p:Word>
        <p:Word id="w2"><p:TextEquiv><p:Unicode>слова</p:Unicode></p:TextEquiv></p:Word>
      </p:TextLine>
    </p:TextRegion></p:TextRegion>
    <p:TableRegion id="t"><p:TextRegion id="cell">
      <p:TextLine><p:TextEquiv index="1"><p:Unicode>second</p:Unicode></p:TextEquiv>
        <p:TextEquiv index="0"><p:PlainText>x</p:PlainText><p:Unicode>first</p:Unicode></p:TextEquiv></p:TextLine>
    </p:TextRegion></p:TableRegion>
  </p:Page>
</p:PcGts>"""


def test_lines_have_their_own_text_polygon_and_id() -> None:
    page = read_page(fromstring(TRANSKRIBUS.encode()))
    assert (page.image, page.size) == ("0001.jpg", (800, 600))
    assert page.lines == [
        TranscribedLine("r1l1", "Утро серое,", ((12, 14), (690, 20), (690, 60), (12, 58))),
        TranscribedLine("r1l2", "", ((12, 64), (690, 70), (690, 110), (12, 108))),
    ]


def test_old_points_words_tables_and_alternatives_are_read() -> None:
    page = read_page(fromstring(OLD_AND_NESTED.encode()))
    assert page.lines == [
        TranscribedLine("l1", "два слова", ((1, 2), (50, 2), (50, 9))),
        TranscribedLine("", "first", ()),
    ]


# Written


BOX = ((1.0, 2.0), (90.0, 2.0), (90.0, 30.0), (1.0, 30.0))
LOWER = ((1.0, 32.4), (90.0, 32.4), (95.0, 66.0))


def a_page(image: str = "стр 1.jpg") -> Page:
    first = PageLine("l1", BOX, ((1, 25), (90, 26)), "«ёж» & <дом>", 0.8125)
    return Page(image, (100, 80), [Block("r1", [first]), Block("r2", [PageLine("l2", LOWER)]), Block("r3", [])])


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    write_page_xml(tmp_path / "a.xml", a_page())
    page = read_page(parse(tmp_path / "a.xml").getroot())
    assert (page.image, page.size) == ("стр 1.jpg", (100, 80))
    other = TranscribedLine("l2", "", ((1, 32), (90, 32), (95, 66)))
    assert page.lines == [TranscribedLine("l1", "«ёж» & <дом>", BOX), other]


def test_the_schema_of_2019_is_kept(tmp_path: Path) -> None:
    write_page_xml(tmp_path / "a.xml", a_page())
    root = parse(tmp_path / "a.xml").getroot()
    assert root.tag == f"{{{page_xml.NAMESPACE}}}PcGts"
    assert [tag(child) for child in root] == ["Metadata", "Page"]
    assert [tag(child) for child in root[0]] == ["Creator", "Created", "LastChange"]
    assert [tag(child) for child in root[1]] == ["ReadingOrder", "TextRegion", "TextRegion"]
    region, line = root[1][1], root[1][1][1]
    assert [tag(child) for child in region] == ["Coords", "TextLine"]
    assert [tag(child) for child in line] == ["Coords", "Baseline", "TextEquiv"]
    assert (region[0].get("points"), line[1].get("points")) == ("1,2 90,2 90,30 1,30", "1,25 90,26")
    assert line[2].get("conf") == "0.8125"
    order = [reference.get("regionRef") for reference in root[1][0][0]]
    assert order == ["r1", "r2"]
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))


def test_points_off_the_page_and_characters_that_xml_cannot_hold_do_no_harm(tmp_path: Path) -> None:
    line = PageLine("l1", ((-5, -5), (200, 0), (50, 300)), text="а\x00б\x0bв\ufffe")
    write_page_xml(tmp_path / "a.xml", Page("a.jpg", (100, 80), [Block("r1", [line])]))
    page = read_page(parse(tmp_path / "a.xml").getroot())
    assert page.lines == [TranscribedLine("l1", "абв", ((0, 0), (100, 0), (50, 80)))]


def test_a_text_replaces_words_and_other_texts_in_any_version() -> None:
    root = fromstring(TRANSKRIBUS.replace("<Unicode/>", "<Unicode>old</Unicode>").encode())
    first, second = descendants(root, "TextLine")
    set_text(first, "новое", 0.5)
    set_text(second, "", None)
    assert [line.text for line in read_page(root).lines] == ["новое", ""]
    assert [tag(child) for child in first] == ["Coords", "Baseline", "TextEquiv"]
    old = fromstring(OLD_AND_NESTED.encode())
    set_text(descendants(old, "TextLine")[0], "слово", 1.0)
    assert read_page(old).lines[0].text == "слово"
    assert not descendants(old, "Word")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_page_xml(tmp_path / "a.xml", a_page())
    before = (tmp_path / "a.xml").read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Unwritable, match="what was there before is intact"):
        write_page_xml(tmp_path / "a.xml", a_page("b.jpg"))
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]
    assert (tmp_path / "a.xml").read_bytes() == before


def test_alto_says_the_same(tmp_path: Path) -> None:
    write_alto_xml(tmp_path / "a.xml", a_page())
    root = parse(tmp_path / "a.xml").getroot()
    page = read_alto(root)
    assert (page.image, page.size) == ("стр 1.jpg", (100, 80))
    assert [(line.line_id, line.text.strip()) for line in page.lines] == [("l1", "«ёж» & <дом>"), ("l2", "")]
    assert [line.polygon for line in page.lines] == [BOX, ((1, 32), (90, 32), (95, 66))]
    first = descendants(root, "TextLine")[0]
    assert (first.get("BASELINE"), first.get("HPOS"), first.get("WIDTH")) == ("1,25 90,26", "1", "89")
    assert descendants(first, "String")[0].get("WC") == "0.8125"
