"""The store: what was accepted is there, whatever happens; what others wrote stays; everything can be undone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from ownhand import files
from ownhand.correction.queue import Line, OpenLines
from ownhand.correction.store import ChangedElsewhere, Store
from ownhand.errors import Refusal
from ownhand.files import Unwritable
from ownhand.ground_truth.set_aside import NAME as SET_ASIDE

TABLE = '\ufefffilename;text;page;note\r\na.jpg;"Ёж";p1;да\r\nb.jpg;;p1;\r\n'
PAGE = """<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
  <Page imageFilename="{name}.jpg" imageWidth="90" imageHeight="40"><TextRegion id="r">
    <TextLine id="l1"><Coords points="1,1 80,1 80,9 1,9"/></TextLine>
    <TextLine id="l2"><Coords points="1,11 80,11 80,19 1,19"/><TextEquiv><Unicode>два</Unicode></TextEquiv></TextLine>
  </TextRegion></Page></PcGts>
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "data/raw"
    folder.mkdir(parents=True)
    for name in "abc":
        Image.new("RGB", (90, 40), "white").save(folder / f"{name}.jpg")
    return folder


def open_store(raw: Path, encoding: str = "utf-8") -> Store:
    return Store(OpenLines(raw, encoding), raw.parent.parent / "journal")


def line(store: Store, name: str) -> Line:
    return store.lines.by_name[name]


def accept(store: Store, name: str, text: str, seen: str = "", *, review: bool = False) -> None:
    store.accept(line(store, name), seen, text, seconds=2.0, review=review)


