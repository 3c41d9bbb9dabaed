"""Cleaning: light and slant of a photograph made regular, each step only where it is switched on.

A step that finds nothing to mend leaves the picture as it is, byte for byte: a clean scan, a blank page, a short word
without a clear direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ownhand.images import paper_colour, reduce_image

if TYPE_CHECKING:
    from ownhand.params import PrepareParams

# Background
PATCHES = 24  # of paper along the longer side
PATCH_PX = 16  # at least: wider than strokes
PAPER_SHARE = 0.8  # of a patch's pixels that are darker than its paper
BRIGHTEST_GAIN = 3.0  # a black edge of the desk stays dark
EVEN_ENOUGH = 0.03  # relative differences of the light that are not worth a change

# Contrast
INK_SHARE = 0.005  # of the pixels; so many are at least as dark as the ink
BLANK = 0.1  # of the full range: what differs less is no ink but the grain of the paper

# Deskew
SEEN_PX = 1000  # the longer side of the picture that the angle is measured on
COARSE_DEGREES, FINE_DEGREES = 0.25, 0.05
SOFTENED = np.array([1, 4, 6, 4, 1]) / 16  # rows; unsoftened, rows of pixels that were not turned look sharpest
CLEAR = 2.0  # how much sharper the lines must be at the found angle than at the others
LEAST_DEGREES = 0.15  # less is left, for turning costs sharpness


@dataclass(frozen=True)
class Cleaning:
    """What is to be done; the names are those of the `prepare` parameters, 0 switches a step off.

    flatten_background: how much of the uneven light is taken away, up to 1; normalise_contrast: the wanted distance of
    ink and paper as a share of the full range; deskew: the largest angle in degrees that is turned straight.
    """

    flatten_background: float = 0.0
    normalise_contrast: float = 0.0
    deskew: float = 0.0

    @classmethod
    def of(cls, params: PrepareParams) -> Cleaning:
        """What the parameters say."""
        return cls(params.flatten_background, params.normalise_contrast, params.deskew)


NOTHING = Cleaning()


@dataclass(frozen=True)
class Cleaned:
    """The picture after a step, and by how many degrees it was turned: counter-clockwise above 0."""

    image: Image.Image
    turned_degrees: float = 0.0


def clean(image: Image.Image, cleaning: Cleaning, max_side_px: int) -> Cleaned:
    """An RGB picture after all steps that are switched on, its longest side within the limit.

    A turned picture is larger than it was, for nothing is cut off, and may have to be reduced again.
    """
    cleaned = Cleaned(image)
    for _, after in clean_by_steps(image, cleaning):
        cleaned = after
    return Cleaned(reduce_image(cleaned.image, max_side_px), cleaned.turned_degrees)


def clean_by_steps(image: Image.Image, cleaning: Cleaning) -> Iterator[tuple[str, Cleaned]]:
    """(step, picture after it) for the steps that are switched on, in their order."""
    if cleaning.flatten_background:
        image = flatten_background(image, cleaning.flatten_background)
        yield "flatten_background", Cleaned(image)
    if cleaning.normalise_contrast:
        image = normalise_contrast(image, cleaning.normalise_contrast)
        yield "normalise_contrast", Cleaned(image)
    if cleaning.deskew:
        degrees = measure_skew(image, cleaning.deskew)
        yield "deskew", Cleaned(turn(image, degrees), degrees)


def flatten_background(image: Image.Image, strength: float) -> Image.Image:
    """Even light: each patch is brightened to the paper of the brightest ones, by `strength` (0 to 1) of the way.

    The paper of a patch is the brightness that few of its pixels exceed; between patches the light changes smoothly.
    """
    width, height = image.size
    patch = max(PATCH_PX, round(max(image.size) / PATCHES))
    columns, rows = math.ceil(width / patch), math.ceil(height / patch)
    grey = np.asarray(image.convert("L"))
    paper = np.empty((rows, columns), np.float32)
    for row, strip in enumerate(np.array_split(grey, rows)):
        for column, part in enumerate(np.array_split(strip, columns, axis=1)):
            paper[row, column] = np.quantile(part, PAPER_SHARE)
    paper = np.maximum(_smooth(paper), 1)
    level = np.quantile(paper, 0.9)
    if level / np.quantile(paper, 0.1) < 1 + EVEN_ENOUGH:
        return image
    light = Image.fromarray(paper).resize((width, height), Image.Resampling.BICUBIC)
    gain = np.clip(level / np.maximum(np.asarray(light), 1), 1 / BRIGHTEST_GAIN, BRIGHTEST_GAIN) ** strength
    pixels = np.asarray(image, np.float32) * gain[:, :, None]
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


def normalise_contrast(image: Image.Image, distance: float) -> Image.Image:
    """Faint ink made darker until it is `distance` (share of the full range) from the paper, which stays as it is.

    Stronger contrast than that, and a picture without ink, stay as they are.
    """
    grey = image.convert("L").histogram()
    paper, ink = _quantile(grey, 0.5), _quantile(grey, INK_SHARE)
    seen = (paper - ink) / 255
    wanted = min(distance, paper / 255)
    if not BLANK <= seen < wanted:
        return image
    table = []
    for channel in image.split():
        colour = _quantile(channel.histogram(), 0.5)  # of the paper
        table += [round(min(max(colour + (value - colour) * wanted / seen, 0), 255)) for value in range(256)]
    return image.point(table)


def measure_skew(image: Image.Image, largest_degrees: float) -> float:
    """By how many degrees, counter-clockwise above 0, the picture must be turned for its lines to lie level.

    0 where no angle up to the largest one stands out. The method is that of the projection profile: along level lines
    rows are full of ink or empty, so that the sum of squared differences of neighbouring rows is largest.
    """
    seen = image.convert("L")
    seen.thumbnail((SEEN_PX, SEEN_PX), Image.Resampling.BOX)
    grey = np.asarray(seen, np.float32)
    ink = np.median(grey) - grey
    ink[ink < max(BLANK * 255, 0.4 * float(np.quantile(ink, 1 - INK_SHARE)))] = 0
    y, x = np.nonzero(ink)
    if not len(x):
        return 0.0
    weights, x = ink[y, x], x - x.mean()
    coarse = np.arange(-largest_degrees, largest_degrees + COARSE_DEGREES / 2, COARSE_DEGREES)
    sharpness = np.array([_sharpness(x, y, weights, degrees) for degrees in coarse])
    best = int(sharpness.argmax())
    if best in (0, len(coarse) - 1) or sharpness[best] < CLEAR * np.median(sharpness):
        return 0.0
    fine = np.arange(coarse[best - 1], coarse[best + 1] + FINE_DEGREES / 2, FINE_DEGREES)
    found = float(fine[np.argmax([_sharpness(x, y, weights, degrees) for degrees in fine])])
    return round(found, 2) if abs(found) >= LEAST_DEGREES else 0.0


def turn(image: Image.Image, degrees: float) -> Image.Image:
    """The picture turned counter-clockwise on paper of its own colour, as large as it must be to lose nothing."""
    if not degrees:
        return image
    return image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=paper_colour(image))


def _sharpness(x: np.ndarray, y: np.ndarray, weights: np.ndarray, degrees: float) -> float:
    rows = y - x * math.tan(math.radians(degrees))
    rows -= rows.min()
    upper = rows.astype(np.intp)
    share = rows - upper  # of the next row
    count = int(upper.max()) + 2
    profile = np.bincount(upper, weights * (1 - share), count) + np.bincount(upper + 1, weights * share, count)
    return float((np.diff(np.convolve(profile, SOFTENED)) ** 2).sum())


def _quantile(histogram: list[int], share: float) -> int:
    """The value that `share` of all pixels do not exceed."""
    return int(np.searchsorted(np.cumsum(histogram), share * sum(histogram)))


def _smooth(values: np.ndarray) -> np.ndarray:
    """Each value averaged with its neighbours (3 x 3), the edge repeated."""
    padded = np.pad(values, 1, mode="edge")
    rows, columns = values.shape
    neighbours = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    smoothed: np.ndarray = np.mean(neighbours, axis=0)
    return smoothed
