"""Examples: the spot is where the confusion is, in both texts."""

from __future__ import annotations

from pathlib import Path

from validation_set import read_validation_lines, write_validation_set

from ownhand.evaluation.examples import CONTEXT, Example, Spot, find_examples
from ownhand.evaluation.metrics import count_confusions
from ownhand.evaluation.readings import ScoredLine


def examples_of(root: Path, rows: list[tuple[str, str]]) -> tuple[list[ScoredLine], list[Example]]:
    lines = read_validation_lines(write_validation_set(root, [("p1", truth, "", read) for truth, read in rows]))
    return lines, find_examples(lines, count_confusions(rows))


def test_every_confusion_has_an_example_that_shows_it(tmp_path: Path) -> None:
    rows = [("шаша и да.", "щаша идая"), ("ещё", "еще!"), ("шум", "щум")]
    _, examples = examples_of(tmp_path, rows)
    assert [(e.written, e.read, e.times) for e in examples] == count_confusions(rows)
    for example in examples:
        assert (example.truth.at, example.prediction.at) == (example.written, example.read)
        assert example.line.sample.text.startswith(example.truth.before + example.truth.at)


def test_the_line_that_is_read_best_is_shown_and_lines_are_not_repeated_where_there_are_others(tmp_path: Path) -> None:
    lines, examples = examples_of(tmp_path, [("шум дом", "щум лом"), ("шум и гам весь день", "щум и гам весь день")])
    assert [(e.written, e.line) for e in examples] == [("ш", lines[1]), ("д", lines[0])]


def test_a_missed_character_is_a_gap_in_the_reading_and_an_added_one_in_the_transcription(tmp_path: Path) -> None:
    _, examples = examples_of(tmp_path, [("мама мыла", "мамамылаа")])
    by_read = {example.read: example for example in examples}
    assert by_read[""].prediction == Spot("мама", "", "мылаа", False, False)
    assert by_read["а"].truth.at == ""


def test_a_long_text_is_cut_around_the_spot(tmp_path: Path) -> None:
    text = "а" * 40 + "б" + "в" * 5
    _, examples = examples_of(tmp_path, [(text, text.replace("б", "г"))])
    assert examples[0].truth == Spot("а" * CONTEXT, "б", "в" * 5, True, False)
