"""The verdict: what is said must follow from the numbers, and no more."""

from __future__ import annotations

from typing import Any

import pytest

from ownhand.report.verdict import (
    count,
    describe_confidence,
    describe_confusions,
    describe_cost,
    describe_loss,
    describe_next,
    describe_reading,
    describe_trained_texts,
    interval,
    judge,
    percent,
)


def summary(
    base: float, adapter: float, ends: tuple[float, float] | None, p_value: float, pages: int
) -> dict[str, Any]:
    low, high = ends or (None, None)
    rates = {"cer_low": None if ends is None else 0.09, "cer_high": None if ends is None else 0.161}
    return {
        "base": {"cer": base, "cer_unseen_texts": base + 0.05, **rates},
        "adapter": {"cer": adapter, "cer_unseen_texts": adapter + 0.05, **rates},
        "difference": {
            "cer": base - adapter,
            "cer_low": low,
            "cer_high": high,
            "relative": (base - adapter) / base if base else None,
            "p_value": p_value if ends else None,
        },
        "n_lines": 4 * pages,
        "n_lines_trained_texts": 0,
        "n_characters": 100 * pages,
        "n_pages": pages,
    }


def test_the_headline_gives_both_rates_and_the_interval_in_words() -> None:
    verdict = judge(summary(0.35, 0.123, (0.15, 0.3), 0.001, 30), 0.95, 5)
    assert verdict.headline.replace("\u00a0", " ") == (
        "The adapter reads 12.3 % of the characters wrong (95 % interval 9.0–16.1 %); the base model alone 35.0 %."
    )


@pytest.mark.parametrize(
    ("ends", "p_value", "state", "answer"),
    [
        ((0.15, 0.3), 0.001, "improved", "Yes"),
        ((0.01, 0.3), 0.2, "open", "Not shown"),
        ((-0.01, 0.3), 0.03, "open", "Not shown"),
        ((-0.3, -0.1), 0.001, "worse", "No"),
    ],
)
def test_an_answer_needs_interval_and_p_value_to_agree(
    ends: tuple[float, float], p_value: float, state: str, answer: str
) -> None:
    base, adapter = (0.1, 0.3) if state == "worse" else (0.3, 0.1)
    verdict = judge(summary(base, adapter, ends, p_value, 30), 0.95, 5)
    assert verdict.state == state
    assert verdict.answer.startswith(answer)
    assert ("clear of zero" in verdict.sureness) == (ends[0] > 0 or ends[1] < 0)


def test_a_perfect_base_model_can_only_get_worse() -> None:
    assert judge(summary(0.0, 0.2, (-0.3, -0.1), 0.001, 30), 0.95, 5).answer == "No, it has become worse."


def test_few_pages_are_called_few_and_many_are_not() -> None:
    few, many = (judge(summary(0.3, 0.1, (0.1, 0.3), 0.01, pages), 0.95, 5) for pages in (8, 20))
    assert "8\u00a0validation pages are few" in few.limits[0]
    assert not any("few" in limit for limit in many.limits)


def test_one_validation_line_gets_no_interval_and_says_what_it_cannot_tell() -> None:
    one = {**summary(0.5, 0.2, None, 1.0, 1), "n_lines": 1, "n_characters": 40}
    verdict = judge(one, 0.95, 5)
    text = " ".join((verdict.headline, verdict.answer, verdict.sureness, *verdict.limits)).replace("\u00a0", " ")
    assert verdict.state == "too few" and "interval 9" not in text
    assert "Too few to say: 1 validation line from 1 page." in text
    assert "on the one validation line" in text
    assert "cannot tell how well the next page will be read" in text
    assert "8 letters moves the rate by 20.0 percentage points" in text
    assert "at least 5 pages" in text


def test_more_errors_than_characters_are_not_called_a_share_of_the_characters() -> None:
    headline = judge(summary(2.5, 1.2, (0.4, 2.0), 0.01, 30), 0.95, 5).headline.replace("\u00a0", " ")
    assert "makes more errors than there are characters: 120.0 %" in headline
    assert "of the characters wrong" not in headline


READS = {"n_lines": 24, "cer": 0.3, "cer_swapped_pictures": 0.9, "cer_blank_pictures": 0.95}


