"""Read: new photographs are treated as those that the adapter was trained on."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import edit_params
from PIL import Image

from ownhand.params import read_params
from ownhand.read import read


def test_a_photograph_is_reduced_as_prepare_would(
    stage_folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage_folder)
    edit_params(stage_folder, "transcribe", max_new_tokens=4)
    edit_params(stage_folder, "prepare", max_side_px=100)
    pictures[0].save("large.png")
    small = pictures[0].copy()
    small.thumbnail((100, 100), Image.Resampling.LANCZOS)
    small.save("small.png")
    outcomes = read([Path("large.png"), Path("small.png")], read_params(), None)
    large_reading, small_reading = (outcome.reading for outcome in outcomes)
    assert large_reading == small_reading is not None
