"""Error rates: arithmetic that anyone can redo."""

from __future__ import annotations

import random
import unicodedata

import jiwer
import pytest

from ownhand.evaluation.metrics import (
    RULES,
    align,
    count_character_errors,
    count_code_point_errors,
    count_confusions,
    count_lenient_errors,
    count_word_errors,
    count_wrong_characters,
    forgive,
    mark_differences,
    micro_average,
    score,
)
from ownhand.text import comparable


def test_one_wrong_character_in_four_is_a_quarter() -> None:
    assert count_character_errors("Müll", "Mull") == (1, 4)


def test_a_letter_with_combining_marks_is_one_character_but_several_code_points() -> None:
    stressed = "за\u0301мок"  # no code point of its own: NFC keeps two
    assert count_character_errors(stressed, "замок") == (1, 5)
    assert count_code_point_errors(stressed, "замок") == (1, 6)
    assert count_character_errors("👩‍👩‍👧 ё", "ё") == (2, 3)


def test_published_examples_of_the_field_come_out_the_same() -> None:
    """What the tests of dinglehopper and jiwer state, as arithmetic."""
    assert count_character_errors("Foo", "Bar") == (3, 3)
    assert count_character_errors("Foo", "") == (3, 3)
    assert count_character_errors("Schlyñ", "Schlym\u0303") == (1, 6)
    assert count_code_point_errors("Schlyñ", "Schlym\u0303") == (2, 6)
    assert count_word_errors("hello world", "hello duck") == (1, 2)


def test_decomposed_and_composed_texts_are_equal() -> None:
    assert count_character_errors("Ёжий", unicodedata.normalize("NFD", "Ёжий")) == (0, 4)


def test_line_breaks_and_runs_of_spaces_count_as_one_space() -> None:
    assert comparable("  one\r\n two\u00a0\tthree\n") == "one two three"
    assert count_character_errors("one two", "one\n\n two ") == (0, 7)


def test_case_and_punctuation_count() -> None:
    assert count_character_errors("Да, нет.", "да нет") == (3, 8)


def test_a_rate_is_not_clipped_and_a_blank_prediction_misses_everything() -> None:
    assert micro_average([count_character_errors("да", "да да да да")]) == 4.5
    assert score("да нет", " \n").deletions == 6
    assert score("да нет", " \n").blank and not score("да нет", "д").blank


def test_an_empty_transcription_counts_its_insertions_and_alone_gives_no_rate() -> None:
    assert count_character_errors("", "abc") == (3, 0)
    assert count_word_errors("", "") == (0, 0)
    assert micro_average([(3, 0), (1, 4)]) == 1.0
    with pytest.raises(ValueError, match="at least one character"):
        micro_average([(3, 0)])


def test_the_micro_average_weighs_by_length() -> None:
    assert micro_average([(1, 1), (0, 99)]) == 0.01


def test_words_are_what_whitespace_separates() -> None:
    assert count_word_errors("мама мыла раму.", "мама мыла\nраму") == (1, 3)


def test_code_point_and_word_rates_equal_jiwers() -> None:
    rng = random.Random(5)
    pairs = []
    for _ in range(200):
        truth, prediction = (
            "".join(rng.choice("абвё й.5Z \u0301\u0308") for _ in range(rng.randint(low, 40))) for low in (1, 0)
        )
        pairs.append((comparable("я" + truth), comparable(prediction)))
    truths, predictions = [truth for truth, _ in pairs], [prediction for _, prediction in pairs]
    code_points = micro_average(count_code_point_errors(*pair) for pair in pairs)
    assert code_points == pytest.approx(jiwer.cer(truths, predictions), abs=1e-12)
    assert any("\u0301" in truth for truth in truths)
    assert micro_average(count_word_errors(*pair) for pair in pairs) == pytest.approx(
        jiwer.wer(truths, predictions), abs=1e-12
    )


def test_an_alignment_gives_both_texts_back_and_costs_the_distance() -> None:
    rng = random.Random(6)
    for _ in range(200):
        truth, prediction = ("".join(rng.choice("абв г") for _ in range(rng.randint(0, 25))) for _ in range(2))
        edits = align(truth, prediction)
        assert "".join("".join(edit.truth) for edit in edits) == comparable(truth)
        assert "".join("".join(edit.prediction) for edit in edits) == comparable(prediction)
        counted = score(truth, prediction)
        assert counted.character_errors == count_character_errors(truth, prediction)[0]
        assert counted.characters == count_character_errors(truth, prediction)[1]


def test_differences_give_the_prediction_back_and_name_what_is_missing() -> None:
    stretches = mark_differences("номер дома 14.", "немер  дома14.ю")
    assert "".join(text for kind, text in stretches if kind != "deletion") == comparable("немер  дома14.ю")
    assert [stretch for stretch in stretches if stretch[0] != "equal"] == [
        ("substitution", "е"),
        ("deletion", " "),
        ("insertion", "ю"),
    ]


def test_edits_are_counted_by_kind() -> None:
    counted = score("абвгдежз", "аXвдежзЯЯ")
    assert (counted.substitutions, counted.deletions, counted.insertions) == (1, 1, 2)
    assert counted.cer == 4 / 8


def test_exact_means_equal_after_normalisation() -> None:
    assert score("й  да", unicodedata.normalize("NFD", "й да")).exact
    assert not score("й да", "Й да").exact


def test_confusions_name_missed_and_added_characters_and_stand_most_frequent_first() -> None:
    rows = count_confusions([("шаша", "щаща"), ("да.", "да"), ("да", "дая"), ("я", "а")])
    assert rows == [("ш", "щ", 2), ("", "я", 1), (".", "", 1), ("я", "а", 1)]


def test_a_wrong_character_is_counted_with_its_occurrences() -> None:
    rows = count_wrong_characters([("шаша", "щаща"), ("а.", "а")])
    assert rows == [("ш", 2, 2), (".", 1, 1), ("а", 0, 3)]


def test_a_page_of_many_lines_is_scored_like_a_line() -> None:
    page = "\n".join(["Миновало почти десятилетие (deep neural network, DNN)"] * 12)
    counted = score(page, page.replace("\n", " ").replace("почти", "пошти"))
    assert (counted.character_errors, counted.characters) == (12, 12 * 53 + 11)
    assert counted.word_errors == 12


PAIRS = {
    "case": ("Мама", "мАМА"),
    "ё": ("ЁЖ, ёж", "ЕЖ, еж"),
    "quotes": ("«да» „нет“", "\"да\" 'нет'"),
    "dashes": ("да — нет", "да - нет"),
    "punctuation": ("Да, нет…", "Да нет"),
}


@pytest.mark.parametrize("name", [rule.name for rule in RULES])
def test_a_rule_alone_forgives_its_pair_and_none_of_the_others(name: str) -> None:
    alone = [rule for rule in RULES if rule.name == name]
    forgiven = {other for other, pair in PAIRS.items() if count_lenient_errors(*pair, alone)[0] == 0}
    assert name in forgiven
    assert forgiven <= {name, *({"quotes", "dashes"} if name == "punctuation" else set())}


def test_letters_digits_and_symbols_are_never_forgiven() -> None:
    assert count_lenient_errors("кот № 5 + 1", "кит № 6 - 1") == (4, 11)


def test_whitespace_around_dropped_punctuation_is_collapsed_again() -> None:
    assert forgive("да — нет , и !") == "да нет и"


def test_a_line_of_punctuation_has_no_lenient_characters_but_what_was_read_counts() -> None:
    assert count_lenient_errors("...", "да") == (2, 0)
