"""Contact sheets: what was written is what is read, and small."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ownhand.images import open_image
from ownhand.vision.contact_sheet import SHEET, ContactRow, read_contact_sheet, write_contact_sheet


def test_pictures_come_back_reduced_in_order_with_captions_and_settings(tmp_path: Path) -> None:
    pictures = [("before", Image.new("RGB", (2000, 100), "red")), ("after", Image.new("RGB", (90, 50), "blue"))]
    write_contact_sheet(tmp_path, {"copies": 5.0}, [ContactRow("Один", pictures), ContactRow("Два", pictures[1:])])
    sheet = read_contact_sheet(tmp_path)
    assert sheet is not None and sheet["settings"] == {"copies": 5.0}
    assert [group["title"] for group in sheet["groups"]] == ["Один", "Два"]
    first, second = sheet["groups"][0]["pictures"]
    assert (first["caption"], first["width"], first["height"]) == ("before", 560, 28)
    assert open_image(tmp_path / first["file"]).size == (560, 28)
    assert (second["caption"], second["width"]) == ("after", 90)
    assert open_image(tmp_path / second["file"]).getpixel((5, 5))[2] > 200  # type: ignore[index]
    assert pictures[0][1].size == (2000, 100)


def test_without_a_whole_sheet_there_is_none(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path, {}, [ContactRow("", [("", Image.new("RGB", (9, 9)))])])
    (tmp_path / SHEET).unlink()
    assert read_contact_sheet(tmp_path) is None
