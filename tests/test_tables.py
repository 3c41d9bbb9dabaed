"""Tables: every breakdown adds up to the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from validation_set import ROWS, read_validation_lines, write_validation_set

from ownhand.evaluation.readings import ScoredLine
from ownhand.evaluation.tables import (
    by_hand,
    by_length,
    by_leniency,
    by_page,
    by_script,
    confusion_cells,
    length_class,
    script_of,
)

MIXED = (*ROWS, ("p4", "Mac и «Ёлка» 42", "Мас u Елка 4", "Mac и Ёлка 42!"), ("p4", "...", "", "э"))


@pytest.fixture
def lines(tmp_path: Path) -> list[ScoredLine]:
    return read_validation_lines(write_validation_set(tmp_path, MIXED))


def errors_of(lines: list[ScoredLine], reader: str) -> int:
    return sum(line.scores[reader].character_errors for line in lines)


def test_scripts_add_up_to_the_errors_and_characters_of_the_cer(lines: list[ScoredLine]) -> None:
    rows = by_script(lines)
    assert sum(row["characters"] for row in rows) == sum(line.characters for line in lines)
    for reader in ("base", "adapter"):
        assert sum(row[f"{reader}_errors"] for row in rows) == errors_of(lines, reader)


def test_a_script_that_is_read_but_not_written_has_errors_and_no_rate(tmp_path: Path) -> None:
    lines = read_validation_lines(write_validation_set(tmp_path, [("p1", "да", "даx", "да")]))
    latin = next(row for row in by_script(lines) if row["script"] == "Latin")
    assert (latin["characters"], latin["base_errors"], latin["base_cer"], latin["adapter_errors"]) == (0, 1, None, 0)


@pytest.mark.parametrize(
    ("cluster", "script"),
    [
        *(("ё", "Cyrillic"), ("е\u0301", "Cyrillic"), ("é", "Latin"), ("7", "digits")),
        *(("№", "punctuation"), ("—", "punctuation"), (" ", "space"), ("字", "other")),
    ],
)
def test_a_cluster_belongs_to_the_script_of_its_letter(cluster: str, script: str) -> None:
    assert script_of(cluster) == script


def test_pages_hands_and_lengths_add_up_to_all_lines_and_characters(lines: list[ScoredLine]) -> None:
    for rows in (by_page(lines), by_hand(lines), by_length(lines)):
        assert sum(row["lines"] for row in rows) == len(lines)
        assert sum(row["characters"] for row in rows) == sum(line.characters for line in lines)
        for reader in ("base", "adapter"):
            errors = sum(row[f"{reader}_cer"] * row["characters"] for row in rows)
            assert errors == pytest.approx(errors_of(lines, reader))


def test_the_worst_page_of_the_adapter_comes_first(lines: list[ScoredLine]) -> None:
    rates = [row["adapter_cer"] for row in by_page(lines)]
    assert rates == sorted(rates, reverse=True) and rates[0] > 0


def test_length_classes_follow_each_other_without_a_gap_and_hold_their_lengths() -> None:
    ends = sorted({length_class(characters)[1] for characters in range(1, 400)})
    assert ends == [5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480]
    for characters in range(1, 400):
        low, high = length_class(characters)
        assert low <= characters <= high
        assert low == 1 or length_class(low - 1)[1] == low - 1


def test_a_rule_never_adds_errors_to_texts_that_differ_by_it_alone(tmp_path: Path) -> None:
    rows = [("p1", "«Ёлка» — да!", '"елка" - да', "«Ёлка» — да!")]
    table = by_leniency(read_validation_lines(write_validation_set(tmp_path, rows)))
    assert [row["rule"] for row in table] == ["none", "case", "ё", "quotes", "dashes", "punctuation"]
    # Ё is two steps away from е: its case and its dots; the last rule takes the exclamation mark away.
    assert [round(12 * row["base_cer"]) for row in table[:-1]] == [5, 5, 4, 2, 1]
    assert table[-1]["base_cer"] == 0 == table[0]["adapter_cer"]


def test_cells_are_the_single_errors_with_words_for_what_cannot_be_seen() -> None:
    cells = confusion_cells([("о", "а", 2), (" ", "", 1)])
    assert cells == [{"truth": "о", "prediction": "а"}] * 2 + [{"truth": "␣", "prediction": "∅"}]


def test_a_large_confusion_matrix_keeps_its_most_confused_characters() -> None:
    many = [(chr(0x430 + n), chr(0x430 + n + 1), 1) for n in range(0, 62, 2)]
    cells = confusion_cells([("x", "y", 9), *many])
    assert cells.count({"truth": "x", "prediction": "y"}) == 9
    assert len({cell[side] for cell in cells for side in cell}) <= 24