def test_rows_are_filled_and_added_and_nothing_else_changes(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_bytes(TABLE.encode())
    store = open_store(raw)
    assert [one.name for one in store.lines.in_order if one.waits] == ["b.jpg", "c.jpg"]
    accept(store, "b.jpg", "  вторая; строка ")
    accept(store, "c.jpg", "третья")
    accept(store, "a.jpg", "Уж", seen="Ёж")
    expected = TABLE.replace('"Ёж"', '"Уж"').replace("b.jpg;;", 'b.jpg;"вторая; строка";') + "c.jpg;третья;;\r\n"
    assert table.read_bytes() == expected.encode()
    assert not any(one.waits for one in store.lines.in_order)
    assert open_store(raw).lines.by_name["b.jpg"].text == "вторая; строка"


def test_without_any_ground_truth_a_table_is_begun(raw: Path) -> None:
    store = open_store(raw)
    accept(store, "b.jpg", "вторая")
    assert (raw / "annotations.csv").read_text(encoding="utf-8") == "filename,text\nb.jpg,вторая\n"
    accept(store, "a.jpg", "первая")
    assert (raw / "annotations.csv").read_text(encoding="utf-8") == "filename,text\nb.jpg,вторая\na.jpg,первая\n"


def test_text_files_are_written_beside_their_pictures(raw: Path) -> None:
    (raw / "a.gt.txt").write_bytes("один\r\n".encode())
    (raw / "b.gt.txt").write_bytes(b"")
    store = open_store(raw)
    accept(store, "a.jpg", "раз", seen="один")
    accept(store, "b.jpg", "два")
    accept(store, "c.jpg", "три")
    written = {path.name: path.read_bytes().decode() for path in raw.glob("*.txt")}
    assert written == {"a.gt.txt": "раз\r\n", "b.gt.txt": "два\n", "c.gt.txt": "три\n"}


def test_lines_of_pages_are_written_into_their_page_file(raw: Path) -> None:
    for name in "ab":
        (raw / f"{name}.xml").write_text(PAGE.format(name=name), encoding="utf-8")
    store = open_store(raw)
    assert store.lines.bare_pages == 1
    assert [one.label for one in store.lines.in_order if one.waits] == ["a.jpg, line 1 of 2", "b.jpg, line 1 of 2"]
    accept(store, "b.jpg#l1", "раз")
    assert (raw / "a.xml").read_text(encoding="utf-8") == PAGE.format(name="a")
    coords = '<Coords points="1,1 80,1 80,9 1,9"/>'
    equiv = "<TextEquiv><Unicode>раз</Unicode></TextEquiv>"
    assert (raw / "b.xml").read_text(encoding="utf-8") == PAGE.format(name="b").replace(coords, coords + equiv)
    assert line(store, "b.jpg#l2").text == "два"


def test_formats_that_are_only_read_are_refused_by_name(raw: Path) -> None:
    (raw / "lines.jsonl").write_text('{"image": "a.jpg", "text": "да"}\n', encoding="utf-8")
    with pytest.raises(Refusal, match=r"JSON lines.*read but not written.*annotations\.csv"):
        open_store(raw)
    (raw / "lines.jsonl").rename(raw / "annotations.xlsx")
    with pytest.raises(Refusal, match=r"annotations\.xlsx, which is read but not written"):
        open_store(raw)


def test_an_edit_of_another_line_is_merged(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    table.write_text("note,filename,text\nновое,b.jpg,вторая\nновое,c.jpg,\nновое,a.jpg,\n", encoding="utf-8")
    accept(store, "a.jpg", "первая")
    expected = "note,filename,text\nновое,b.jpg,вторая\nновое,c.jpg,\nновое,a.jpg,первая\n"
    assert table.read_text(encoding="utf-8") == expected
    assert line(store, "b.jpg").text == "вторая"


def test_an_edit_of_the_same_line_is_never_overwritten_unasked(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    table.write_text("filename,text\na.jpg,чужая\n", encoding="utf-8")
    with pytest.raises(ChangedElsewhere) as caught:
        accept(store, "a.jpg", "моя")
    assert caught.value.line.text == "чужая"
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,чужая\n"
    accept(store, "a.jpg", "моя", seen="чужая")  # the person has seen it
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,моя\n"


def test_an_edit_at_the_very_moment_of_writing_is_noticed(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    fsync = os.fsync
    edits = iter(["filename,text\na.jpg,\nb.jpg,чужая\n"])

    def edit_before_fsync(handle: int) -> None:  # the journal's: after the table was read, before it is written
        if text := next(edits, ""):
            table.write_text(text, encoding="utf-8")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", edit_before_fsync)
    accept(store, "a.jpg", "моя")
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,моя\nb.jpg,чужая\n"
    assert store.gains().transcribed == 1


def test_rows_below_a_text_of_several_lines_are_found(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\nc.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    accept(store, "a.jpg", "две\nстроки")
    accept(store, "c.jpg", "три")
    accept(store, "a.jpg", "одна", seen="две\nстроки")
    accept(store, "b.jpg", "два")
    assert table.read_text(encoding="utf-8") == 'filename,text\na.jpg,"одна"\nb.jpg,два\nc.jpg,три\n'


def test_undo_goes_back_step_by_step_also_after_a_restart(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    accept(store, "a.jpg", "первая")
    accept(store, "b.jpg", "вторая")
    accept(store, "a.jpg", "первая!", seen="первая")
    store.set_aside(line(store, "b.jpg"), "вторая", "unreadable")
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,первая!\n"
    assert (raw / SET_ASIDE).read_text(encoding="utf-8") == "filename,why\nb.jpg,unreadable\n"
    undone = []
    for _ in range(4):
        store = open_store(raw)
        changed, entry = store.undo()
        undone.append((changed.name, entry.text, changed.text, changed.why))
    assert undone == [
        ("b.jpg", "", "вторая", ""),
        ("a.jpg", "первая!", "первая", ""),
        ("b.jpg", "вторая", "", ""),
        ("a.jpg", "первая", "", ""),
    ]
    assert table.read_text(encoding="utf-8") == "filename,text\n"
    assert (raw / SET_ASIDE).read_text(encoding="utf-8") == "filename,why\n"
    with pytest.raises(Refusal, match="nothing to undo"):
        store.undo()


def test_undo_leaves_no_empty_text_behind(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_bytes(TABLE.encode())
    store = open_store(raw)
    accept(store, "b.jpg", "вторая")
    accept(store, "c.jpg", "третья")
    for _ in range(2):
        store.undo()
    assert table.read_bytes() == TABLE.encode()
    table.unlink()
    (raw / "a.gt.txt").write_text("да\n", encoding="utf-8")
    store = open_store(raw)
    accept(store, "b.jpg", "нет")
    store.undo()
    assert [path.name for path in raw.glob("*.txt")] == ["a.gt.txt"]


def test_undo_leaves_what_was_changed_elsewhere_since(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\n", encoding="utf-8")
    store = open_store(raw)
    accept(store, "a.jpg", "первая")
    accept(store, "b.jpg", "вторая")
    table.write_text("filename,text\na.jpg,первая\nb.jpg,чужая\n", encoding="utf-8")
    with pytest.raises(Refusal, match=r"b\.jpg was changed elsewhere"):
        store.undo()
    assert store.undo()[0].name == "a.jpg"
    assert table.read_text(encoding="utf-8") == "filename,text\nb.jpg,чужая\n"


def test_what_another_program_saved_over_is_remembered(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\nb.jpg,\n", encoding="utf-8")
    accept(open_store(raw), "a.jpg", "первая")
    table.write_text("filename,text\na.jpg,\nb.jpg,вторая\n", encoding="utf-8")  # the older copy, saved
    store = open_store(raw)
    assert [store.overwritten(line(store, f"{name}.jpg")) for name in "ab"] == ["первая", ""]


def test_set_aside_lines_do_not_wait_and_can_be_transcribed_after_all(raw: Path) -> None:
    store = open_store(raw)
    store.set_aside(line(store, "a.jpg"), "", "not a line")
    store = open_store(raw)
    assert (line(store, "a.jpg").why, line(store, "a.jpg").waits) == ("not a line", False)
    accept(store, "a.jpg", "всё же")
    assert (line(store, "a.jpg").why, line(store, "a.jpg").text) == ("", "всё же")
    assert (raw / SET_ASIDE).read_text(encoding="utf-8") == "filename,why\n"
    with pytest.raises(Refusal, match="no reason"):
        store.set_aside(line(store, "a.jpg"), "всё же", "ugly")


@pytest.mark.parametrize("text", ["", "  ", "\u200b", "a\ufffd", "\ud83d", "a\0b", "я" * 131_073])
def test_what_is_no_transcription_is_refused_and_nothing_is_written(raw: Path, text: str) -> None:
    store = open_store(raw)
    with pytest.raises(Refusal):
        accept(store, "a.jpg", text)
    assert not (raw / "annotations.csv").exists()
    assert str(store.gains()) == "nothing was changed"


def test_a_full_disk_changes_nothing_and_says_so(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,\n", encoding="utf-8")
    store = open_store(raw)

    def fail(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(Unwritable, match=r"annotations\.csv could not be written"):
        accept(store, "a.jpg", "первая")
    monkeypatch.undo()
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,\n"
    assert line(store, "a.jpg").text == ""
    assert store.gains().transcribed == 0
    assert open_store(raw).overwritten(line(store, "a.jpg")) == "первая"  # the journal still has it


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", ["a\\b.jpg", "C:a.jpg", os.fsdecode(b"\xff.jpg"), "a\nb.jpg"])
@pytest.mark.parametrize("beside", [{}, {"annotations.csv": "filename,text\na.jpg,да\n"}, {"a.txt": "да\n"}])
def test_what_is_saved_is_found_again_whatever_the_picture_is_called(
    raw: Path, name: str, beside: dict[str, str]
) -> None:
    Image.new("RGB", (90, 40), "white").save(raw / name)
    for file, content in beside.items():
        (raw / file).write_text(content, encoding="utf-8")
    store = open_store(raw)
    (odd,) = [one for one in store.lines.in_order if one.picture not in ("a.jpg", "b.jpg", "c.jpg")]
    for text in ("да", " waits", "waits \ue000"):
        store.accept(odd, odd.text, text)
        assert open_store(raw).lines.by_name[odd.name].text == text.strip()


@pytest.mark.parametrize("damage", ["encoding", "folder", "full disk"])
def test_a_line_that_cannot_be_set_aside_keeps_its_text(
    raw: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    table, replace = raw / "annotations.csv", os.replace
    table.write_text("filename,text\na.jpg,первая\n", encoding="utf-8")
    store = open_store(raw)
    if damage == "encoding":
        (raw / SET_ASIDE).write_bytes(b"\xff")
    elif damage == "folder":
        (raw / SET_ASIDE).mkdir()

    def fail(source: Path, target: Path) -> None:
        if Path(target).name == SET_ASIDE:
            raise OSError(28, "No space left on device")
        replace(source, target)

    if damage == "full disk":
        monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(Refusal, match=r"set_aside\.csv"):
        store.set_aside(line(store, "a.jpg"), "первая", "unreadable")
    assert table.read_text(encoding="utf-8") == "filename,text\na.jpg,первая\n"
    assert (line(store, "a.jpg").text, line(store, "a.jpg").why) == ("первая", "")


def test_a_text_that_cannot_be_taken_away_is_not_set_aside(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, replace = raw / "annotations.csv", os.replace
    table.write_text("filename,text\na.jpg,первая\n", encoding="utf-8")
    store = open_store(raw)

    def fail(source: Path, target: Path) -> None:
        if Path(target) == table:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(Unwritable, match=r"annotations\.csv"):
        store.set_aside(line(store, "a.jpg"), "первая", "unreadable")
    assert open_store(raw).lines.by_name["a.jpg"].why == ""
    assert line(store, "a.jpg").text == "первая"


def test_a_table_that_became_unreadable_is_said_each_time_and_no_line_is_lost(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,первая\n", encoding="utf-8")
    store = open_store(raw)
    table.write_bytes("filename,text\na.jpg,первая\n".encode("cp1251"))
    for _ in range(2):
        with pytest.raises(Refusal, match=r"annotations\.csv, line 2: byte 0xef is not valid utf-8"):
            accept(store, "b.jpg", "вторая")
        assert [one.waits for one in store.lines.in_order] == [False, True, True]
    table.write_text("filename,text\na.jpg,первая\n", encoding="utf-8")
    accept(store, "b.jpg", "вторая")
    assert open_store(raw).lines.by_name["b.jpg"].text == "вторая"


def test_a_table_that_was_removed_is_begun_anew(raw: Path) -> None:
    table = raw / "annotations.csv"
    table.write_text("filename,text\na.jpg,первая\n", encoding="utf-8")
    store = open_store(raw)
    table.unlink()
    accept(store, "b.jpg", "вторая")
    assert table.read_text(encoding="utf-8") == "filename,text\nb.jpg,вторая\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none here")
def test_what_is_no_file_is_named_and_not_waited_for(raw: Path) -> None:
    store = open_store(raw)
    os.mkfifo(raw / "annotations.csv")
    with pytest.raises(Refusal, match=r"annotations\.csv is no file"):
        accept(store, "a.jpg", "первая")
    os.mkfifo(raw / SET_ASIDE)
    with pytest.raises(Refusal, match=r"set_aside\.csv is no file"):
        open_store(raw)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_table_that_is_a_link_stays_one(raw: Path) -> None:
    (raw / "table").write_text("filename,text\na.jpg,\n", encoding="utf-8")
    (raw / "annotations.csv").symlink_to("table")
    accept(open_store(raw), "a.jpg", "первая")
    assert (raw / "annotations.csv").is_symlink()
    assert (raw / "table").read_text(encoding="utf-8") == "filename,text\na.jpg,первая\n"


def test_gains_count_each_line_once_and_nothing_undone(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text\na.jpg,x\nb.jpg,y\n", encoding="utf-8")
    store = open_store(raw)
    accept(store, "c.jpg", "z")
    store.accept(line(store, "c.jpg"), "z", "zz", seconds=6.0, proposed=True)
    accept(store, "a.jpg", "x", "x", review=True)
    accept(store, "b.jpg", "yy", "y", review=True)
    gains = store.gains()
    assert (gains.transcribed, gains.confirmed, gains.corrected, gains.set_aside) == (1, 1, 1, 0)
    assert (gains.seconds, gains.seconds_with_proposal, gains.seconds_without_proposal) == (2.0, 6.0, 2.0)
    assert str(gains).startswith("1 line transcribed, 1 corrected, 1 confirmed; 2.0 s a line; 6.0 s with a proposal")
    assert store.checked() == {"a.jpg": "x", "b.jpg": "yy"}
    store.undo()
    store.undo()
    assert store.checked() == {}
    assert store.gains().transcribed == 1


@pytest.mark.parametrize("change", [("1,", '"1",'), ('"a.jpg"', '["a.jpg"]'), ("1,", "1e999,"), ("{", "[" * 99_999)])
def test_what_is_no_entry_of_the_journal_is_left_out(raw: Path, change: tuple[str, str]) -> None:
    store = open_store(raw)
    accept(store, "a.jpg", "первая")
    accept(store, "b.jpg", "вторая")
    content = store.journal.read_text(encoding="utf-8")
    store.journal.write_text(content.replace(*change, 1), encoding="utf-8")
    store = open_store(raw)
    assert [entry.name for entry in store.stands] == ["b.jpg"]
    assert store.undo()[0].name == "b.jpg"


def test_a_journal_that_was_cut_off_is_read_up_to_there(raw: Path) -> None:
    store = open_store(raw)
    accept(store, "a.jpg", "первая")
    accept(store, "b.jpg", "вторая")
    content = store.journal.read_bytes()
    store.journal.write_bytes(content[:-20])
    store = open_store(raw)
    accept(store, "c.jpg", "третья")
    assert [entry.name for entry in open_store(raw).stands] == ["a.jpg", "c.jpg"]


KILLED = """
import sys, os
from pathlib import Path
from ownhand.correction.queue import OpenLines
from ownhand.correction.store import Store
store = Store(OpenLines(Path("data/raw"), "utf-8"), Path("journal"))
for number in range(1000):
    line = store.lines.by_name["a.jpg"]
    store.accept(line, line.text, f"text {number}")
    print(number, flush=True)
"""


def test_every_line_that_was_answered_survives_a_kill(raw: Path) -> None:
    (raw / "annotations.csv").write_text("filename,text,note\na.jpg,,да\nb.jpg,два,нет\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=raw.parent.parent, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    answered = [int(program.stdout.readline()) for _ in range(20)][-1]
    program.kill()
    answered = max([answered, *map(int, program.stdout.read().split("\n")[:-1])])
    program.wait()
    program.stdout.close()
    rows = (raw / "annotations.csv").read_text(encoding="utf-8").splitlines()
    assert rows[0] == "filename,text,note"
    assert rows[1] in (f"a.jpg,text {answered},да", f"a.jpg,text {answered + 1},да")
    assert rows[2] == "b.jpg,два,нет"
