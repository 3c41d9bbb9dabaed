"""Synthetic text lines: a text, a font and a hand (a writer's habits) become a picture.

Used by `demo.hand` (the demo hand), by `demo.pretrain` (the demo base model) and by tests. Nothing here knows about
models. All randomness comes from the `numpy.random.Generator` that the caller passes.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image, ImageDraw, ImageFilter, ImageFont

FONT_SIZE_PX = 48  # lines are drawn at this size, warped, and only then reduced to their final height


@dataclass(frozen=True)
class Hand:
    """The habits of one writer and the look of his paper. Lengths are fractions of the font size unless named.

    slant: horizontal shift per unit of height (0.2 leans right like cursive); wobble: how far the baseline moves;
    size_jitter: relative change of letter height along the line; stretch_jitter: the same for width;
    tilt: rise of the whole line per unit of width; thick: a broad pen;
    ink, paper: RGB 0-255; shade: depth of uneven light, 0-1; grain: standard deviation of paper noise, 0-255;
    ruling: "none", "lines" or "grid"; blur_px: Gaussian radius in final pixels; jpeg_quality: None leaves it out;
    stretch: width of the letters against the font's own; stroke: how much thicker (above 0) or thinner the pen is,
    pressure: how much that changes along the line, both in standard deviations of the blurred stroke;
    elastic: how far points of one letter move against each other; strays: strokes of the lines above and below;
    outline: the line is cut out of its page along its letters, with white around it, as `prepare` cuts pages.
    """

    slant: float = 0.0
    wobble: float = 0.02
    size_jitter: float = 0.04
    stretch_jitter: float = 0.04
    tilt: float = 0.0
    thick: bool = False
    ink: tuple[int, int, int] = (30, 30, 60)
    paper: tuple[int, int, int] = (245, 243, 236)
    shade: float = 0.1
    grain: float = 4.0
    ruling: str = "none"
    blur_px: float = 0.4
    jpeg_quality: int | None = None
    stretch: float = 1.0
    stroke: float = 0.0
    pressure: float = 0.0
    elastic: float = 0.0
    strays: bool = False
    outline: bool = False


def random_hand(rng: np.random.Generator, strength: float = 1.0) -> Hand:
    """A hand drawn at random; `strength` 0 is clean print, 1 is a hurried hand in bad light."""
    ink = np.clip(rng.uniform(0, 90) + rng.uniform(0, 70) * rng.dirichlet((1, 1, 2)), 0, 130)
    paper = np.clip(rng.uniform(190, 255) + rng.normal(0, 8, 3), 160, 255)
    thick = bool(rng.random() < 0.2)
    stroke = float(rng.normal(0, 0.4) * strength)
    return Hand(
        slant=float(rng.normal(0.05, 0.16) * strength),
        wobble=float(abs(rng.normal(0, 0.05)) * strength),
        size_jitter=float(abs(rng.normal(0, 0.08)) * strength),
        stretch_jitter=float(abs(rng.normal(0, 0.12)) * strength),
        tilt=float(rng.normal(0, 0.012) * strength),
        thick=thick,
        ink=(int(ink[0]), int(ink[1]), int(ink[2])),
        paper=(int(paper[0]), int(paper[1]), int(paper[2])),
        shade=float(rng.uniform(0, 0.35) * strength),
        grain=float(rng.uniform(0, 10) * strength),
        ruling=str(rng.choice(["none", "none", "none", "lines", "grid"])),
        blur_px=float(rng.uniform(0, 1.1) * strength),
        jpeg_quality=int(rng.integers(30, 95)) if rng.random() < 0.4 else None,
        stretch=float(np.exp(rng.normal(0, 0.2) * strength)),
        stroke=-abs(stroke) if thick else stroke,  # a broad pen, pressed hard, would close every letter
        pressure=float(abs(rng.normal(0, 0.35)) * strength),
        elastic=float(abs(rng.normal(0, 0.025)) * strength),
        strays=bool(rng.random() < 0.25 * strength),
        outline=bool(rng.random() < 0.3 * strength),
    )


@cache
def load_font(path: Path) -> ImageFont.FreeTypeFont:
    """The font at the drawing size; OSError when Pillow cannot read the file."""
    return ImageFont.truetype(path, FONT_SIZE_PX)


@cache
def lacks(path: Path, character: str) -> bool:
    """Whether the font draws `character` as its "no such glyph" box, or draws nothing for a visible one."""
    if character.isspace():
        return False
    font = load_font(path)
    box = bytes(font.getmask("\uffff"))
    glyph = bytes(font.getmask(character))
    return not glyph or glyph == box


def draw_line(text: str, font: Path, hand: Hand, rng: np.random.Generator, height_px: int = 64) -> Image.Image:
    """One line of handwriting as an RGB picture, cropped like a photographed line, `height_px` high.

    Raises ValueError for a text that leaves no ink.
    """
    ink = warp_ink(ink_mask(text, font, hand.stretch), hand, rng)
    if hand.stroke or hand.pressure:
        ink = _press(ink, hand, rng)
    ink = _crop_with_margins(ink, rng)
    if hand.strays:
        ink = _add_strays(ink, font, rng)
    width_px = max(8, round(ink.width * height_px / ink.height))
    alpha = np.asarray(ink.resize((width_px, height_px), Image.Resampling.BOX), np.float32) / 255
    alpha = alpha * (1 - 0.25 * smooth_noise(rng, width_px, 6)[None, :])
    paper = _paper(hand, rng, height_px, width_px)
    if hand.outline:
        outside = _outside(alpha, rng)
        alpha, paper = alpha * ~outside, np.where(outside[..., None], np.float32(255), paper)
    picture = paper * (1 - alpha[..., None]) + np.asarray(hand.ink, np.float32) * alpha[..., None]
    if hand.grain:
        picture = picture + hand.grain * rng.standard_normal((height_px, width_px, 1), np.float32)
    image = Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8), "RGB")
    if hand.blur_px > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(hand.blur_px))
    if hand.jpeg_quality is not None:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=hand.jpeg_quality)
        image = Image.open(buffer).convert("RGB")
    return image


def ink_mask(text: str, path: Path, stretch: float = 1.0) -> Image.Image:
    """The text in white on black with room around it for the warp."""
    font = load_font(path)
    left, top, right, bottom = font.getbbox(text)
    if right <= left or bottom <= top:
        raise ValueError(f"the text {text!r} leaves no ink in {path.name}")
    room = FONT_SIZE_PX // 2
    glyphs = Image.new("L", (int(right - left) + 2 * room, int(bottom - top) + 2 * room))
    ImageDraw.Draw(glyphs).text((room - left, room - top), text, fill=255, font=font)
    if stretch != 1.0:
        glyphs = glyphs.resize((round(glyphs.width * stretch), glyphs.height), Image.Resampling.BILINEAR)
    return glyphs


def _press(mask: Image.Image, hand: Hand, rng: np.random.Generator) -> Image.Image:
    """A pen of another width, pressed harder here and there: the blurred stroke, cut at another level."""
    soft = np.asarray(mask.filter(ImageFilter.GaussianBlur(1.6)), np.float32) / 255
    inked = soft[np.asarray(mask) > 127]
    # About 0.3 for a hairline, 0.9 for a bold letter.
    thin, middle = np.quantile(inked, (0.25, 0.5)).tolist() if inked.size else (1.0, 1.0)
    soft = soft * max(1.0, 0.7 / thin)  # no stroke is pressed so lightly that it goes
    level = 0.45 - 0.16 * (hand.stroke + hand.pressure * smooth_noise(rng, mask.width, max(2, mask.width // 20)))
    ink = np.clip((soft - np.clip(level, 0.18 if middle < 0.75 else 0.4, 0.62)[None, :]) * 5 + 0.5, 0, 1)
    return Image.fromarray((ink * 255).astype(np.uint8))


def _add_strays(mask: Image.Image, path: Path, rng: np.random.Generator) -> Image.Image:
    """What a crop takes along of the neighbouring lines: the feet of letters above, the heads of letters below."""
    mask, font = mask.copy(), load_font(path)
    for top in (True, False):
        letters = "".join(rng.choice(list("руцщдзfgjpy" if top else "бвйёTldbhk"), 6))
        letters = (" " * int(rng.integers(1, 6))).join(letters)
        seen = int(rng.integers(2, 10))
        box = font.getbbox(letters)
        y = seen - box[3] if top else mask.height - seen - box[1]
        ImageDraw.Draw(mask).text((int(rng.integers(-60, max(1, mask.width))), y), letters, fill=255, font=font)
    return mask


def _outside(alpha: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Where the page was cut away: beyond a wavy distance above and below the ink nearby, bool like `alpha`."""
    height, width = alpha.shape
    inked = alpha > 0.3
    rows = np.arange(height)[:, None]
    tops = np.where(inked.any(0), inked.argmax(0), height // 2)
    bottoms = np.where(inked.any(0), height - 1 - inked[::-1].argmax(0), height // 2)
    reach = height // 2  # columns on either side that count as nearby
    top, bottom = (sliding_window_view(np.pad(edge, reach, "edge"), 2 * reach + 1) for edge in (tops, bottoms))
    knots = max(2, width // height)
    above, below = (height * (0.08 + 0.1 * smooth_noise(rng, width, knots)) for _ in range(2))
    return np.asarray((rows < top.min(1) - above) | (rows > bottom.max(1) + below))


def warp_ink(mask: Image.Image, hand: Hand, rng: np.random.Generator) -> Image.Image:
    """Stroke width, slant, tilt, wobble and jitter in one nearest-neighbour gather."""
    if hand.thick:
        mask = mask.filter(ImageFilter.MaxFilter(3))
    source = np.asarray(mask)
    height, width = source.shape
    size = FONT_SIZE_PX
    letters = max(2, width // (size // 2))  # knots of the smooth noise: about one per letter
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    lift = hand.wobble * size * smooth_noise(rng, width, letters) + hand.tilt * (x - width / 2)
    scale = 1 + hand.size_jitter * smooth_noise(rng, width, letters)
    # Slow enough that the mapping stays monotone: a letter may be narrow, it never folds over its neighbour.
    shift = hand.stretch_jitter * size * smooth_noise(rng, width, max(2, letters // 4))
    from_y = y / scale + lift + height / 2
    from_x = x + shift + hand.slant * y
    if hand.elastic:
        from_y = from_y + hand.elastic * size * _elastic_noise(rng, height, width)
        from_x = from_x + hand.elastic * size * _elastic_noise(rng, height, width)
    rows = np.clip(np.rint(from_y), 0, height - 1).astype(np.intp)
    columns = np.clip(np.rint(from_x), 0, width - 1).astype(np.intp)
    return Image.fromarray(source[rows, columns])


def _crop_with_margins(mask: Image.Image, rng: np.random.Generator) -> Image.Image:
    box = mask.getbbox()
    if box is None:
        raise ValueError("the text leaves no ink")
    low, high = 0.04 * FONT_SIZE_PX, 0.3 * FONT_SIZE_PX
    left, top, right, bottom = (float(side) for side in rng.uniform(low, high, 4))
    # crop() beyond the edge fills with zero, which is "no ink" here.
    return mask.crop((int(box[0] - left), int(box[1] - top), int(box[2] + right), int(box[3] + bottom)))


def smooth_noise(rng: np.random.Generator, length: int, knots: int) -> np.ndarray:
    """Noise in about [-1, 1] that changes smoothly, shape (length,)."""
    values = rng.uniform(-1, 1, knots + 2)
    position = np.linspace(0, knots + 1, length)
    fraction = position % 1
    blend = (1 - np.cos(np.pi * fraction)) / 2
    low = np.minimum(position.astype(int), knots)
    return np.asarray((1 - blend) * values[low] + blend * values[low + 1], np.float32)


def _elastic_noise(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Noise of standard deviation about 1 that changes within a letter, shape (height, width)."""
    knots = rng.standard_normal((max(2, height * 4 // FONT_SIZE_PX), max(2, width * 4 // FONT_SIZE_PX))).astype(
        np.float32
    )
    return np.asarray(Image.fromarray(knots).resize((width, height), Image.Resampling.BICUBIC))


def _paper(hand: Hand, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Tinted paper in uneven light with its ruling, float32 (height, width, 3)."""
    across = smooth_noise(rng, width, 2)[None, :]
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * rng.uniform(-1, 1)
    light = 1 - hand.shade * (0.5 + 0.35 * across + 0.15 * down)
    paper = np.asarray(hand.paper, np.float32) * light[..., None]
    if hand.ruling != "none":
        period = int(rng.integers(height // 3, height))
        offset = int(rng.integers(0, period))
        paper[offset::period] *= rng.uniform(0.7, 0.95)
        if hand.ruling == "grid":
            paper[:, offset % period :: period] *= rng.uniform(0.7, 0.95)
    return paper
