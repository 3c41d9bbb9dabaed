"""Augmentation: another picture of the same line, whole, and the same one at every call."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from ownhand.params import AugmentParams, read_params
from ownhand.vision.augment import augment, augmented_size, line_height

ROOT = Path(__file__).parent.parent
SHIPPED = read_params(ROOT / "params.yaml").encode.augment
SETTINGS = SHIPPED.model_copy(update={"elastic": 0.05, "shadow": 0.15})  # nothing is off
OFF = AugmentParams(**{name: 0 if name == "jpeg_quality" else 0.0 for name in AugmentParams.model_fields})
PAPER = (230, 226, 214)


def line(width: int = 300, height: int = 60) -> Image.Image:
    """Strokes in the middle of paper."""
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    for x in range(20, width - 20, 25):
        draw.line((x, 15, x + 10, height - 15), fill=(30, 30, 90), width=3)
    return image


def digest(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.size}".encode() + image.tobytes()).hexdigest()


def test_a_copy_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    first = digest(augment(line(), SETTINGS, [5, 7, 1]))
    other = digest(augment(line(), SETTINGS, [5, 7, 2]))
    torch.manual_seed(2)
    assert digest(augment(line(), SETTINGS, [5, 7, 2])) == other
    assert digest(augment(line(), SETTINGS, [5, 7, 1])) == first
    copies = {digest(augment(line(), SETTINGS, seed)) for seed in ([5, 7, 1], [5, 7, 2], [5, 8, 1], [6, 7, 1])}
    assert len(copies) == 4 and digest(line()) not in copies


def test_the_size_of_a_copy_is_known_without_making_it() -> None:
    for settings in (SETTINGS, SHIPPED, OFF):
        for seed in range(5):
            for image in (line(), line(width=900, height=200)):
                assert augmented_size(*image.size, settings, [seed]) == augment(image, settings, [seed]).size


def test_another_process_makes_the_same_copy() -> None:
    code = "from tests.test_augment import *; print(digest(augment(line(), SETTINGS, [5, 7, 3])))"
    environment = [sys.executable, "-c", code]
    seen = subprocess.run(environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    assert seen == digest(augment(line(), SETTINGS, [5, 7, 3]))


def test_random_numbers_of_the_training_are_left_as_they_were() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    augment(line(), SETTINGS, [1])
    assert torch.equal(torch.rand(4), expected)


def test_with_everything_off_a_copy_is_the_picture() -> None:
    assert augment(line(), OFF, [1]).tobytes() == line().tobytes()


@pytest.mark.parametrize("name", list(AugmentParams.model_fields))
def test_every_setting_alone_changes_the_picture(name: str) -> None:
    alone = OFF.model_copy(update={name: getattr(SETTINGS, name) or 0.1})
    assert any(digest(augment(line(), alone, [seed])) != digest(line()) for seed in range(4))


@pytest.mark.parametrize("size", [(900, 60), (300, 400)])
def test_nothing_of_the_picture_is_cut_off_and_what_is_new_is_paper(size: tuple[int, int]) -> None:
    width, height = size
    colours = [(200, 0, 0), (0, 160, 0), (0, 0, 200), (0, 0, 0)]
    image = Image.new("RGB", size, PAPER)
    corners = [(0, 0), (width - 6, 0), (0, height - 6), (width - 6, height - 6)]
    for colour, (x, y) in zip(colours, corners, strict=True):
        image.paste(colour, (x, y, x + 6, y + 6))
    strong = {"rotation_degrees": 12.0, "shear_degrees": 30.0, "stretch": 0.2, "elastic": 0.1}
    for seed in range(12):
        pixels = np.asarray(augment(image, OFF.model_copy(update=strong), [seed]), int)
        for colour in colours:
            near = (np.abs(pixels - colour).max(axis=2) < 70).sum()
            assert near > 8, (seed, colour)
        middle = pixels[pixels.shape[0] // 2, [0, -1]]
        assert np.abs(middle - PAPER).max() <= 3


def test_margins_and_turns_make_a_picture_larger_within_their_bounds() -> None:
    margins = [augment(line(), OFF.model_copy(update={"margin": 0.5}), [seed]).size for seed in range(8)]
    assert len(set(margins)) > 4
    assert all(300 <= width <= 361 and 60 <= height <= 121 for width, height in margins)
    turned = [augment(line(), OFF.model_copy(update={"rotation_degrees": 2.0}), [seed]).height for seed in range(8)]
    assert 62 < max(turned) <= 60 + round(300 * np.sin(np.radians(2))) + 2


def test_a_page_is_blurred_like_a_line_and_not_by_its_own_height() -> None:
    assert line_height(60) == 60
    assert line_height(2600) == line_height(200) == 128
