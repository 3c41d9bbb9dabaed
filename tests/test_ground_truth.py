"""The rows of the table "Annotations" that concern files and rows together; each test names its row."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from stages.lib.annotations import GroundTruthError, Rejection
from stages.lib.ground_truth import GroundTruth, read_ground_truth


def make_folder(folder: Path, files: list[str], rows: str, table: str = "annotations.csv") -> Path:
    """Files that only have to exist, and a table with the columns filename and text."""
    raw = folder / "raw"
    for name in files:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(b"picture")
    if sum(path.is_file() for path in raw.rglob("*")) < len(files):
        pytest.skip("this file system takes some of these names for one")
    (raw / table).write_text(rows, encoding="utf-8", newline="\n")
    return raw


def read(folder: Path, files: list[str], rows: str, header: str = "filename,text") -> GroundTruth:
    return read_ground_truth(make_folder(folder, files, f"{header}\n{rows}"), "utf-8")


def only_rejection(truth: GroundTruth) -> Rejection:
    (rejection,) = truth.rejections
    return rejection


def test_rows_become_samples_in_their_order(tmp_path: Path) -> None:
    truth = read(
        tmp_path, ["b.jpg", "sub/стр 1 🙂.png"], "b.jpg,два,p1,Аня\nsub/стр 1 🙂.png,раз,,\n", "file,text,page,hand"
    )
    assert [(s.name, s.text, s.page, s.hand, s.row) for s in truth.samples] == [
        ("b.jpg", "два", "p1", "Аня", 2),
        ("sub/стр 1 🙂.png", "раз", "", "", 3),
    ]
    assert all(sample.path.is_file() for sample in truth.samples)
    assert (truth.rows, truth.images, truth.rejections, truth.notes) == (2, 2, [], [])


def test_tsv_is_read_too(tmp_path: Path) -> None:
    raw = make_folder(tmp_path, ["a.jpg"], "filename\ttext\na.jpg\tраз, два\n", "annotations.tsv")
    assert read_ground_truth(raw, "utf-8").samples[0].text == "раз, два"


def test_missing_folder_missing_table_and_two_tables_are_errors(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="is missing; put the pictures"):
        read_ground_truth(tmp_path / "raw", "utf-8")
    raw = make_folder(tmp_path, ["a.jpg"], "filename,text\n")
    (raw / "annotations.tsv").write_text("filename\ttext\n", encoding="utf-8")
    with pytest.raises(GroundTruthError, match=r"seen: annotations\.csv, annotations\.tsv"):
        read_ground_truth(raw, "utf-8")
    for table in raw.glob("annotations.*"):
        table.unlink()
    with pytest.raises(GroundTruthError, match="seen: none"):
        read_ground_truth(raw, "utf-8")


@pytest.mark.parametrize("text", ["", "   ", "\u00a0", "\u200b"])
def test_empty_or_whitespace_only_text_is_rejected(tmp_path: Path, text: str) -> None:
    rejection = only_rejection(read(tmp_path, ["a.jpg"], f"a.jpg,{text}\n"))
    assert (rejection.file, rejection.row, rejection.kind, rejection.counted) == ("a.jpg", 2, "empty text", True)


def test_text_with_replacement_characters_is_rejected(tmp_path: Path) -> None:
    assert only_rejection(read(tmp_path, ["a.jpg"], "a.jpg,при\ufffdет\n")).kind == "damaged text"


def test_row_without_image_is_rejected_with_the_nearest_name_that_still_lacks_a_row(tmp_path: Path) -> None:
    rejections = read(tmp_path, ["стр_3.jpg", "стр 4.jpg"], "стр 3.jpg,да\nстр 4.jpg,нет\n").rejections
    assert rejections[0] == Rejection("стр 3.jpg", 2, 'image not found: nearest "стр_3.jpg"')


def test_row_with_the_right_name_in_another_folder_is_told_where_it_is(tmp_path: Path) -> None:
    rejection = read(tmp_path, ["lines/a.jpg", "b.jpg"], "data/raw/a.jpg,да\nb.jpg,нет\n").rejections[0]
    assert rejection.reason == 'image not found: nearest "lines/a.jpg"'


def test_row_that_names_nothing_like_any_picture_is_rejected_without_a_guess(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg"], "a.jpg,да\nсовсем другое.png,нет\n,пусто\n")
    assert [rejection.kind for rejection in truth.rejections] == ["image not found", "no file name"]
    assert "nearest" not in truth.rejections[0].reason


def test_image_without_row_is_listed_as_no_transcription_and_not_counted(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg", "sub/b.PNG", "c.heic", "notes.txt"], "a.jpg,да\n")
    assert [(r.file, r.row, r.kind, r.counted) for r in truth.rejections] == [
        ("c.heic", None, "no transcription", False),
        ("sub/b.PNG", None, "no transcription", False),
    ]
    assert truth.images == 3


def test_a_rejected_row_still_counts_as_the_row_of_its_picture(tmp_path: Path) -> None:
    assert only_rejection(read(tmp_path, ["a.jpg"], "a.jpg, \n")).kind == "empty text"


def test_same_file_twice_with_the_same_text_keeps_one(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg"], "a.jpg,е\u0308ж\n./a.jpg, ёж \n")
    assert [(sample.row, sample.text) for sample in truth.samples] == [(2, "ёж")]
    assert only_rejection(truth) == Rejection("a.jpg", 3, "repeated: row 2 says the same and is kept", counted=False)


@pytest.mark.parametrize(("second", "what"), [("нет,p1", "texts"), ("да,p2", "pages")])
def test_same_file_twice_with_different_texts_or_pages_rejects_both(tmp_path: Path, second: str, what: str) -> None:
    truth = read(tmp_path, ["a.jpg"], f"a.jpg,да,p1\na.jpg,{second}\n", "filename,text,page")
    assert truth.samples == []
    assert [rejection.row for rejection in truth.rejections] == [2, 3]
    assert all(f"different {what}: rows 2, 3" in rejection.reason for rejection in truth.rejections)


@pytest.mark.parametrize(
    "path", ["../x.jpg", "/etc/passwd", "C:\\x.jpg", "c:x.jpg", "\\\\server\\x.jpg", "sub/../../x.jpg", ".."]
)
def test_paths_that_leave_the_folder_are_rejected_as_outside(tmp_path: Path, path: str) -> None:
    (tmp_path / "x.jpg").write_bytes(b"picture")
    truth = read(tmp_path, ["a.jpg"], f"a.jpg,да\n{path},нет\n")
    assert only_rejection(truth).kind == "outside data/raw"
    assert only_rejection(truth).file == path


def test_paths_inside_the_folder_may_be_written_in_other_ways(tmp_path: Path) -> None:
    truth = read(tmp_path, ["sub/a.jpg", "b.jpg"], "sub\\a.jpg,да\nsub/../b.jpg,нет\n")
    assert [sample.name for sample in truth.samples] == ["sub/a.jpg", "b.jpg"]


def link(path: Path, target: Path) -> None:
    try:
        path.symlink_to(target, target_is_directory=target.is_dir())
    except OSError:
        pytest.skip("this system does not let us make symbolic links")


def test_links_that_leave_the_folder_are_rejected_as_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/x.jpg").write_bytes(b"picture")
    raw = make_folder(tmp_path, ["a.jpg"], "filename,text\na.jpg,да\nlink.jpg,нет\nfolder/x.jpg,и нет\n")
    link(raw / "link.jpg", tmp_path / "secret/x.jpg")
    link(raw / "folder", tmp_path / "secret")
    truth = read_ground_truth(raw, "utf-8")
    assert [sample.name for sample in truth.samples] == ["a.jpg"]
    assert [(r.row, r.kind) for r in truth.rejections] == [(3, "outside data/raw"), (4, "outside data/raw")]


def test_links_inside_the_folder_are_read_as_files_and_not_walked_as_folders(tmp_path: Path) -> None:
    raw = make_folder(tmp_path, ["sub/a.jpg"], "filename,text\nsame.jpg,да\nfolder/a.jpg,нет\n")
    link(raw / "same.jpg", raw / "sub/a.jpg")
    link(raw / "folder", raw / "sub")
    truth = read_ground_truth(raw, "utf-8")
    assert [sample.name for sample in truth.samples] == ["same.jpg"]
    assert [r.kind for r in truth.rejections if r.counted] == ["link that is not followed"]


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_are_matched_by_normal_form(tmp_path: Path, on_disk: str, in_table: str) -> None:
    name = "ёлка й.jpg"
    stored, written = (unicodedata.normalize(form, name) for form in (on_disk, in_table))
    truth = read(tmp_path, [stored], f"{written},да\n")
    assert (truth.samples[0].name, truth.rejections) == ("ёлка й.jpg", [])


def test_names_that_differ_only_in_case_are_an_error_that_lists_them(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match=r'"A\.png" and "a\.png"'):
        read(tmp_path, ["A.png", "a.png"], "a.png,да\n")


def test_names_that_differ_only_in_unicode_form_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="Unicode form"):
        read(tmp_path, [unicodedata.normalize(form, "й.png") for form in ("NFC", "NFD")], "b.png,да\n")


def test_files_that_are_no_pictures_may_clash(tmp_path: Path) -> None:
    assert len(read(tmp_path, ["a.png", "notes.txt", "Notes.txt"], "a.png,да\n").samples) == 1


def test_another_letter_case_finds_the_file_and_is_noted(tmp_path: Path) -> None:
    truth = read(tmp_path, ["IMG_1.JPG"], "img_1.jpg,да\n")
    assert truth.samples[0].name == "IMG_1.JPG"
    assert truth.notes == ["annotations.csv: 1 row(s) write their file name in another letter case"]


def test_system_files_are_neither_read_nor_listed(tmp_path: Path) -> None:
    junk = [".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", ".hidden/b.jpg", "__MACOSX/c.jpg"]
    truth = read(tmp_path, ["a.jpg", *junk], "a.jpg,да\n._a.jpg,нет\n")
    assert (len(truth.samples), truth.images) == (1, 1)
    assert only_rejection(truth).kind == "system file"


def test_columns_that_are_not_used_are_noted(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg"], "a.jpg,да,5\n", "filename,text,score")
    assert truth.notes == ["annotations.csv: columns that are not used: score"]
