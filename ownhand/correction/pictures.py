"""Pictures: a line as the model reads it, and as the page shows it, with its neighbours faint around it."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

from ownhand.correction.queue import Line, Stamp, stamp_of
from ownhand.dataset.conversion import OpenPage
from ownhand.ground_truth.regions import Points, Region, scales
from ownhand.images import ImageLimits, open_image, reduce_image

SHOWN_PX = 2400  # the longest side of a picture on the page
NEIGHBOUR_PX = 900
BEYOND = (255, 255, 255)  # the edge of the page
FAINT = 0.65  # how far the surroundings of a line are on the way to empty paper
SHRINK = 12  # the paper is looked for in a picture smaller by this: wider than strokes, narrower than shadows
AROUND, AROUND_TALL = 0.9, 0.1  # of the surroundings, above and below, to the height of a line or a block of lines
TALL = 0.4  # height to width: more than this is no single line
JPEG_QUALITY = 86


def open_line(line: Line, limits: ImageLimits) -> Image.Image:
    """The line as `prepare` converts it. UnreadableImage when that is not possible."""
    if line.region is None:
        return open_image(line.path, limits)
    return _page(line.path, stamp_of(line.path), limits).cut(line.region)


def share_of_line(region: Region | None) -> float:
    """Which part of the height of the picture that `show_line` gives is the line itself: it lies in the middle."""
    return 1.0 if region is None else 1 / (1 + 2 * _around(region))


def show_line(line: Line, limits: ImageLimits, turns: int = 0, *, small: bool = False) -> bytes:
    """A JPEG of the line, turned clockwise by so many quarters; a line of a page with its surroundings, faint.

    small: for a glance at a picture before or after. UnreadableImage when there is nothing to show.
    """
    region = line.region
    image = _with_surroundings(line.path, region, limits) if region else open_image(line.path, limits)
    image = reduce_image(image, NEIGHBOUR_PX if small else SHOWN_PX)
    image = image.rotate(-90 * turns, expand=True)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()


def _with_surroundings(path: Path, region: Region, limits: ImageLimits) -> Image.Image:
    page = _page(path, stamp_of(path), limits)
    page.cut(region)  # says what is wrong with page or region
    assert isinstance(page.image, Image.Image)
    scale_x, scale_y = scales(page.image.size, region.page_size)
    corners = tuple((x * scale_x, y * scale_y) for x, y in region.polygon)
    left, upper, right, lower = _box(corners)
    margin = (lower - upper) * _around(region)
    frame = [round(edge) for edge in (left - margin, upper - margin, right + margin, lower + margin)]
    around = Image.new("RGB", (frame[2] - frame[0], frame[3] - frame[1]), BEYOND)
    seen = (max(0, frame[0]), max(0, frame[1]), min(page.image.width, frame[2]), min(page.image.height, frame[3]))
    around.paste(page.image.crop(seen), (seen[0] - frame[0], seen[1] - frame[1]))
    mask = Image.new("L", around.size)
    outline = [(x - frame[0], y - frame[1]) for x, y in corners]
    softness = min(12.0, (lower - upper) * 0.06)  # a little more than the line, for strokes that leave it
    draw = ImageDraw.Draw(mask)
    draw.polygon(outline, fill=255)
    draw.line([*outline, outline[0]], fill=255, width=max(1, round(softness * 2)), joint="curve")
    mask = mask.filter(ImageFilter.GaussianBlur(softness / 2))
    return Image.composite(around, Image.blend(around, _paper_under(around), FAINT), mask)


def _paper_under(image: Image.Image) -> Image.Image:
    """The light and colour of the paper at each place, without what is written on it."""
    small = image.resize([max(1, side // SHRINK) for side in image.size], Image.Resampling.BOX)
    small = small.filter(ImageFilter.MaxFilter(5)).filter(ImageFilter.GaussianBlur(2))
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _around(region: Region) -> float:
    left, upper, right, lower = _box(region.polygon)
    return AROUND_TALL if lower - upper > TALL * (right - left) else AROUND


def _box(corners: Points) -> tuple[float, float, float, float]:
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@lru_cache(maxsize=2)
def _page(path: Path, stamp: Stamp | None, limits: ImageLimits) -> OpenPage:
    """The page, opened once for its lines; `stamp` makes a changed file another one."""
    return OpenPage(path, limits)
