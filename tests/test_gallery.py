"""The gallery: valid, self-contained pictures under the names of their lines."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

from validation_set import ROWS, read_validation_lines, write_validation_set

from ownhand.report.gallery import write_gallery
from ownhand.vision.probes import LINES


def texts_of(path: Path) -> str:
    return " ".join("".join(ElementTree.parse(path).getroot().itertext()).split())


def test_a_line_is_shown_with_picture_transcription_and_both_readings(tmp_path: Path) -> None:
    write_gallery(tmp_path / "gallery", read_validation_lines(write_validation_set(tmp_path)), tmp_path)
    assert sorted(path.name for path in (tmp_path / "gallery").iterdir()) == [
        f"{n:05d}.svg" for n in range(2, 2 + len(ROWS))
    ]
    text = texts_of(tmp_path / "gallery/00003.svg").replace("\u00a0", " ")
    assert text == "Ёж № 5 Base 33.3 % Еж N 5 Adapter 16.7 % Ёж № 6"
    assert "data:image/jpeg;base64," in (tmp_path / "gallery/00003.svg").read_text(encoding="utf-8")


def test_texts_that_are_no_xml_are_shown_as_text(tmp_path: Path) -> None:
    rows = [("p1", "a < b & c", "<script>\x00\x1b</script>", "]]>")]
    write_gallery(tmp_path / "gallery", read_validation_lines(write_validation_set(tmp_path, rows)), tmp_path)
    assert "\ufffd" in texts_of(tmp_path / "gallery/00002.svg")


def test_many_lines_give_a_few_pictures_and_old_ones_are_gone(tmp_path: Path) -> None:
    rows = [(f"p{n}", f"line {n}", "", f"line {n}") for n in range(60)]
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery/99999.svg").touch()
    write_gallery(tmp_path / "gallery", read_validation_lines(write_validation_set(tmp_path, rows)), tmp_path)
    names = {path.stem for path in (tmp_path / "gallery").iterdir()}
    assert len(names) == LINES and "99999" not in names
