"""Read: new photographs are treated as those that the adapter was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import edit_params
from PIL import Image

from ownhand.dataset.cleaning import Cleaning, clean
from ownhand.params import read_params
from ownhand.read import read


def test_a_photograph_is_cleaned_as_prepare_would(
    stage_folder: Path, pictures: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage_folder)
    edit_params(stage_folder, "transcribe", max_new_tokens=4)
    light = np.linspace(0.4, 1.0, pictures[0].width)[None, :, None]
    shaded = Image.fromarray((np.asarray(pictures[0]) * light).astype(np.uint8))
    shaded.save("shaded.png")
    clean(shaded, Cleaning(flatten_background=1.0, normalise_contrast=0.8), 10_000).image.save("clean.png")
    plain = read([Path("shaded.png"), Path("clean.png")], read_params(), None)
    edit_params(stage_folder, "prepare", flatten_background=1.0, normalise_contrast=0.8)
    (cleaned,) = read([Path("shaded.png")], read_params(), None)
    confidences = [outcome.reading.confidence for outcome in (*plain, cleaned) if outcome.reading]
    assert confidences[2] == confidences[1] != confidences[0]
