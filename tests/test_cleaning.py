"""Cleaning: known faults are found and mended, and what has none stays as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.drawing import Hand, draw_line
from ownhand.dataset.cleaning import (
    NOTHING,
    Cleaning,
    clean,
    clean_by_steps,
    flatten_background,
    measure_skew,
    normalise_contrast,
    turn,
)

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
LINE = "Миновало почти десятилетие, как мы не виделись"
ALL = Cleaning(flatten_background=1.0, normalise_contrast=0.7, deskew=8.0)
SIDE = 10_000


def written(text: str, seed: int = 1) -> Image.Image:
    """A level line of handwriting on even white paper, dark ink."""
    return draw_line(text, FONT, Hand(), np.random.default_rng(seed), 64)


def page() -> Image.Image:
    """Five level lines below each other."""
    image = Image.new("RGB", (760, 480), "white")
    for i in range(5):
        image.paste(written(LINE, i), (10, 20 + 90 * i))
    return image


def scan() -> Image.Image:
    """Black strokes on clean white paper."""
    image = Image.new("RGB", (400, 80), (250, 250, 250))
    for x in range(20, 380, 20):
        image.paste((20, 20, 30), (x, 20, x + 4, 60))
    return image


def difference(one: Image.Image, other: Image.Image) -> float:
    """The largest difference of any two pixels."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).max())


def test_nothing_is_done_where_nothing_is_switched_on() -> None:
    picture = written(LINE)
    assert clean(picture, NOTHING, SIDE).image is picture
    assert list(clean_by_steps(picture, NOTHING)) == []


@pytest.mark.parametrize("degrees", [-4.0, -1.5, -0.5, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("make", [page, lambda: written(LINE)], ids=["page", "line"])
def test_a_known_angle_is_found(make: object, degrees: float) -> None:
    picture = make()  # type: ignore[operator]
    turned = picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    assert measure_skew(turned, 8.0) == pytest.approx(-degrees, abs=0.3)


def test_level_lines_are_level_and_angles_beyond_the_largest_are_left() -> None:
    assert abs(measure_skew(page(), 8.0)) <= 0.3
    assert abs(measure_skew(written(LINE), 8.0)) <= 0.3
    steep = page().rotate(12, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    assert measure_skew(steep, 5.0) == 0


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [(900, 64), (600, 800)])
def test_pictures_without_clear_lines_are_not_turned(seed: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    width, height = size
    grain = np.clip(rng.normal(235, 4, (height, width, 3)), 0, 255).astype(np.uint8)
    specks = np.where(rng.random((height, width, 1)) < 0.01, 20, 240).repeat(3, 2).astype(np.uint8)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    for pixels in (grain, specks, noise):
        picture = Image.fromarray(pixels)
        assert turn(picture, measure_skew(picture, 5.0)) is picture


@pytest.mark.parametrize("text", ["да", "мама", "Ёж"])
@pytest.mark.parametrize("degrees", [0.0, 3.0])
def test_one_short_word_has_no_clear_direction(text: str, degrees: float) -> None:
    word = written(text).rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    assert measure_skew(word, 5.0) == 0


def test_turning_cuts_nothing_off_and_adds_paper() -> None:
    image = Image.new("RGB", (500, 80), (240, 230, 210))
    colours = [(200, 0, 0), (0, 160, 0), (0, 0, 200), (0, 0, 0)]
    for colour, (x, y) in zip(colours, [(0, 0), (492, 0), (0, 72), (492, 72)], strict=True):
        image.paste(colour, (x, y, x + 8, y + 8))
    turned = np.asarray(turn(image, 4.0), int)
    assert turned.shape[0] > 80 and turned.shape[1] > 495
    for colour in colours:
        assert (np.abs(turned - colour).max(axis=2) < 40).sum() > 30
    assert np.abs(turned[0, 250] - (240, 230, 210)).max() <= 2


def test_uneven_light_becomes_even_and_ink_stays_ink() -> None:
    light = np.linspace(0.5, 1.0, 400)[None, :, None]
    shaded = Image.fromarray((np.asarray(scan()) * light).astype(np.uint8))
    paper = np.asarray(flatten_background(shaded, 1.0), float)[5:15]
    before = np.asarray(shaded, float)[5:15]
    assert before.std() > 30 and paper.std() < 4
    assert np.asarray(flatten_background(shaded, 1.0))[40, 22:380:20].max() < 70
    half = np.asarray(flatten_background(shaded, 0.5), float)[5:15]
    assert paper.std() < half.std() < before.std()


def test_faint_ink_is_made_darker_and_paper_keeps_its_colour() -> None:
    faint = np.full((80, 400, 3), (230, 220, 200), np.uint8)
    faint[20:60, 20:380:10] = (150, 150, 170)
    darker = np.asarray(normalise_contrast(Image.fromarray(faint), 0.7), int)
    assert tuple(darker[5, 5]) == (230, 220, 200)
    grey = np.asarray(Image.fromarray(darker.astype(np.uint8)).convert("L"), int)
    assert grey[5, 5] - grey[40, 20] == pytest.approx(0.7 * 255, abs=8)


def test_a_clean_scan_and_a_blank_page_stay_as_they_are() -> None:
    assert difference(clean(scan(), ALL, SIDE).image, scan()) == 0
    grain = np.clip(np.random.default_rng(1).normal(235, 3, (300, 400, 3)), 0, 255).astype(np.uint8)
    assert difference(clean(Image.fromarray(grain), ALL, SIDE).image, Image.fromarray(grain)) == 0


def test_steps_come_in_their_order_and_the_last_one_is_the_result() -> None:
    picture = page().rotate(2, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    steps = list(clean_by_steps(picture, ALL))
    assert [name for name, _ in steps] == ["flatten_background", "normalise_contrast", "deskew"]
    result = clean(picture, ALL, SIDE)
    assert max(clean(picture, ALL, max(picture.size)).image.size) == max(picture.size) < max(result.image.size)
    assert result.turned_degrees == steps[-1][1].turned_degrees == pytest.approx(-2, abs=0.3)
    assert difference(result.image, steps[-1][1].image) == 0


def test_what_is_clean_is_not_turned_again_and_hardly_changed() -> None:
    turned = page().rotate(2, Image.Resampling.BICUBIC, expand=True, fillcolor="white")
    light = np.linspace(0.5, 1.0, turned.width)[None, :, None]
    once = clean(Image.fromarray((np.asarray(turned) * light).astype(np.uint8)), ALL, SIDE)
    twice = clean(once.image, ALL, SIDE)
    assert once.turned_degrees == pytest.approx(-2, abs=0.3) and twice.turned_degrees == 0
    assert np.abs(np.asarray(once.image, float) - np.asarray(twice.image, float)).mean() < 8