def test_whether_it_reads_is_said_with_all_three_rates() -> None:
    sentence = describe_reading(READS, recites=False).replace("\u00a0", " ")
    assert sentence.startswith("It looks at the pictures")
    assert all(figure in sentence for figure in ("30.0 %", "90.0 %", "95.0 %", "24 lines"))
    assert describe_reading(READS, recites=True).startswith("It may recite")
    assert "other lines" not in describe_reading({**READS, "cer_swapped_pictures": None}, recites=False)


def test_the_loss_is_told_where_it_can_be_compared() -> None:
    train = {"val_loss": 0.4, "val_loss_swapped_pictures": 5.0, "val_lines": 30}
    assert "0.40 with own pictures, 5.00" in str(describe_loss(train))
    assert describe_loss({**train, "val_lines": 1}) is None
    assert describe_loss({"val_loss": 0.4}) is None


def test_confusions_are_named_in_words() -> None:
    sentence = describe_confusions([("о", "а", 4), (" ", "", 2), ("", "ъ", 1), ("б", "в", 1)]).replace("\u00a0", " ")
    assert sentence == (
        "Most often: “о” read as “а” (4 times), a space not read (2 times), “ъ” read where nothing is written (1 time)."
        " That is 7 of 8 errors."
    )
    assert describe_confusions([]).startswith("Nothing")


def test_what_to_annotate_next_names_characters_or_says_that_none_stands_out() -> None:
    assert describe_next(["ъ", " "]).startswith("Lines with “ъ”, a space:")
    assert describe_next([]).startswith("More pages")


@pytest.mark.parametrize(
    ("correlation", "answer"), [(-0.9, "Yes"), (-0.5, "Yes"), (-0.3, "Somewhat"), (-0.1, "No"), (0.7, "No")]
)
def test_confidence_is_called_a_guide_only_where_it_is_one(correlation: float, answer: str) -> None:
    assert str(describe_confidence(correlation)).startswith(answer)
    assert describe_confidence(None) is None


def test_numbers_are_written_for_people() -> None:
    assert percent(0.1234) == "12.3\u00a0%"
    assert percent(None) == "–"
    assert interval(-0.012, 0.034) == "−1.2 to 3.4\u00a0%"
    assert (count(1, "line"), count(1200, "line")) == ("1\u00a0line", "1,200\u00a0lines")


@pytest.mark.parametrize(
    "exact, lost, words",
    [
        (0.0, 0.0, "none of 48 lines are without any error."),
        (1 / 48, 0.05, "1 of 48 lines is without any error. In print it makes more errors than before: 15.0 % of"),
        (0.5, -0.05, "24 of 48 lines are without any error. In print it makes fewer errors than before: 5.0 % of"),
        (0.5, None, "24 of 48 lines are without any error."),
    ],
)
def test_the_less_rosy_figures_are_told(exact: float, lost: float | None, words: str) -> None:
    told = describe_cost(
        {
            "n_lines": 48,
            "base": {"wer": 0.9},
            "adapter": {"wer": 0.6, "exact_match": exact},
            "retention": {"base_cer": 0.1, "adapter_cer": None if lost is None else 0.1 + lost, "lost": lost},
        }
    ).replace("\u00a0", " ")
    assert told.startswith("Counted in words, 60.0 % are wrong (base model 90.0 %); ")
    assert words in told and ("In print" in told) == bool(lost)


@pytest.mark.parametrize(("ends", "pages"), [((0.15, 0.3), 30), (None, 2)])
def test_texts_that_were_trained_on_are_told_first_among_the_limits_with_the_rates_without_them(
    ends: tuple[float, float] | None, pages: int
) -> None:
    numbers = summary(0.35, 0.123, ends, 0.001, pages)
    assert describe_trained_texts(numbers) is None
    assert not any("trained on" in limit for limit in judge(numbers, 0.95, 5).limits)
    numbers["n_lines_trained_texts"] = 5
    assert judge(numbers, 0.95, 5).limits[0].replace("\u00a0", " ") == (
        f"5 lines of {4 * pages} have a text that was trained on, too, in another picture (a greeting, a date, a page "
        "number). Without them the adapter reads 17.3 % of the characters wrong instead of 12.3 %, the base model "
        "alone 40.0 % instead of 35.0 %."
    )
    numbers["n_lines_trained_texts"] = 4 * pages
    assert "nothing here tells reading from reciting" in judge(numbers, 0.95, 5).limits[0]
