"""PAGE XML as the tools write it: namespaces of several years, nested regions, words, several transcriptions."""

from __future__ import annotations

from defusedxml.ElementTree import fromstring

from ownhand.ground_truth.page_files import Line
from ownhand.ground_truth.page_xml import read_page

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
        Line("r1l1", "Утро серое,", ((12, 14), (690, 20), (690, 60), (12, 58))),
        Line("r1l2", "", ((12, 64), (690, 70), (690, 110), (12, 108))),
    ]


def test_old_points_words_tables_and_alternatives_are_read() -> None:
    page = read_page(fromstring(OLD_AND_NESTED.encode()))
    assert page.lines == [
        Line("l1", "два слова", ((1, 2), (50, 2), (50, 9))),
        Line("", "first", ()),
    ]
