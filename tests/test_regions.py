"""Lines cut from a page: only what is inside the polygon, at the right place, whatever units it was drawn in."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ownhand.ground_truth.regions import Region, RegionError, box, cut_region

RED = (200, 0, 0)


@pytest.fixture
def page() -> Image.Image:
    """60 x 40, blue, with a red rectangle at x 10-29, y 5-14."""
    image = Image.new("RGB", (60, 40), "blue")
    image.paste(RED, (10, 5, 30, 15))
    return image


def test_a_box_is_cut_exactly(page: Image.Image) -> None:
    line = cut_region(page, Region(box(10, 5, 20, 10), None))
    assert line.size == (20, 10)
    assert (np.asarray(line) == RED).all()


def test_outside_a_polygon_the_line_is_white_and_inside_it_is_the_page(page: Image.Image) -> None:
    line = cut_region(page, Region(((10, 5), (30, 5), (10, 15)), None))
    assert line.size == (20, 10)
    assert line.getpixel((2, 2)) == RED
    assert line.getpixel((19, 9)) == (255, 255, 255)


def test_a_region_drawn_on_a_copy_of_another_size_is_scaled(page: Image.Image) -> None:
    for factor in (0.5, 3, 7.3):
        region = Region(box(10 * factor, 5 * factor, 20 * factor, 10 * factor), (60 * factor, 40 * factor))
        line = cut_region(page, region)
        assert abs(line.width - 20) <= 1 and abs(line.height - 10) <= 1
        assert line.getpixel((10, 5)) == RED


def test_what_leaves_the_page_is_left_out(page: Image.Image) -> None:
    assert cut_region(page, Region(box(-5, -5, 20, 10), None)).size == (15, 5)
    with pytest.raises(RegionError, match="nothing of it lies on the page of 60 x 40 px"):
        cut_region(page, Region(box(70, 5, 20, 10), None))


def test_a_page_of_another_shape_than_the_region_was_drawn_on_is_refused(page: Image.Image) -> None:
    with pytest.raises(RegionError, match=r"has 60 x 40 px, its regions were drawn on 40 x 60; .*EXIF"):
        cut_region(page, Region(box(10, 5, 20, 10), (40, 60)))


@pytest.mark.parametrize("far", [1e999, -1e300, float("nan"), 1e12])
def test_a_corner_that_is_absurdly_far_away_is_no_region(page: Image.Image, far: float) -> None:
    with pytest.raises(RegionError, match="no region"):
        cut_region(page, Region(((0, 0), (far, 0), (20, 20)), None))
    with pytest.raises(RegionError, match="no region"):
        cut_region(page, Region(box(0, 0, far, 20), (60, 40)))


@pytest.mark.parametrize("size", [(1e999, 40), (60, 1e999), (1e-300, 1e-300), (float("nan"), 40)])
def test_a_page_size_that_no_page_has_is_refused(page: Image.Image, size: tuple[float, float]) -> None:
    with pytest.raises(RegionError, match="wrong page size"):
        cut_region(page, Region(box(0, 0, 20, 20), size))


def test_a_polygon_that_reaches_far_over_the_page_keeps_its_part_of_it(page: Image.Image) -> None:
    corners = ((-500, 5), (900, 5), (900, 15), (-500, 15.5))
    assert cut_region(page, Region(corners, None)).size == (60, 11)
