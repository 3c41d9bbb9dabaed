"""Pictures: the line itself is what `prepare` makes of it; on the page its neighbours are faint around it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ownhand.correction.pictures import open_line, share_of_line, show_line
from ownhand.correction.queue import Line
from ownhand.ground_truth.regions import Region, box
from ownhand.images import ImageLimits, UnreadableImage

LIMITS = ImageLimits(max_side_px=2600, min_side_px=8, max_pixels=10**8, max_aspect=60)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with three black lines of 20 px, 40 px apart."""
    image = Image.new("RGB", (400, 160), "white")
    draw = ImageDraw.Draw(image)
    for top in (20, 60, 100):
        draw.rectangle((20, top, 380, top + 19), fill="black")
    image.save(tmp_path / "page.png")
    return tmp_path / "page.png"


def line(path: Path, region: Region | None) -> Line:
    return Line(0, path.name, path, path.name, region=region)


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_neighbours_are_faint_and_the_line_stands_in_the_middle(page: Path) -> None:
    region = Region(box(20, 60, 361, 20), None)
    assert open_line(line(page, region), LIMITS).size == (361, 20)
    seen = shown(show_line(line(page, region), LIMITS))
    assert share_of_line(region) == pytest.approx(20 / seen.shape[0], abs=0.03)
    middle = seen[:, seen.shape[1] // 2]
    centre = len(middle) // 2
    assert middle[centre] < 20
    high = shown(show_line(line(page, Region(box(20, 60, 361, 40), None)), LIMITS))[:, 150]
    assert 120 < high[high.shape[0] // 2 + 36] < 200  # the line below: 62 % of the way from black to white


def test_a_region_drawn_on_a_smaller_copy_is_shown_at_its_place(page: Path) -> None:
    region = Region(box(10, 30, 180, 10), (200, 80))
    seen = shown(show_line(line(page, region), LIMITS))
    assert seen[seen.shape[0] // 2, seen.shape[1] // 2] < 20


def test_a_line_at_the_edge_of_the_page_has_white_around_it(page: Path) -> None:
    seen = shown(show_line(line(page, Region(box(0, 0, 400, 30), None)), LIMITS))
    assert seen.shape == (30 + 2 * 27, 400 + 2 * 27)
    assert seen[2, 2] > 250


def test_a_picture_turns_clockwise(page: Path) -> None:
    image = Image.new("RGB", (60, 20), "white")
    image.paste("black", (0, 0, 20, 20))
    image.save(page)
    seen = shown(show_line(line(page, None), LIMITS, 1))
    assert seen.shape == (60, 20)
    assert seen[10, 10] < 20 < 200 < seen[50, 10]  # left has become up


def test_a_page_that_was_replaced_is_opened_again(page: Path) -> None:
    region = Region(box(20, 60, 361, 20), None)
    assert shown(show_line(line(page, region), LIMITS)).min() < 20
    Image.new("RGB", (400, 161), "white").save(page)
    assert shown(show_line(line(page, region), LIMITS)).min() > 250


def test_what_cannot_be_shown_says_why(page: Path) -> None:
    with pytest.raises(UnreadableImage, match="no region"):
        show_line(line(page, Region(box(900, 900, 10, 10), None)), LIMITS)
    page.write_bytes(b"no picture")
    with pytest.raises(UnreadableImage, match="not a readable picture"):
        show_line(line(page, Region(box(20, 60, 361, 20), None)), LIMITS)
