"""Rewriting: the one transcription is another one, and every other byte of the file is the one of before."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from defusedxml.ElementTree import fromstring

from ownhand.correction.rewriting import (
    append_row,
    replace_alto_line,
    replace_cell,
    replace_page_line,
    replace_text_file,
)
from ownhand.errors import Refusal
from ownhand.ground_truth.alto_xml import read_page as read_alto
from ownhand.ground_truth.annotations import read_annotations
from ownhand.ground_truth.page_xml import read_page

PAGE = """<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<!-- kept --><PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
\t<Page imageFilename="1.jpg" imageWidth='800' imageHeight="600"><TextRegion id="r">
    <TextLine id="l1" custom="a > b">
      <Coords points="1,1 9,1 9,9"/>
      <TextEquiv index="1"><Unicode>second</Unicode></TextEquiv>
      <TextEquiv conf="0.5" index="0"><PlainText>old</PlainText><Unicode>old &amp; so</Unicode></TextEquiv>
    </TextLine>
    <TextLine id="l2">
      <Coords points="1,1 9,1 9,9"/>
      <Baseline points="1,1 9,1"/>
      <Labels/>
    </TextLine>
    <TextLine><Coords points="1,1 9,1 9,9"/><TextEquiv/></TextLine>
    <TextLine id="l4"><Coords points="1,1 9,1 9,9"/><TextEquiv><Unicode/></TextEquiv></TextLine>
  </TextRegion></Page>
</PcGts>
"""
ALTO = """<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#"><Layout><Page WIDTH="9" HEIGHT="9"><TextBlock>
<TextLine ID="a" HPOS="1" VPOS="1" WIDTH="5" HEIGHT="2">
  <Shape><Polygon POINTS="1 1 5 1 5 3"/></Shape>
  <String CONTENT="Two" WC="0.1"/>
  <SP/>
  <String CONTENT="wor"/><HYP CONTENT="-"/>
