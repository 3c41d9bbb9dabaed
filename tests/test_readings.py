"""Prediction files: exactly one prediction for each validation line, or a refusal that lists the image ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import validation_set
from validation_set import read_predictions, write_predictions, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.readings import READERS, ScoredLine, score_lines
from ownhand.samples import read_metadata


def read(root: Path) -> list[ScoredLine]:
    files = {reader: root / f"data/predictions/{reader}.jsonl" for reader in READERS}
    return score_lines(read_metadata(root / "data/processed"), files)


def test_validation_lines_come_with_both_readings_and_training_lines_do_not(tmp_path: Path) -> None:
    lines = read(write_validation_set(tmp_path))
    assert [line.sample.image_id for line in lines] == ["00002", "00003", "00004", "00005"]
    assert lines[0].scores["base"].character_errors == 2 and lines[0].scores["adapter"].exact
    assert lines[3].base.runaway and not lines[3].adapter.runaway


def test_missing_unknown_and_repeated_predictions_are_listed_for_both_files_at_once(tmp_path: Path) -> None:
    write_validation_set(tmp_path)
    base, adapter = (read_predictions(tmp_path, reader) for reader in READERS)
    write_predictions(tmp_path, "base", [*base[1:], base[1]])
    write_predictions(tmp_path, "adapter", [*adapter, {**adapter[0], "image_id": "00777"}])
    with pytest.raises(Refusal) as refusal:
        read(tmp_path)
    message = str(refusal.value)
    assert "no prediction for: 00002" in message
    assert "more than one prediction for: 00003" in message
    assert "not in validation: 00777" in message
    assert message.count("remedy") == 2


def test_a_line_that_cannot_be_read_is_named_by_its_number(tmp_path: Path) -> None:
    write_validation_set(tmp_path)
    predictions = read_predictions(tmp_path, "base")
    predictions[1]["confidence"] = 1.5
    predictions[2]["runaway"] = "no"
    write_predictions(tmp_path, "base", predictions)
    with pytest.raises(Refusal, match=r"line 2: confidence: .*\n  line 3: runaway: "):
        read(tmp_path)
    validation_set.write(tmp_path / "data/predictions/base.jsonl", '{"image_id": "00002"')
    with pytest.raises(Refusal, match="line 1: Invalid JSON"):
        read(tmp_path)


def test_a_file_that_is_wrong_throughout_gives_a_short_message(tmp_path: Path) -> None:
    write_validation_set(tmp_path, [("p1", "a", "a", "a")] * 50)
    write_predictions(tmp_path, "base", [{"text": "a"}] * 50)
    with pytest.raises(Refusal, match="line 20: .*\n  and 30 more$"):
        read(tmp_path)


def test_a_missing_file_names_the_stage_that_writes_it(tmp_path: Path) -> None:
    write_validation_set(tmp_path)
    (tmp_path / "data/predictions/adapter.jsonl").unlink()
    with pytest.raises(Refusal, match=r"adapter\.jsonl is missing; run `dvc repro --force transcribe`"):
        read(tmp_path)


def test_an_unusual_line_separator_inside_a_prediction_does_not_split_it(tmp_path: Path) -> None:
    write_validation_set(tmp_path, [("p1", "a b", "a\u2028b", "a\u0085b")])
    assert all(score.exact for score in read(tmp_path)[0].scores.values())


def test_metadata_without_validation_samples_is_refused(tmp_path: Path) -> None:
    write_validation_set(tmp_path, [])
    with pytest.raises(Refusal, match="no validation sample"):
        read(tmp_path)


def test_equal_page_names_of_two_hands_are_two_pages(tmp_path: Path) -> None:
    line = read(write_validation_set(tmp_path))[0]
    names = {replace(line, sample=replace(line.sample, hand=hand)).page for hand in ("", "Анна", "Пётр")}
    assert len(names) == 3
