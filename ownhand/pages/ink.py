"""Ink: what is darker than the paper around it, and its strokes, as arrays (rows, columns).

A band is a picture along the course of a line: its rows are distances from the course.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

PATCH_PX = 32  # of paper, on the copy: wider than strokes
STROKE_PX = 25  # on the copy: what is dark and wider is no stroke; odd
PAPER_SHARE = 0.85  # of a patch's pixels that are darker than its paper


def measure_ink(image: Image.Image) -> np.ndarray:
    """How much darker than the paper around it each pixel is, float32 (height, width), 0-1, whatever the light.

    What is dark and wider than strokes, such as a table beside the sheet, is no ink but dark paper.
    """
    grey = np.asarray(image.convert("L"), np.float32)
    height, width = grey.shape
    rows, columns = -(-height // PATCH_PX), -(-width // PATCH_PX)
    padded = np.pad(grey, ((0, rows * PATCH_PX - height), (0, columns * PATCH_PX - width)), mode="edge")
    patches = padded.reshape(rows, PATCH_PX, columns, PATCH_PX).swapaxes(1, 2).reshape(rows, columns, -1)
    levels = Image.fromarray(np.quantile(patches, PAPER_SHARE, axis=2).astype(np.float32))
    size = columns * PATCH_PX, rows * PATCH_PX
    light = np.asarray(levels.resize(size, Image.Resampling.BILINEAR))[:height, :width]
    closed = grey  # strokes are filled from both sides, wide dark areas stay
    for pick, ends in ((np.maximum, 0.0), (np.minimum, 255.0)):
        for axis in (0, 1):
            closed = _running(pick, closed, axis, ends)
    return np.asarray(np.clip(1 - grey / np.maximum(np.minimum(light, closed), 1), 0, 1))


def _running(pick: np.ufunc, values: np.ndarray, axis: int, ends: float) -> np.ndarray:
    """The largest or smallest of the STROKE_PX values around each, along an axis."""
    half = STROKE_PX // 2
    padded = np.pad(values, [(half, half) if one == axis else (0, 0) for one in (0, 1)], constant_values=ends)
    padded = padded.swapaxes(0, axis)
    span = 1
    while span < STROKE_PX:
        step = min(span, STROKE_PX - span)
        padded = pick(padded[:-step], padded[step:])
        span += step
    return np.asarray(padded.swapaxes(0, axis))


def strokes(ink: np.ndarray, reach: int) -> np.ndarray:
    """Ink without what is one pixel thin, such as the traces of ruling, unless it goes on from thicker strokes.

    reach: for how many pixels it may go on so.
    """
    squares = np.pad(ink[1:, 1:] & ink[1:, :-1] & ink[:-1, 1:] & ink[:-1, :-1], 1)
    kept = squares[1:, 1:] | squares[1:, :-1] | squares[:-1, 1:] | squares[:-1, :-1]
    for _ in range(reach):
        padded = np.pad(kept, 1)
        rows = padded[:-2] | padded[1:-1] | padded[2:]
        kept = (rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]) & ink
    return np.asarray(kept) if kept.sum() >= 0.5 * ink.sum() else ink  # a pen that is so thin


def blurred(values: np.ndarray, width: float, axis: int) -> np.ndarray:
    """Averages over a window that ends about `width` to both sides (two boxes, nearly a Gaussian), along an axis."""
    half = max(0, round(width / 2))
    for _ in range(2):
        padded = np.pad(values, [(half + 1, half) if one == axis else (0, 0) for one in (0, 1)]).swapaxes(0, axis)
        counted = np.cumsum(padded, axis=0)
        values = ((counted[2 * half + 1 :] - counted[: -2 * half - 1]) / (2 * half + 1)).swapaxes(0, axis)
    return values


def spread(ink: np.ndarray, columns: int) -> np.ndarray:
    """Ink widened by so many columns to both sides."""
    counted = np.cumsum(np.pad(ink.astype(np.int32), ((0, 0), (columns + 1, columns))), axis=1)
    return np.asarray(counted[:, 2 * columns + 1 :] > counted[:, : -2 * columns - 1])


def extent(ink: np.ndarray, least: int, gap: int) -> np.ndarray:
    """In each column the last row with ink before the first gap of so many rows beyond row `least`; at least that."""
    rows = len(ink)
    padded = np.pad(ink[least:].astype(np.int32), ((1, gap), (0, 0)))
    counted = np.cumsum(padded, axis=0)
    ended = counted[gap:] == counted[:-gap]  # no ink in the `gap` rows from here on
    stop = np.argmax(ended, axis=0)  # there is always one: the padding
    return np.asarray(np.minimum(least + np.maximum(stop - 1, 0), rows - 1), float)
