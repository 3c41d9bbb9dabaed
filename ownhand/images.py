"""Images: opened, decoded wholly, turned upright and made RGB, in this one place.

A picture that cannot be taken raises UnreadableImage, whose reason names what was measured and the limit or remedy.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ownhand.errors import Refusal

if TYPE_CHECKING:
    from ownhand.params import PrepareParams

# Our own limit is checked before a pixel is decoded, and says which parameter it is; Pillow's would stop at half of it.
Image.MAX_IMAGE_PIXELS = None

# Named, because some of Pillow's other readers start foreign programs (EPS) or read only a preview.
PILLOW_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
# A phone keeps depth maps and further shots behind the photograph itself, which is the first picture of these.
PHOTO_CONTAINERS = ("MPO", "HEIF")
IMAGE_SUFFIXES = {".heic", ".heif"} | {
    suffix for suffix, name in Image.registered_extensions().items() if name in (*PILLOW_FORMATS, *PHOTO_CONTAINERS)
}
TIFF_BITS_PER_SAMPLE, TIFF_PHOTOMETRIC, TIFF_SUBFILE_TYPE = 258, 262, 254
PLAIN_WHITES = (1, 255, 65535)  # the usual values of white where a file does not say how deep its values are


class UnreadableImage(Refusal):
    """A picture that cannot be used; `reason` begins with its kind: "too small: 1 x 1 px, ..."."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


@dataclass(frozen=True)
class ConvertedPicture:
    """What `prepare` makes of a photograph: file, size, the file's hash, and 256 bits to find its copies."""

    path: Path
    width_px: int
    height_px: int
    sha256: str
    bits: bytes


@dataclass(frozen=True)
class ImageLimits:
    """What a picture may measure; the names are those of the `prepare` parameters.

    A longer side than `max_side_px` is reduced; the other three lead to rejection, before the picture is decoded.
    """

    max_side_px: int
    min_side_px: int
    max_pixels: int
    max_aspect: float

    @classmethod
    def of(cls, params: PrepareParams) -> ImageLimits:
        """What the parameters say."""
        return cls(params.max_side_px, params.min_side_px, params.max_pixels, params.max_aspect)


def has_image_suffix(name: str) -> bool:
    """Whether the name ends like a picture's. Only a hint: what a file is, its content decides."""
    return Path(name).suffix.casefold() in IMAGE_SUFFIXES


