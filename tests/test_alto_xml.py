"""ALTO XML as the tools write it: boxes, polygons in both notations, hyphens, units."""

from __future__ import annotations

import pytest
from defusedxml.ElementTree import fromstring

from ownhand.ground_truth.alto_xml import read_page
from ownhand.ground_truth.page_files import PageFileError, TranscribedLine

KRAKEN = """<?xml version="1.0" encoding="UTF-8"?>
<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
  <Description><MeasurementUnit>pixel</MeasurementUnit>
    <sourceImageInformation><fileName>/home/me/pages/1.jpg</fileName></sourceImageInformation></Description>
  <Layout><Page WIDTH="800" HEIGHT="600" PHYSICAL_IMG_NR="1" ID="page_0"><PrintSpace><TextBlock ID="b1">
    <TextLine ID="l1" HPOS="12" VPOS="14" WIDTH="678" HEIGHT="46" BASELINE="12 50 690 52">
      <Shape><Polygon POINTS="12 14 690 20 690 60 12 58"/></Shape>
      <String CONTENT="Утро" HPOS="12"/><SP/><String CONTENT="сере-"/>
    </TextLine>
    <TextLine ID="l2" HPOS="12" VPOS="64.5" WIDTH="678" HEIGHT="40">
      <String CONTENT="доброе" SUBS_TYPE="HypPart1" SUBS_CONTENT="доброе-предоброе"/><HYP CONTENT="-"/>
    </TextLine>
    <TextLine ID="l3"><Shape><Polygon POINTS="1,2 3,4 5,6"/></Shape>
      <String CONTENT="два"/><String CONTENT="слова"/></TextLine>
    <TextLine ID="l4"><String CONTENT="nowhere"/></TextLine>
  </TextBlock></PrintSpace></Page></Layout>
</alto>"""


def page(unit: str, size: str) -> str:
    return (
        f"<alto><Description><MeasurementUnit>{unit}</MeasurementUnit></Description><Layout><Page {size}>"
        '<TextLine HPOS="0" VPOS="0" WIDTH="9" HEIGHT="9"><String CONTENT="a"/></TextLine></Page></Layout></alto>'
    )


def test_lines_have_their_text_and_polygon_or_box() -> None:
    read = read_page(fromstring(KRAKEN.encode()))
    assert (read.image, read.size) == ("/home/me/pages/1.jpg", (800, 600))
    assert [TranscribedLine(line.line_id, line.text.strip(), line.polygon) for line in read.lines] == [
        TranscribedLine("l1", "Утро сере-", ((12, 14), (690, 20), (690, 60), (12, 58))),
        TranscribedLine("l2", "доброе-", ((12, 64.5), (690, 64.5), (690, 104.5), (12, 104.5))),
        TranscribedLine("l3", "два слова", ((1, 2), (3, 4), (5, 6))),
        TranscribedLine("l4", "nowhere", ()),
    ]


def test_units_other_than_pixels_need_the_size_of_the_page() -> None:
    assert read_page(fromstring(page("mm10", 'WIDTH="2100" HEIGHT="2970"'))).size == (2100, 2970)
    assert read_page(fromstring(page("pixel", ""))).size is None
    with pytest.raises(PageFileError, match="regions in inch1200 need WIDTH and HEIGHT"):
        read_page(fromstring(page("inch1200", "")))
