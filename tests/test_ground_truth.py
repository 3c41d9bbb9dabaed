"""Ground truth and the files it names: every guarantee holds for every format."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from ownhand.ground_truth.matching import GroundTruth, read_ground_truth
from ownhand.ground_truth.records import GroundTruthError, Rejection, Waiting


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
    assert [(s.filename, s.text, s.page, s.hand, s.row) for s in truth.records] == [
        ("b.jpg", "два", "p1", "Аня", 2),
        ("sub/стр 1 🙂.png", "раз", "", "", 3),
    ]
    assert all(sample.path.is_file() for sample in truth.records)
    assert (truth.rows, truth.images, truth.rejections, truth.notes) == (2, 2, [], [])


def test_tsv_is_read_too(tmp_path: Path) -> None:
    raw = make_folder(tmp_path, ["a.jpg"], "filename\ttext\na.jpg\tраз, два\n", "annotations.tsv")
    assert read_ground_truth(raw, "utf-8").records[0].text == "раз, два"


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


def test_image_without_row_waits_and_is_no_rejection(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg", "sub/b.PNG", "c.heic", "notes.txt"], "a.jpg,да\n")
    what = "picture: no row of the annotations names it"
    assert truth.waiting == [Waiting("c.heic", "", what), Waiting("sub/b.PNG", "", what)]
    assert truth.rejections == []
    assert truth.images == 3


def test_same_file_twice_with_the_same_text_keeps_one(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg"], "a.jpg,е\u0308ж\n./a.jpg, ёж \n")
    assert [(sample.row, sample.text) for sample in truth.records] == [(2, "ёж")]
    assert only_rejection(truth) == Rejection("a.jpg", 3, "repeated: row 2 says the same and is kept", counted=False)


@pytest.mark.parametrize(("second", "what"), [("нет,p1", "texts"), ("да,p2", "pages")])
def test_same_file_twice_with_different_texts_or_pages_rejects_both(tmp_path: Path, second: str, what: str) -> None:
    truth = read(tmp_path, ["a.jpg"], f"a.jpg,да,p1\na.jpg,{second}\n", "filename,text,page")
    assert truth.records == []
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
    assert [sample.filename for sample in truth.records] == ["sub/a.jpg", "b.jpg"]


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
    assert [sample.filename for sample in truth.records] == ["a.jpg"]
    assert [(r.row, r.kind) for r in truth.rejections] == [(3, "outside data/raw"), (4, "outside data/raw")]


def test_links_inside_the_folder_are_read_as_files_and_not_walked_as_folders(tmp_path: Path) -> None:
    raw = make_folder(tmp_path, ["sub/a.jpg"], "filename,text\nsame.jpg,да\nfolder/a.jpg,нет\n")
    link(raw / "same.jpg", raw / "sub/a.jpg")
    link(raw / "folder", raw / "sub")
    truth = read_ground_truth(raw, "utf-8")
    assert [sample.filename for sample in truth.records] == ["same.jpg"]
    assert [r.kind for r in truth.rejections if r.counted] == ["link that is not followed"]


def test_names_that_differ_only_in_unicode_form_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="Unicode form"):
        read(tmp_path, [unicodedata.normalize(form, "й.png") for form in ("NFC", "NFD")], "b.png,да\n")


def test_files_that_are_no_pictures_may_clash(tmp_path: Path) -> None:
    assert len(read(tmp_path, ["a.png", "notes.txt", "Notes.txt"], "a.png,да\n").records) == 1


def test_another_letter_case_finds_the_file_and_is_noted(tmp_path: Path) -> None:
    truth = read(tmp_path, ["IMG_1.JPG"], "img_1.jpg,да\n")
    assert truth.records[0].filename == "IMG_1.JPG"
    assert truth.notes[0] == "1 row(s) write their file name in another letter case"


def test_system_files_are_neither_read_nor_listed(tmp_path: Path) -> None:
    junk = [".DS_Store", "._a.jpg", "Thumbs.db", "desktop.ini", ".hidden/b.jpg", "__MACOSX/c.jpg"]
    truth = read(tmp_path, ["a.jpg", *junk], "a.jpg,да\n._a.jpg,нет\n")
    assert (len(truth.records), truth.images) == (1, 1)
    assert only_rejection(truth).kind == "system file"


def test_columns_that_are_not_used_are_noted(tmp_path: Path) -> None:
    truth = read(tmp_path, ["a.jpg"], "a.jpg,да,5\n", "filename,text,score")
    assert truth.notes[0] == "annotations.csv: columns that are not used: score"


def test_pictures_of_which_none_has_a_page_are_noted_because_sheets_may_be_torn_apart(tmp_path: Path) -> None:
    (note,) = read(tmp_path / "without", ["a.jpg"], "a.jpg,да\n").notes
    assert note.startswith("no page is named: every picture counts as a page of its own")
    assert read(tmp_path / "with", ["a.jpg"], "a.jpg,да,p1\n", "filename,text,page").notes == []


Rows = list[tuple[str, str]]
PAGE_XML = (
    '<PcGts><Page imageFilename={name} imageWidth="60" imageHeight="40"><TextLine id="l1">'
    '<Coords points="0,0 60,0 60,40 0,40"/><TextEquiv><Unicode>{text}</Unicode></TextEquiv></TextLine></Page></PcGts>'
)
ALTO_XML = (
    "<alto><Description><fileName>{plain}</fileName></Description><Layout><Page><TextLine ID='l1' HPOS='0' VPOS='0'"
    " WIDTH='60' HEIGHT='40'><String CONTENT={content}/></TextLine></Page></Layout></alto>"
)


def write_file(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8", newline="\n")


def write_annotations(raw: Path, rows: Rows) -> None:
    write_file(raw / "annotations.csv", "filename,text\n" + "".join(f"{name},{text}\n" for name, text in rows))


def write_text_files(raw: Path, rows: Rows) -> None:
    for name, text in rows:
        stem = name.rpartition(".")[0]
        path = raw / f"{stem}.gt.txt"
        write_file(raw / f"{stem}.txt" if path.exists() else path, text)


def write_json_lines(raw: Path, rows: Rows) -> None:
    lines = [
        {"messages": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": text}], "images": [name]}
        for name, text in rows
    ]
    write_file(raw / "chat.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_image_folder(raw: Path, rows: Rows) -> None:
    lines = [{"file_name": name, "text": text} for name, text in rows]
    write_file(raw / "metadata.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_page_files(raw: Path, rows: Rows, template: str) -> None:
    for number, (name, text) in enumerate(rows):
        filled = template.format(name=quoteattr(name), text=text, plain=name, content=quoteattr(text))
        write_file(raw / f"{number}.xml", filled)


FORMATS: dict[str, Callable[[Path, Rows], None]] = {
    "annotations": write_annotations,
    "text files": write_text_files,
    "JSON lines": write_json_lines,
    "imagefolder": write_image_folder,
    "PAGE XML": lambda raw, rows: write_page_files(raw, rows, PAGE_XML),
    "ALTO XML": lambda raw, rows: write_page_files(raw, rows, ALTO_XML),
}


@pytest.fixture(params=FORMATS)
def truth_of(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[list[str], Rows], GroundTruth]:
    """Pictures that only exist, and rows in one of the formats, read."""

    def write_and_read(files: list[str], rows: Rows) -> GroundTruth:
        for name in files:
            write_file(tmp_path / "raw" / name, "")
        FORMATS[request.param](tmp_path / "raw", rows)
        return read_ground_truth(tmp_path / "raw", "utf-8")

    return write_and_read


Reader = Callable[[list[str], Rows], GroundTruth]


def plain(name: str) -> str:
    """The picture's own name, without that of a line."""
    return name.removesuffix("#l1")