def open_image(path: Path, limits: ImageLimits | None = None) -> Image.Image:
    """The picture as upright 8-bit RGB without metadata, its longest side reduced to the limit (Lanczos).

    Transparency becomes white, 16-bit and floating-point values are scaled to 0-255. The content decides about the
    format, not the name. Raises UnreadableImage for anything that is not one whole picture within the limits.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata, which is dropped here anyway
            picture = _decode(path, limits)
    except UnreadableImage:
        raise
    except UnidentifiedImageError:
        raise UnreadableImage(path, _why_unidentified(path)) from None
    except Exception as error:  # damaged files make Pillow's readers raise nearly every kind of exception
        seen = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreadableImage(path, f"unreadable picture: {seen}") from error
    return picture if limits is None else reduce_image(picture, limits.max_side_px)


def limit_image(path: Path, image: Image.Image, limits: ImageLimits) -> Image.Image:
    """A part of the picture at `path` under the limits that hold for whole pictures; see `open_image`."""
    _check_size(path, image.size, limits)
    return reduce_image(image, limits.max_side_px)


def reduce_image(image: Image.Image, max_side_px: int) -> Image.Image:
    """The picture with its longest side reduced to the limit (Lanczos); a smaller one as it is."""
    longest = max(image.size)
    if longest <= max_side_px:
        return image
    width, height = (max(1, round(side * max_side_px / longest)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _decode(path: Path, limits: ImageLimits | None) -> Image.Image:
    if path.stat().st_size == 0:
        raise UnreadableImage(path, "empty file: 0 bytes")
    with Image.open(path, formats=_formats()) as image:
        if limits is not None:
            _check_size(path, image.size, limits)
        frames = getattr(image, "n_frames", 1)
        if frames > 1 and image.format not in PHOTO_CONTAINERS:
            raise UnreadableImage(path, f"several frames: {frames} in one {image.format} file; save each as a picture")
        if getattr(image, "tag_v2", {}).get(TIFF_SUBFILE_TYPE, 0) & 1:
            raise UnreadableImage(path, "only a preview: a camera's raw file, it seems; save the photograph as JPEG")
        ImageOps.exif_transpose(image, in_place=True)  # decodes wholly, too
        picture = _to_rgb(image)
        picture.info = {}  # a comment would be written again with the JPEG
        return picture


@cache
def _formats() -> tuple[str, ...]:
    if importlib.util.find_spec("pillow_heif") is None:
        return PILLOW_FORMATS
    importlib.import_module("pillow_heif").register_heif_opener()
    return (*PILLOW_FORMATS, "HEIF")


def _why_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] == b"ftyp" and not start.startswith(b"avi", 8) and "HEIF" not in _formats():
        return "HEIC/HEIF: the optional reader is missing; install it with `pip install pillow-heif`, or save as JPEG"
    known = f"{', '.join(PILLOW_FORMATS[:-1])} or {PILLOW_FORMATS[-1]}"
    return f"not a readable picture: no {known}, or damaged; begins with {start[:8]!r}"


def _check_size(path: Path, size: tuple[int, int], limits: ImageLimits) -> None:
    shorter, longer = sorted(size)
    seen = f"{size[0]} x {size[1]} px"
    if shorter < limits.min_side_px:
        raise UnreadableImage(path, f"too small: {seen}, prepare.min_side_px is {limits.min_side_px}")
    if shorter * longer > limits.max_pixels:
        pixels = f"{seen} are {shorter * longer:,} pixels"
        raise UnreadableImage(path, f"too large: {pixels}, prepare.max_pixels is {limits.max_pixels:,}")
    if longer > limits.max_aspect * shorter:
        aspect = f"{seen} is {longer / shorter:.1f} : 1"
        raise UnreadableImage(path, f"too elongated: {aspect}, prepare.max_aspect is {limits.max_aspect:g}")


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_scale_to_8_bits(image)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    paper = Image.new("RGB", image.size, "white")
    paper.paste(transparent, mask=transparent.getchannel("A"))
    return paper


def _scale_to_8_bits(image: Image.Image) -> np.ndarray:
    """Deep greyscale values as uint8 (height, width): the file's full range becomes 0-255, nothing is clipped."""
    values = np.asarray(image, np.float32)
    if not np.isfinite(values).all():
        raise ValueError("its values include NaN or infinity")
    tags = getattr(image, "tag_v2", {})
    black, white = 0.0, float(values.max())
    if image.mode.startswith("I;16"):
        white = 2 ** tags.get(TIFF_BITS_PER_SAMPLE, (16,))[0] - 1
    elif image.mode == "I" and image.format == "PPM":  # Pillow has scaled these to 16 bits already
        white = 65535
    elif values.min() < 0:
        black = float(values.min())
    else:
        white = next((usual for usual in PLAIN_WHITES if usual >= white), white)
    grey = np.rint((values - black) * (255 / max(white - black, 1e-6)))
    if tags.get(TIFF_PHOTOMETRIC) == 0:  # white is zero; Pillow turns only the shallow modes around
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey[values == transparent] = 255
    return np.asarray(grey, np.uint8)


def paper_colour(image: Image.Image) -> tuple[int, int, int]:
    """The median colour of an RGB picture's edge: what lies around the writing."""
    pixels = np.asarray(image)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    red, green, blue = np.median(edge, axis=0)
    return int(red), int(green), int(blue)
