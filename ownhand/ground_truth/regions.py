"""Regions: the part of a page's picture that holds one line, as PAGE and ALTO XML describe it, and its cutting."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw

FARTHEST_PX = 10_000_000  # of a corner: beyond it, Pillow's arithmetic is no longer exact
ASPECT_TOLERANCE = 0.01  # between the picture and the size that the XML was made for: sizes are rounded
Points = tuple[tuple[float, float], ...]


class RegionError(ValueError):
    """A region that cannot be cut; the message is a reason for `metrics/rejected.csv`."""


@dataclass(frozen=True)
class Region:
    """A polygon, (x, y) from the upper left corner of the page, at least three corners.

    page_size: (width, height) of the page in the polygon's units; None when these are the picture's pixels.
    """

    polygon: Points
    page_size: tuple[float, float] | None


def box(x: float, y: float, width: float, height: float) -> Points:
    """The corners of a rectangle."""
    return ((x, y), (x + width, y), (x + width, y + height), (x, y + height))


def cut_region(page: Image.Image, region: Region) -> Image.Image:
    """The region of an RGB page in its bounding box, white outside the polygon; what leaves the page is left out.

    Where the region was drawn on a larger or smaller copy of the page, it is scaled. Raises RegionError when the page
    has another shape than that copy, or when nothing of the region lies on the page, or a corner absurdly far from it.
    """
    scale_x, scale_y = scales(page.size, region.page_size)
    corners = [(x * scale_x, y * scale_y) for x, y in region.polygon]
    if not all(abs(value) <= FARTHEST_PX for corner in corners for value in corner):  # NaN is caught, too
        raise RegionError(f"no region: a corner is more than {FARTHEST_PX:,} px from the page")
    xs, ys = zip(*corners, strict=True)
    left, upper = max(0, math.floor(min(xs))), max(0, math.floor(min(ys)))
    right, lower = min(page.width, math.ceil(max(xs))), min(page.height, math.ceil(max(ys)))
    if right <= left or lower <= upper:
        raise RegionError(f"no region: nothing of it lies on the page of {page.width} x {page.height} px")
    cut = page.crop((left, upper, right, lower))
    if _is_upright_rectangle(corners):
        return cut
    mask = Image.new("1", cut.size)
    ImageDraw.Draw(mask).polygon([(x - left, y - upper) for x, y in corners], fill=1)
    line = Image.new("RGB", cut.size, "white")
    line.paste(cut, mask=mask)
    return line


def scales(size: tuple[int, int], drawn_on: tuple[float, float] | None) -> tuple[float, float]:
    """What x and y of a region are multiplied by on a picture of that size. RegionError when the shapes differ."""
    if drawn_on is None:
        return 1.0, 1.0
    if not all(1 <= side <= FARTHEST_PX for side in drawn_on):
        raise RegionError(f"wrong page size: {drawn_on[0]:g} x {drawn_on[1]:g} is no size of a page")
    scale_x, scale_y = size[0] / drawn_on[0], size[1] / drawn_on[1]
    if abs(scale_x / scale_y - 1) > ASPECT_TOLERANCE:
        raise RegionError(
            f"wrong page size: the picture has {size[0]} x {size[1]} px, its regions were drawn on {drawn_on[0]:g} x "
            f"{drawn_on[1]:g}; save a page that is stored turned (EXIF) upright before it is segmented"
        )
    return scale_x, scale_y


def _is_upright_rectangle(corners: list[tuple[float, float]]) -> bool:
    xs, ys = {x for x, _ in corners}, {y for _, y in corners}
    return len(xs) == len(ys) == 2 and set(corners) == {(x, y) for x in xs for y in ys}
