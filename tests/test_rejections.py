from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.dataset.rejections import (
    count_kinds,
    count_waiting,
    refuse_too_many,
    write_rejections,
    write_waiting,
)
from ownhand.errors import Refusal
from ownhand.ground_truth.matching import read_ground_truth
from ownhand.ground_truth.records import Rejection, Waiting

LOST = [Rejection(f"{number}.jpg", number, "image not found: nothing like it") for number in range(2, 5)]
EXTRA = Rejection("x.jpg", None, "repeated: row 2 says the same and is kept", counted=False)


def test_rejections_are_listed_in_the_order_a_person_reads_rows(tmp_path: Path) -> None:
    rows = [10, 9, None, "b.xml#l10", "b.xml#l9", "a.xml#l11"]
    write_rejections(tmp_path / "rejected.csv", [Rejection("x", row, "because") for row in rows])
    written = (tmp_path / "rejected.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",")[1] for line in written] == ["9", "10", "a.xml#l11", "b.xml#l9", "b.xml#l10", ""]


def test_kinds_are_counted_with_an_example_the_most_frequent_first() -> None:
    assert count_kinds([EXTRA, *LOST]) == [
        "3 x image not found, such as row 2, '2.jpg': image not found: nothing like it",
        "1 x repeated, such as 'x.jpg': repeated: row 2 says the same and is kept",
    ]
    assert count_kinds([]) == []


def test_exactly_the_allowed_share_passes_and_one_more_does_not(tmp_path: Path) -> None:
    refuse_too_many([*LOST, EXTRA], 3, 0.5, tmp_path, tmp_path)
    with pytest.raises(Refusal, match=r"3 of 5 samples are rejected, prepare\.max_rejected_share allows 50%"):
        refuse_too_many([*LOST, EXTRA], 2, 0.5, tmp_path, tmp_path)


def test_nothing_to_prepare_is_an_error_even_where_every_share_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nothing to prepare"):
        refuse_too_many([EXTRA], 0, 1.0, tmp_path, tmp_path)


def test_where_all_pictures_wait_the_error_says_so_and_where_they_are_listed(tmp_path: Path) -> None:
    waiting = [Waiting("a.jpg", "", "picture: no row names it")]
    with pytest.raises(Refusal, match=r"nothing to prepare; 1 wait for their transcription \(.*waiting\.csv\)"):
        refuse_too_many([], 0, 1.0, tmp_path, tmp_path / "rejected.csv", waiting)


def test_what_waits_is_listed_by_page_and_counted_in_one_line(tmp_path: Path) -> None:
    waiting = [
        Waiting("c.jpg", "", "picture: no PAGE XML names it"),
        Waiting("b.jpg#l10", "b.xml#l10", "line: its TextLine holds no text"),
        Waiting("b.jpg#l9", "b.xml#l9", "line: its TextLine holds no text"),
    ]
    write_waiting(tmp_path / "waiting.csv", waiting)
    assert (tmp_path / "waiting.csv").read_text(encoding="utf-8") == (
        "file,row,what\n"
        "b.jpg#l9,b.xml#l9,line: its TextLine holds no text\n"
        "b.jpg#l10,b.xml#l10,line: its TextLine holds no text\n"
        "c.jpg,,picture: no PAGE XML names it\n"
    )
    assert count_waiting(waiting, Path("metrics/waiting.csv")) == (
        "2 lines and 1 picture without a transcription (metrics/waiting.csv); they wait, nothing is wrong with them"
    )


def test_the_list_grows_with_the_rows_and_not_with_their_square(tmp_path: Path) -> None:
    rows = 10_000
    (tmp_path / "a.jpg").write_bytes(b"picture")
    table = "filename,text\n" + "".join(f"a.jpg,{number}\n" for number in range(rows))
    (tmp_path / "annotations.csv").write_text(table, encoding="utf-8")
    rejections = read_ground_truth(tmp_path, "utf-8").rejections
    assert len(rejections) == rows
    assert rejections[-1].reason == (
        "named twice with different texts: rows 2, 3, 4, 5, 6 and 9995 more; keep the right one"
    )
    write_rejections(tmp_path / "rejected.csv", rejections)
    assert (tmp_path / "rejected.csv").stat().st_size < 150 * rows


def test_numbers_of_any_length_are_sorted(tmp_path: Path) -> None:
    rows = ["a.xml#" + "9" * 5000, "a.xml#" + "1" * 5001, "a.xml#007", "a.xml#8"]
    write_rejections(tmp_path / "rejected.csv", [Rejection("x", row, "because") for row in rows])
    written = (tmp_path / "rejected.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",")[1] for line in written] == [rows[2], rows[3], rows[0], rows[1]]
