from __future__ import annotations

from pathlib import Path

import pytest

from ownhand.dataset.rejections import count_kinds, refuse_too_many, write_rejections
from ownhand.errors import Refusal
from ownhand.ground_truth import Rejection

LOST = [Rejection(f"{number}.jpg", number, "image not found: nothing like it") for number in range(2, 5)]
EXTRA = Rejection("x.jpg", None, "no transcription: no row names it", counted=False)


def test_rejections_are_listed_in_the_order_a_person_reads_rows(tmp_path: Path) -> None:
    rows = [10, 9, None, "b.xml#l10", "b.xml#l9", "a.xml#l11"]
    write_rejections(tmp_path / "rejected.csv", [Rejection("x", row, "because") for row in rows])
    written = (tmp_path / "rejected.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert [line.split(",")[1] for line in written] == ["9", "10", "a.xml#l11", "b.xml#l9", "b.xml#l10", ""]


def test_kinds_are_counted_with_an_example_the_most_frequent_first() -> None:
    assert count_kinds([EXTRA, *LOST]) == [
        "3 x image not found, such as row 2, '2.jpg': image not found: nothing like it",
        "1 x no transcription, such as 'x.jpg': no transcription: no row names it",
    ]
    assert count_kinds([]) == []


def test_exactly_the_allowed_share_passes_and_one_more_does_not(tmp_path: Path) -> None:
    refuse_too_many([*LOST, EXTRA], 3, 0.5, tmp_path, tmp_path)
    with pytest.raises(Refusal, match=r"3 of 5 samples are rejected, prepare\.max_rejected_share allows 50%"):
        refuse_too_many([*LOST, EXTRA], 2, 0.5, tmp_path, tmp_path)


def test_nothing_to_prepare_is_an_error_even_where_every_share_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nothing to prepare"):
        refuse_too_many([EXTRA], 0, 1.0, tmp_path, tmp_path)
