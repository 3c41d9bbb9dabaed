"""The rows of the table "Annotations" that concern the file itself; each test names its row."""

from __future__ import annotations

from pathlib import Path

import pandas
import pytest

from ownhand.ground_truth.annotations import read_annotations
from ownhand.ground_truth.records import GroundTruthError


def write(folder: Path, content: str | bytes, name: str = "annotations.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(path: Path, encoding: str = "utf-8") -> list[str]:
    return [record.text for record in read_annotations(path, encoding).records]


def test_texts_that_look_like_values_stay_exactly_as_written(tmp_path: Path) -> None:
    written = ["NA", "null", "None", "nan", "007", "1.0", "TRUE", "1e5", "-0", "2024-01-02", "=1+1", "'5", "0x1F"]
    path = write(tmp_path, "filename,text\n" + "".join(f"{i}.jpg,{text}\n" for i, text in enumerate(written)))
    assert texts(path) == written


def test_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "\ufefffilename,text\na.jpg,Ёж\n")) == ["Ёж"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiter_comes_from_the_header_whatever_the_texts_hold(tmp_path: Path, delimiter: str) -> None:
    others = "".join({",", ";", "\t"} - {delimiter})
    path = write(tmp_path, f'filename{delimiter}text\r\na.jpg{delimiter}"а{others}б{delimiter}в"\r\n')
    table = read_annotations(path, "utf-8")
    assert table.rejections == []
    assert texts(path) == [f"а{others}б{delimiter}в"]


def test_cp1251_is_an_error_that_names_the_line_and_the_parameter(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,text\na.jpg,abc\nb.jpg,Ёж\n".encode("cp1251"))
    with pytest.raises(GroundTruthError, match=r"annotations\.csv, line 3: byte 0xa8 .* prepare\.encoding .*cp1251"):
        read_annotations(path, "utf-8")


def test_cp1251_is_read_when_it_is_declared(tmp_path: Path) -> None:
    assert texts(write(tmp_path, "filename,text\na.jpg,Ёж №5\n".encode("cp1251")), "cp1251") == ["Ёж №5"]


def test_utf8_declared_as_cp1251_is_an_error_and_not_a_wrong_text(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="set prepare.encoding to utf-8"):
        read_annotations(write(tmp_path, "filename,text\na.jpg,Ёж\n"), "cp1251")


def test_utf16_is_recognised_by_its_mark_and_read_when_declared(tmp_path: Path) -> None:
    path = write(tmp_path, "filename\ttext\r\na.jpg\tЁж\r\n".encode("utf-16"))
    with pytest.raises(GroundTruthError, match=r"prepare\.encoding .*utf-16"):
        read_annotations(path, "utf-8")
    assert texts(path, "utf-16") == ["Ёж"]


def test_utf16_without_a_mark_does_not_pass_as_utf8(tmp_path: Path) -> None:
    path = write(tmp_path, "filename,text\na.jpg,abc\n".encode("utf-16-le"))
    with pytest.raises(GroundTruthError, match=r"prepare\.encoding"):
        read_annotations(path, "utf-8")


@pytest.mark.parametrize("encoding", ["utf-9", "base64"])
def test_an_encoding_that_does_not_exist_is_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(GroundTruthError, match=rf"prepare\.encoding: '{encoding}'"):
        read_annotations(write(tmp_path, "filename,text\na.jpg,abc\n"), encoding)


@pytest.mark.parametrize(
    "header", ["image_path,transcription,id", "file_name,text,id", "Файл,Текст,№", "Image Name, GT ,x", "PATH,Text,"]
)
def test_known_synonyms_of_the_columns_are_accepted(tmp_path: Path, header: str) -> None:
    (record,) = read_annotations(write(tmp_path, f"{header}\na.jpg,привет,7\n"), "utf-8").records
    assert (record.filename, record.text) == ("a.jpg", "привет")


def test_our_own_column_name_wins_over_a_synonym(tmp_path: Path) -> None:
    table = read_annotations(write(tmp_path, "filename,label,text\na.jpg,class 3,привет\n"), "utf-8")
    assert table.records[0].text == "привет"
    assert table.notes == ["annotations.csv: columns that are not used: label"]


def test_unknown_or_missing_header_lists_the_columns_seen(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match=r"no column 'filename'.*no column 'text'.*seen: 'a\.jpg', 'привет'"):
        read_annotations(write(tmp_path, "a.jpg,привет\nb.jpg,пока\n"), "utf-8")
    with pytest.raises(GroundTruthError, match="the file is empty"):
        read_annotations(write(tmp_path, ""), "utf-8")


def test_two_columns_for_one_role_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="2 columns for 'text'"):
        read_annotations(write(tmp_path, "filename,label,gt\na.jpg,1,2\n"), "utf-8")


def test_multi_line_texts_quotes_and_delimiters_are_kept_and_rows_are_lines_of_the_file(tmp_path: Path) -> None:
    content = 'filename,text,page\n\na.jpg,"один, ""два""\nтри",p1\nb.jpg,сказал "да",p2\nc.jpg, "в, кавычках",\n'
    records = read_annotations(write(tmp_path, content), "utf-8").records
    assert [record.text for record in records] == ['один, "два"\nтри', 'сказал "да"', "в, кавычках"]
    assert [record.row for record in records] == [3, 5, 6]
    assert [record.page for record in records] == ["p1", "p2", ""]


def test_rows_without_content_are_no_rows(tmp_path: Path) -> None:
    table = read_annotations(write(tmp_path, "\nfilename,text\n\na.jpg,б\n , \n,\n"), "utf-8")
    assert (table.rows, table.rejections) == (1, [])


def test_a_row_with_an_unquoted_delimiter_is_rejected_and_not_cut(tmp_path: Path) -> None:
    table = read_annotations(write(tmp_path, "filename,text\na.jpg,да, нет\nb.jpg\nc.jpg,да\n"), "utf-8")
    assert [(r.file, r.row) for r in table.rejections] == [("a.jpg", 2), ("b.jpg", 3)]
    assert "3 field(s), the header has 2" in table.rejections[0].reason
    assert (table.rows, texts(tmp_path / "annotations.csv")) == (3, ["да"])


def test_missing_optional_fields_at_the_end_are_empty(tmp_path: Path) -> None:
    (record,) = read_annotations(write(tmp_path, "filename,text,page,hand\na.jpg,да\n"), "utf-8").records
    assert (record.page, record.hand) == ("", "")


def test_a_stray_quote_rejects_its_row_only(tmp_path: Path) -> None:
    table = read_annotations(write(tmp_path, 'filename,text\na.jpg,"Да" - сказал\nb.jpg,нет\nc.jpg,"конец\n'), "utf-8")
    assert [(r.kind, r.row) for r in table.rejections] == [("broken row", 2), ("broken row", 4)]
    assert [record.text for record in table.records] == ["нет"]


def test_a_quote_that_swallows_other_rows_stops_the_run_and_names_the_lines(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="lines 2 to 4"):
        read_annotations(write(tmp_path, 'filename,text\na.jpg,"Да\nb.jpg,нет\nc.jpg,да\n'), "utf-8")


def test_a_very_long_quoted_text_is_kept(tmp_path: Path) -> None:
    text = "слово " * 15_000 + "конец"
    assert texts(write(tmp_path, f'filename,text\na.jpg,"{text}"\n')) == [text]


def test_a_workbook_is_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xlsx"
    rows = [["filename", "text", "page"], ["1.jpg", "NA", "p1"], ["2.jpg", "007", None], [None, None, None]]
    pandas.DataFrame([*rows, ["3.jpg", "мой\nдом", "p2"]]).to_excel(path, header=False, index=False)
    reading = read_annotations(path, "utf-8")
    assert [(one.filename, one.text, one.page) for one in reading.records] == [
        ("1.jpg", "NA", "p1"),
        ("2.jpg", "007", ""),
        ("3.jpg", "мой\nдом", "p2"),
    ]
    path.write_bytes(b"no workbook")
    with pytest.raises(GroundTruthError, match=r"annotations.xlsx cannot be read as an Excel workbook"):
        read_annotations(path, "utf-8")
