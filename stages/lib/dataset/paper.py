"""Paper: the colour around the writing, for whatever room a turned or widened picture gets."""

from __future__ import annotations

import numpy as np
from PIL import Image


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of an RGB picture's edge: what lies around the writing."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0)
    return int(red), int(green), int(blue)
