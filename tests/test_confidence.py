"""Confidence: what a guide that is perfect, absent or wrong must look like."""

from __future__ import annotations

from pathlib import Path

import pytest
from validation_set import read_predictions, read_validation_lines, write_predictions, write_validation_set

from ownhand.evaluation.confidence import calibrate, rank_correlation, review, summarise_confidence
from ownhand.evaluation.readings import ScoredLine


def lines_with(root: Path, errors_and_confidences: list[tuple[int, float]]) -> list[ScoredLine]:
    """Lines of ten characters with so many of them wrong, and the adapter's confidence."""
    rows = [("p1", "абвгдежзик", "", "X" * errors + "абвгдежзик"[errors:]) for errors, _ in errors_and_confidences]
    write_validation_set(root, rows)
    predictions = read_predictions(root, "adapter")
    for prediction, (_, confidence) in zip(predictions, errors_and_confidences, strict=True):
        prediction["confidence"] = confidence
    write_predictions(root, "adapter", predictions)
    return read_validation_lines(root)


def test_a_perfect_guide_finds_all_errors_with_the_smallest_budget(tmp_path: Path) -> None:
    lines = lines_with(tmp_path, [(10, 0.1), (10, 0.2), *[(0, 0.9)] * 18])
    summary = summarise_confidence(lines)
    assert summary["cer_after_checking_10_percent"] == 0
    assert summary["rank_correlation"] is not None and summary["rank_correlation"] < -0.95
    row = next(row for row in review(lines) if row["share"] == 0.05)
    assert (row["lines"], row["cer"], row["found"], row["cer_best_order"]) == (1, 0.05, 0.5, 0.05)


def test_a_wrong_guide_is_worse_than_any_order(tmp_path: Path) -> None:
    lines = lines_with(tmp_path, [(10, 0.9), (10, 0.9), *[(0, 0.2)] * 18])
    assert all(row["cer"] > row["cer_any_order"] for row in review(lines) if 0 < row["share"] < 0.9)
    assert rank_correlation([0.9, 0.9, 0.2], [1, 1, 0]) == pytest.approx(1)


def test_nothing_checked_leaves_the_cer_and_all_checked_leaves_none(tmp_path: Path) -> None:
    rows = review(lines_with(tmp_path, [(n % 4, n / 13) for n in range(13)]))
    errors = sum(n % 4 for n in range(13))
    assert rows[0]["cer"] == rows[0]["cer_any_order"] == rows[0]["cer_best_order"] == errors / 130
    assert rows[-1]["cer"] == rows[-1]["cer_any_order"] == rows[-1]["cer_best_order"] == 0
    assert all(row["cer_best_order"] <= row["cer"] for row in rows)


def test_groups_hold_every_line_once_in_order_of_confidence(tmp_path: Path) -> None:
    rows = calibrate(lines_with(tmp_path, [(n % 3, (n * 7 % 23) / 23) for n in range(23)]))
    assert len(rows) == 4 and sum(row["lines"] for row in rows) == 23
    assert all(row["confidence_from"] <= row["confidence"] <= row["confidence_to"] for row in rows)
    ends = [end for row in rows for end in (row["confidence_from"], row["confidence_to"])]
    assert ends == sorted(ends)


def test_a_reader_that_is_right_as_often_as_it_says_is_calibrated(tmp_path: Path) -> None:
    honest = summarise_confidence(lines_with(tmp_path / "a", [(2, 0.8)] * 10))
    proud = summarise_confidence(lines_with(tmp_path / "b", [(7, 1.0)] * 10))
    assert honest["calibration_error"] == pytest.approx(0)
    assert proud["calibration_error"] == pytest.approx(0.7)
    assert proud["rank_correlation"] is None


def test_few_lines_say_nothing(tmp_path: Path) -> None:
    lines = lines_with(tmp_path, [(1, 0.5)] * 9)
    assert calibrate(lines) == review(lines) == []
    assert set(summarise_confidence(lines).values()) == {None}


def test_equal_values_share_their_rank() -> None:
    assert rank_correlation([1, 2, 2, 3], [3, 2, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert rank_correlation([1, 1], [1, 2]) is None
