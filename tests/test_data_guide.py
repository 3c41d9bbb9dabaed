"""What DATA.md shows works as it says."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from demo.drawing import Hand, draw_line
from ownhand.ground_truth.matching import FORMATS, read_ground_truth
from ownhand.model.fit import SequenceLimit
from ownhand.params import read_params
from stages.prepare import prepare

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
GUIDE = (ROOT / "DATA.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"`data/raw/([^`]+)`:\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL))
PICTURES = ("letter 1.jpg", "letter 2.jpg", "note.jpg", "card.jpg", "page 1.jpg", "page 2.jpg")


def copy_example(name: str, raw: Path) -> None:
    raw.mkdir()
    (raw / name).write_text(EXAMPLES[name], encoding="utf-8", newline="\n")
    for number, picture in enumerate(PICTURES):
        draw_line(f"строка {number}", FONT, Hand(), np.random.default_rng(number), 40).save(raw / picture)


def test_the_example_makes_three_samples_for_training_and_one_for_validation(tmp_path: Path) -> None:
    copy_example("annotations.csv", tmp_path / "raw")
    params = read_params(ROOT / "params.yaml")
    model = params.model.model_copy(update={"name_or_path": str(ROOT / "models/base")})
    limit = SequenceLimit.of(params.model_copy(update={"model": model}))
    summary = prepare(tmp_path / "raw", tmp_path / "processed", tmp_path / "metrics", params.prepare, limit)
    assert (summary.rows, summary.samples) == (4, {"train": 3, "val": 1})


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_layout_that_is_shown_is_read_without_a_rejected_row(tmp_path: Path, name: str) -> None:
    copy_example(name, tmp_path / "raw")
    truth = read_ground_truth(tmp_path / "raw", "utf-8")
    assert truth.rows == len(truth.records) >= 1
    assert truth.records[0].text == "Миновало почти десятилетие,"


def test_every_format_has_its_example(tmp_path: Path) -> None:
    shown = [(name, tmp_path / name) for name in (*EXAMPLES, *PICTURES)]
    for name, path in shown:
        path.write_text(EXAMPLES.get(name, ""), encoding="utf-8")
    assert [form.name for form in FORMATS if not form.find(shown)] == []