def test_every_format_keeps_texts_exactly_and_names_rows_that_differ(truth_of: Reader) -> None:
    written = ["NA", "null", "007", "1.0", "TRUE", "мо\u0438\u0306 «Ёж» 🙂"]
    files = [f"sub/стр {number}.jpg" for number in range(len(written))]
    truth = truth_of(files, list(zip(files, written, strict=True)))
    assert [sample.text for sample in truth.records] == [*written[:-1], "мой «Ёж» 🙂"]
    assert [plain(sample.filename) for sample in truth.records] == files
    assert len({sample.row for sample in truth.records}) == truth.rows == truth.images == len(files)
    assert truth.rejections == []


def test_every_format_rejects_empty_and_damaged_texts_and_missing_pictures_by_row(truth_of: Reader) -> None:
    truth = truth_of(
        ["a.jpg", "b.jpg", "c.jpg"], [("a.jpg", "да"), ("b.jpg", " "), ("c.jpg", "\ufffd"), ("d.jpg", "x")]
    )
    kinds = {plain(r.file).removesuffix(".jpg"): (r.kind, r.counted, r.row is not None) for r in truth.rejections}
    waiting = {plain(one.file): one.row for one in truth.waiting}
    expected = {"c": ("damaged text", True, True), "d": ("image not found", True, True)}
    if truth.source.startswith(("PAGE", "ALTO")):  # a line that was found and not transcribed yet
        assert waiting == {"b.jpg": "1.xml#l1"}
    else:
        assert waiting == {}
        expected["b"] = ("empty text", True, True)
    assert kinds == expected
    assert truth.rows == len(truth.records) + len(truth.rejections) + len(truth.waiting) == 4


def test_every_format_lists_pictures_that_it_does_not_name(truth_of: Reader) -> None:
    truth = truth_of(["a.jpg", "other/b.jpg"], [("a.jpg", "да")])
    assert [(one.file, one.row) for one in truth.waiting] == [("other/b.jpg", "")]
    assert truth.rejections == []