</TextLine>
<TextLine ID="b" HPOS="1" VPOS="1" WIDTH="5" HEIGHT="2"/>
<TextLine ID="c" HPOS="1" VPOS="1" WIDTH="5" HEIGHT="2">
<String ID="s" CONTENT="one" WC="0.2" HPOS="1"></String></TextLine>
</TextBlock></Page></Layout></alto>"""


def page_texts(content: bytes) -> list[str]:
    return [line.text for line in read_page(fromstring(content)).lines]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1251", "utf-16-le", "utf-16-be"])
def test_a_cell_is_replaced_and_nothing_else(line_end: str, delimiter: str, encoding: str) -> None:
    rows = ['note,filename,"text",page', 'да,"a ""1"".jpg", Ёж ,p1', ',b.jpg,"два\nряда",p1', ",c.jpg,,", ""]
    table = line_end.join(rows).replace(",", delimiter)
    bom = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    declared = "utf-16" if bom else encoding
    for row, old, new in [
        (2, "Ёж ", "Уж"),
        (3, '"два\nряда"', '"Уж"'),
        (5, f"c.jpg{delimiter}", f"c.jpg{delimiter}Уж"),
    ]:
        changed = replace_cell(bom + table.encode(encoding), declared, row, "Уж")
        assert changed == bom + table.replace(old, new, 1).encode(encoding)


@pytest.mark.parametrize("text", ['сказал: "да"', "a,b", "два\nряда", "=1+1", "007", "'", "«»"])
def test_whatever_is_written_into_a_table_is_read_from_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "annotations.csv"
    path.write_bytes(replace_cell(b"filename,text\na.jpg,x\nb.jpg,y\n", "utf-8", 2, text))
    assert [record.text for record in read_annotations(path, "utf-8").records] == [text, "y"]
    content, row = append_row(path.read_bytes(), "utf-8", "c, d.jpg", text)
    path.write_bytes(content)
    last = read_annotations(path, "utf-8").records[-1]
    assert (last.filename, last.text, last.row) == ("c, d.jpg", text, row)


@pytest.mark.parametrize("name", [" a.jpg", "a.jpg\u2028", "a\r.jpg"])
def test_a_name_that_a_table_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(Refusal, match="rename the picture"):
        append_row(b"filename,text\n", "utf-8", name, "да")


def test_a_text_that_would_be_read_otherwise_is_refused() -> None:
    for replace in (
        lambda text: replace_cell(b"filename,text\na.jpg,x\n", "utf-8", 2, text),
        lambda text: append_row(b"filename,text\n", "utf-8", "a.jpg", text),
    ):
        with pytest.raises(Refusal, match=r"field larger than field limit \(131072\)"):
            replace("я" * 131_073)
    with pytest.raises(Refusal, match="invisible characters"):
        replace_text_file(b"", "utf-8", "\ufeffда")
    with pytest.raises(Refusal, match=r"no longer be taken for cp1251.*prepare\.encoding: utf-8"):
        replace_text_file(b"x", "cp1251", "Рќ")  # the bytes of another letter in UTF-8


def test_a_row_is_added_as_the_table_is_written() -> None:
    content, row = append_row("\ufeffpage;text;filename\r\np1;да;a.jpg".encode(), "utf-8", "b.jpg", "нет; да")
    assert content.decode() == '\ufeffpage;text;filename\r\np1;да;a.jpg\r\n;"нет; да";b.jpg\r\n'
    assert row == 3


def test_an_empty_file_becomes_a_table() -> None:
    assert append_row(b"", "utf-8", "a.jpg", "да") == ("filename,text\na.jpg,да\n".encode(), 2)


def test_a_letter_that_the_encoding_lacks_is_refused_by_name() -> None:
    with pytest.raises(Refusal, match=r"U\+0463.*cp1251.*prepare\.encoding: utf-8"):
        replace_cell("filename,text\na.jpg,Ёж\n".encode("cp1251"), "cp1251", 2, "вѣра")


def test_a_text_file_keeps_mark_and_line_end() -> None:
    assert replace_text_file("\ufeffда\r\n".encode(), "utf-8", "нет") == "\ufeffнет\r\n".encode()
    assert replace_text_file("да".encode("cp1251"), "cp1251", "нет") == "нет".encode("cp1251")
    assert replace_text_file(b"", "utf-8", "нет") == "нет\n".encode()


def test_the_transcription_that_counts_is_replaced_in_page_xml() -> None:
    changed = replace_page_line(PAGE.encode(), "l1", "Том & Ко <1>")
    old = '<TextEquiv conf="0.5" index="0"><PlainText>old</PlainText><Unicode>old &amp; so</Unicode>'
    assert old in PAGE
    new = '<TextEquiv index="0"><Unicode>Том &amp; Ко &lt;1&gt;</Unicode>'
    assert changed.decode() == PAGE.replace(old, new)
    assert page_texts(changed) == ["Том & Ко <1>", "", "", ""]


def test_a_line_without_a_transcription_gets_one_where_the_schema_wants_it() -> None:
    changed = replace_page_line(PAGE.encode(), "l2", "да")
    place = '<Baseline points="1,1 9,1"/>'
    assert changed.decode() == PAGE.replace(place, place + "\n      <TextEquiv><Unicode>да</Unicode></TextEquiv>")
    assert page_texts(changed)[1] == "да"


@pytest.mark.parametrize(("name", "number"), [("3", 2), ("l4", 3)])
def test_an_empty_transcription_is_filled(name: str, number: int) -> None:
    changed = replace_page_line(PAGE.encode(), name, "да")
    assert page_texts(changed)[number] == "да"
    assert page_texts(replace_page_line(changed, name, "")) == ["old & so", "", "", ""]  # and emptied again


@pytest.mark.parametrize("encoding", ["UTF-8", "windows-1251", "UTF-16"])
def test_an_xml_file_keeps_its_encoding(encoding: str) -> None:
    content = PAGE.replace("UTF-8", encoding).replace("old &amp;", "Ёж &amp;").encode(encoding)
    changed = replace_page_line(content, "l2", "вѣ")
    assert page_texts(changed)[:2] == ["Ёж & so", "вѣ"]
    assert changed.decode(encoding).replace("&#1123;", "ѣ").replace(
        "\n      <TextEquiv><Unicode>вѣ</Unicode></TextEquiv>", ""
    ) == content.decode(encoding)


def test_prefixes_stay() -> None:
    content = b'<p:PcGts xmlns:p="x"><p:Page><p:TextLine id="a"><p:Coords points=""/></p:TextLine></p:Page></p:PcGts>'
    changed = replace_page_line(content, "a", "b")
    assert b'<p:Coords points=""/><p:TextEquiv><p:Unicode>b</p:Unicode></p:TextEquiv></p:TextLine>' in changed


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        (
            "a",
            '<String CONTENT="Two" WC="0.1"/>\n  <SP/>\n  <String CONTENT="wor"/><HYP CONTENT="-"/>',
            '<String CONTENT="&lt;да&gt;"/>',
        ),
        (
            "b",
            'ID="b" HPOS="1" VPOS="1" WIDTH="5" HEIGHT="2"/>',
            'ID="b" HPOS="1" VPOS="1" WIDTH="5" HEIGHT="2"><String CONTENT="&lt;да&gt;"/></TextLine>',
        ),
        (
            "c",
            '<String ID="s" CONTENT="one" WC="0.2" HPOS="1"></String>',
            '<String ID="s" HPOS="1" CONTENT="&lt;да&gt;"/>',
        ),
    ],
)
def test_the_words_of_an_alto_line_become_one(name: str, old: str, new: str) -> None:
    assert old in ALTO
    assert replace_alto_line(ALTO.encode(), name, "<да>").decode() == ALTO.replace(old, new)


def test_quotes_and_line_breaks_survive_in_alto() -> None:
    texts = [line.text for line in read_alto(fromstring(replace_alto_line(ALTO.encode(), "c", "\"да\"\n'нет'"))).lines]
    assert texts == [" Two wor-", "", " \"да\"\n'нет'"]


@pytest.mark.parametrize("text", ["a\x0bb", "a\ud800", "a\uffff"])
def test_what_xml_cannot_hold_is_refused(text: str) -> None:
    with pytest.raises(Refusal, match=r"U\+"):
        replace_page_line(PAGE.encode(), "l1", text)


def test_entities_are_refused_and_a_missing_line_is_named() -> None:
    with pytest.raises(Refusal, match="entities"):
        replace_page_line(b'<!DOCTYPE a [<!ENTITY e "x">]><a><Page/></a>', "l1", "b")
    with pytest.raises(Refusal, match="'l9'"):
        replace_page_line(PAGE.encode(), "l9", "b")
