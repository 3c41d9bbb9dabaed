"""Other readers: their files are checked, kept and compared on the same lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from validation_set import PARAMS, ROWS, write, write_validation_set

from ownhand.errors import Refusal
from ownhand.evaluation.others import compare, keep_predictions, other_files


def others_file(path: Path, readings: list[str]) -> Path:
    rows = [{"image_id": f"{number:05d}", "prediction": text} for number, text in enumerate(readings, start=2)]
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_reader_is_kept_and_compared_with_base_and_adapter(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    said = compare(root, others_file(tmp_path / "out.jsonl", [truth for _, truth, _, _ in ROWS]), "kraken", PARAMS)
    lines = said.splitlines()
    assert lines[0] == "CER on 4 validation line(s):"
    assert [line.split()[0] for line in lines[1:4]] == ["base", "adapter", "kraken"]
    assert lines[3].split()[1] == "0.0%" != lines[2].split()[1]
    assert lines[4].startswith("kept as data/others/kraken.jsonl")
    assert list(other_files(root)) == ["kraken"]


def test_before_training_it_is_kept_for_later(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    (root / "data/predictions/base.jsonl").unlink()
    said = compare(root, others_file(tmp_path / "out.jsonl", ["", "", "", ""]), "kraken", PARAMS)
    assert "once base model and adapter have read" in said and list(other_files(root)) == ["kraken"]


def test_another_readers_file_that_lacks_a_line_is_refused_and_not_kept(tmp_path: Path) -> None:
    root = write_validation_set(tmp_path)
    with pytest.raises(Refusal, match=r"no prediction for: 00005"):
        keep_predictions(root, others_file(tmp_path / "out.jsonl", ["", "", ""]), "tesseract")
    assert not (root / "data/others").exists()


@pytest.mark.parametrize("name", ["base", "adapter", "a b", "тессеракт", "../x", ""])
def test_a_name_that_cannot_be_a_column_is_refused(tmp_path: Path, name: str) -> None:
    root = write_validation_set(tmp_path)
    with pytest.raises(Refusal, match="cannot be the name of a reader"):
        keep_predictions(root, others_file(tmp_path / "out.jsonl", ["", "", "", ""]), name)
    others_file(root / "data/others/base.jsonl", ["", "", "", ""])
    with pytest.raises(Refusal, match=r"^data/others/base\.jsonl: 'base' cannot be"):
        other_files(root)
