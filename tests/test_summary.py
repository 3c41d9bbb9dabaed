"""The summary: every rate with its interval, and what the p-value and the difference stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from validation_set import PARAMS, read_validation_lines, write_validation_set

from ownhand.evaluation.summary import RATES, UNSEEN, Rate, compare_rates, summarise

ROWS = [(f"p{n}", "мама мыла раму", "мома мыла рому"[n % 3 :], "мама мыла раму"[n % 2 :]) for n in range(12)]


def rates_of(root: Path, rows: list[tuple[str, str, str, str]], min_pages: int = 3) -> dict[tuple[str, str], Rate]:
    lines = read_validation_lines(write_validation_set(root, rows))
    rates = compare_rates(lines, PARAMS.model_copy(update={"min_pages": min_pages}))
    return {(rate.reader, rate.name): rate for rate in rates}


def test_every_rate_of_both_readers_has_an_interval_that_holds_it(tmp_path: Path) -> None:
    rates = rates_of(tmp_path, ROWS)
    assert set(rates) == {(reader, name) for reader in ("base", "adapter") for name in (*RATES, UNSEEN, "runaway_rate")}
    for rate in rates.values():
        assert rate.value is not None and rate.interval is not None
        assert rate.interval.low <= rate.value <= rate.interval.high


def test_a_difference_is_the_reader_minus_the_adapter_with_interval_and_p_value(tmp_path: Path) -> None:
    rates = rates_of(tmp_path, ROWS)
    for name in RATES:
        base, adapter = rates["base", name], rates["adapter", name]
        assert adapter.difference is adapter.p_value is None
        assert base.difference == pytest.approx((base.value or 0) - (adapter.value or 0))
        assert base.difference is not None and base.difference_interval is not None and base.p_value is not None
        assert base.difference_interval.low <= base.difference <= base.difference_interval.high
    assert rates["base", "cer"].p_value == pytest.approx(1 / 301)  # no swap of twelve pages is as extreme
    assert rates["base", "blank_rate"].p_value == 1


def test_below_min_pages_no_rate_has_an_interval_or_p_value(tmp_path: Path) -> None:
    for rate in rates_of(tmp_path, ROWS, min_pages=13).values():
        assert (rate.interval, rate.difference_interval, rate.p_value) == (None, None, None)
        assert rate.value is not None


def test_a_page_of_punctuation_takes_the_interval_of_the_lenient_rate_only(tmp_path: Path) -> None:
    rates = rates_of(tmp_path, [*ROWS, ("p99", "...", "..", "...")])
    assert rates["base", "cer_lenient"].interval is None and rates["base", "cer_lenient"].value is not None
    assert rates["base", "cer"].interval is not None
    alone = rates_of(tmp_path / "alone", [("p1", "...", "..", "...")])
    assert alone["base", "cer_lenient"].value is None


def test_the_lenient_rate_is_never_above_the_strict_one_here_and_stands_in_the_summary(tmp_path: Path) -> None:
    lines = read_validation_lines(write_validation_set(tmp_path, [("p1", "Ёж, да!", "еж да", "Ёж, да!")]))
    summary = summarise(lines, compare_rates(lines, PARAMS))
    assert summary["base"]["cer_lenient"] == 0 < summary["base"]["cer"]


SEEN = ("p1", "Train  line!", "", "train line")  # the text of the training sample, written again


def summary_of(root: Path, rows: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    lines = read_validation_lines(write_validation_set(root, rows))
    return summarise(lines, compare_rates(lines, PARAMS))


def test_lines_whose_text_was_trained_on_are_counted_apart_and_in_the_whole(tmp_path: Path) -> None:
    summary, without = summary_of(tmp_path / "with", [*ROWS, SEEN]), summary_of(tmp_path / "without", ROWS)
    assert (summary["n_lines"], summary["n_lines_trained_texts"]) == (13, 1)
    for reader in ("base", "adapter"):
        for end in ("", "_low", "_high"):
            assert summary[reader][f"cer_unseen_texts{end}"] == without[reader][f"cer{end}"]
        assert summary[reader]["cer"] != without[reader]["cer"]
    assert summary["base"]["cer_unseen_texts"] < summary["base"]["cer"]


def test_where_no_text_was_trained_on_both_rates_are_the_same(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, ROWS)
    assert summary["n_lines_trained_texts"] == 0
    for reader in ("base", "adapter"):
        for end in ("", "_low", "_high"):
            assert summary[reader][f"cer_unseen_texts{end}"] == summary[reader][f"cer{end}"]


def test_where_every_text_was_trained_on_there_is_no_rate_of_unseen_ones(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [SEEN, ("p2", "train line", "rain", "train line")])
    assert summary["n_lines_trained_texts"] == 2
    for reader in ("base", "adapter"):
        assert summary[reader]["cer_unseen_texts"] is summary[reader]["cer_unseen_texts_low"] is None
        assert summary[reader]["cer"] is not None
