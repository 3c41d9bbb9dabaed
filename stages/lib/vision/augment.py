"""Augmentation: another photograph of the same line, as the same hand might have written it.

Only for training pictures, drawn from a seed, so that the feature cache can hold the copies.
"""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


def augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A changed copy of an RGB picture: slant, tilt, stretch, margins, light, sharpness and JPEG noise.

    Size may change by a few per cent; nothing of the picture is cut off.
    """
    image = _warp(image, rng)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.8, 1.15))
    image = ImageEnhance.Contrast(image).enhance(rng.uniform(0.75, 1.3))
    image = ImageEnhance.Color(image).enhance(rng.uniform(0.3, 1.4))
    if rng.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.012 * image.height)))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(35, 90)))
        image = Image.open(buffer).convert("RGB")
    return image


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of the picture's edge: what lies around the writing."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0)
    return int(red), int(green), int(blue)


def _warp(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Slant, tilt, stretch and new margins in one affine transform, on paper of the picture's own colour."""
    width, height = image.size
    slant = rng.normal(0, 0.12)
    tilt = math.radians(rng.normal(0, 0.8)) if width > 3 * height else math.radians(rng.normal(0, 1.5))
    stretch_x, stretch_y = rng.uniform(0.88, 1.12), rng.uniform(0.9, 1.1)
    margin_x, margin_y = rng.uniform(0, 0.25, 2) * height * np.array([1.0, 0.6])
    # Room for the slanted and tilted picture, so that nothing is cut.
    new_width = round(width * stretch_x + abs(slant) * height + margin_x)
    new_height = round(height * stretch_y + min(abs(math.tan(tilt)) * width, 0.3 * height) + margin_y)
    shift_x, shift_y = rng.uniform(-0.4, 0.4) * margin_x, rng.uniform(-0.4, 0.4) * margin_y
    # The transform maps a new position, counted from the new centre, to an old one.
    a, b = 1 / stretch_x, -slant / stretch_y
    d, e = -math.tan(tilt) / stretch_x, 1 / stretch_y
    centre_x, centre_y = new_width / 2 + shift_x, new_height / 2 + shift_y
    coefficients = (
        a,
        b,
        width / 2 - a * centre_x - b * centre_y,
        d,
        e,
        height / 2 - d * centre_x - e * centre_y,
    )
    return image.transform(
        (new_width, new_height),
        Image.Transform.AFFINE,
        coefficients,
        Image.Resampling.BICUBIC,
        fillcolor=paper_colour(image),
    )
