from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.dataset.frozen import read_frozen
from ownhand.errors import Refusal

NAMES = ["p1/a.jpg", "p1/b.jpg", "p2/c.jpg", "page.jpg#l1", "page.jpg#l2"]
PAGES = [("", "p1"), ("", "p1"), ("Аня", "p2"), ("", "page.jpg"), ("", "page.jpg")]


def frozen(folder: Path, **contents: str) -> list[str]:
    lists: dict[str, str | None] = {"val": None, "test": None}
    for side, content in contents.items():
        lists[side] = f"{side}.txt"
        (folder / f"{side}.txt").write_text(content, encoding="utf-8-sig", newline="")
    return read_frozen(folder, lists, NAMES, PAGES)


def test_pictures_and_pages_may_be_named_and_stand_for_whole_pages(tmp_path: Path) -> None:
    assert frozen(tmp_path, val="p2\r\n\r\np1/b.jpg\r\n") == ["val", "val", "val", "", ""]
    assert frozen(tmp_path, val="page.jpg\n", test="p2\n") == ["", "", "test", "val", "val"]
    assert frozen(tmp_path, val="page.jpg#l2\n") == ["", "", "", "val", "val"]


def test_without_a_list_nothing_is_frozen(tmp_path: Path) -> None:
    assert frozen(tmp_path) == [""] * 5


def test_names_that_are_no_accepted_sample_are_all_listed(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"prepare\.val: 2 of 3 names in val\.txt .*rejected\.csv.*\n  x\.jpg\n  p7"):
        frozen(tmp_path, val="x.jpg\np1\np7\n")


def test_a_page_that_two_lists_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"prepare\.test: page 'p1' stands in the list of prepare\.val, too"):
        frozen(tmp_path, val="p1/a.jpg", test="p1/b.jpg")


def test_the_list_must_be_there_and_where_its_changes_are_seen(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "val.txt").write_text("p1", encoding="utf-8")
    with pytest.raises(Refusal, match=r"\.\./val\.txt must lie in"):
        read_frozen(raw, {"val": "../val.txt"}, NAMES, PAGES)
    with pytest.raises(Refusal, match="cannot be read as UTF-8 text"):
        read_frozen(raw, {"val": "val.txt"}, NAMES, PAGES)
