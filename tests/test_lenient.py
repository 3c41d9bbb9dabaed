"""Lenient comparison: each rule forgives its own differences and no others."""

from __future__ import annotations

import pytest

from ownhand.evaluation.lenient import RULES, forgive
from ownhand.evaluation.metrics import count_lenient_errors

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