def test_every_format_settles_pictures_that_are_named_twice(truth_of: Reader) -> None:
    truth = truth_of(["a.jpg", "b.jpg"], [("a.jpg", "е\u0308ж"), ("a.jpg", "ёж "), ("b.jpg", "да"), ("b.jpg", "нет")])
    assert [(plain(sample.filename), sample.text) for sample in truth.records] == [("a.jpg", "ёж")]
    assert sorted((plain(r.file), r.kind, r.counted) for r in truth.rejections) == [
        ("a.jpg", "repeated", False),
        ("b.jpg", "named twice with different texts", True),
        ("b.jpg", "named twice with different texts", True),
    ]


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_every_format_matches_names_by_normal_form_and_letter_case(
    truth_of: Reader, on_disk: str, written: str
) -> None:
    stored, named = unicodedata.normalize(on_disk, "Ёлка й.JPG"), unicodedata.normalize(written, "ёлка Й.jpg")
    truth = truth_of([stored, "b.jpg"], [(named, "да"), ("b.jpg", "нет")])
    assert {plain(sample.filename): sample.text for sample in truth.records} == {"Ёлка й.JPG": "да", "b.jpg": "нет"}
    assert [sample.path.is_file() for sample in truth.records] == [True, True]


def test_no_format_reads_files_outside_the_folder(truth_of: Reader, tmp_path: Path) -> None:
    write_file(tmp_path / "x.jpg", "")
    names = ["../x.jpg", str(tmp_path / "x.jpg"), "C:\\x.jpg", "\\\\server\\x.jpg"]
    try:
        truth = truth_of(["a.jpg"], [("a.jpg", "да"), *((name, "нет") for name in names)])
    except OSError:
        pytest.skip("this system has no such file names")
    assert [plain(sample.filename) for sample in truth.records] == ["a.jpg"]
    if truth.source.startswith(".txt"):  # these name nothing: what lies outside is never seen
        return
    assert [r.kind for r in truth.rejections] == ["outside data/raw"] * len(names)


def test_no_format_follows_links_out_of_the_folder(truth_of: Reader, tmp_path: Path) -> None:
    write_file(tmp_path / "x.jpg", "")
    write_file(tmp_path / "raw/a.jpg", "")
    link(tmp_path / "raw/link.jpg", tmp_path / "x.jpg")
    truth = truth_of([], [("a.jpg", "да"), ("link.jpg", "нет")])
    assert [plain(sample.filename) for sample in truth.records] == ["a.jpg"]
    (rejection,) = truth.rejections
    assert rejection.kind in ("outside data/raw", "image not found")


def test_no_format_chooses_between_names_that_differ_only_in_letter_case(truth_of: Reader, tmp_path: Path) -> None:
    for name in ("A.png", "a.png"):
        write_file(tmp_path / "raw" / name, "")
    if len(list((tmp_path / "raw").iterdir())) == 1:
        pytest.skip("this file system takes them for one")
    with pytest.raises(GroundTruthError, match=r'"A\.png" and "a\.png"'):
        truth_of([], [("a.png", "да")])


@pytest.mark.parametrize("other", [name for name in FORMATS if name != "annotations"])
def test_two_formats_at_once_are_an_error_that_names_both(tmp_path: Path, other: str) -> None:
    write_file(tmp_path / "raw/a.jpg", "")
    write_annotations(tmp_path / "raw", [("a.jpg", "да")])
    FORMATS[other](tmp_path / "raw", [("a.jpg", "да")])
    with pytest.raises(
        GroundTruthError, match=r"2 formats.*leave one.*\n  annotations\.csv, \.tsv or \.xlsx: annotations\.csv\n"
    ):
        read_ground_truth(tmp_path / "raw", "utf-8")


def test_files_that_are_said_to_be_something_else_are_no_ground_truth(tmp_path: Path) -> None:
    write_file(tmp_path / "a.jpg", "")
    write_annotations(tmp_path, [("a.jpg", "да")])
    write_file(tmp_path / "a.txt", "a.jpg")
    truth = read_ground_truth(tmp_path, "utf-8", not_truth=["a.txt"])
    assert (len(truth.records), truth.rejections) == (1, [])


def test_what_is_no_file_is_named_for_what_it_is_before_anything_is_read(tmp_path: Path) -> None:
    raw = make_folder(tmp_path, ["a.jpg", "sub/b.jpg"], "filename,text\na.jpg,да\n")
    link(raw / "sub/gone.jpg", tmp_path / "nowhere.jpg")
    link(raw / "loop.jpg", Path("loop.jpg"))
    with pytest.raises(GroundTruthError) as caught:
        read_ground_truth(raw, "utf-8")
    first, *listed = str(caught.value).split("\n")
    assert "holds what is no file" in first and "put the file itself there" in first
    assert listed == [
        "  loop.jpg: a link that leads to itself",
        f"  sub/gone.jpg: a link to nothing (it leads to {tmp_path / 'nowhere.jpg'})",
    ]
