"""Duplicates: the same picture under another name, re-saved or resized.

Such pictures must stand on one side of the split. Each picture gets a perceptual hash of 32 bytes; pictures with close
hashes are then compared by their pixels. Both look at the same thing: grey values without the slow change of
light and paper, cut off where they are strong, so that a dark edge of the desk or a bright lamp does not decide.

Measured on drawn lines of one hand and on pages under one fixed camera: re-saved (JPEG quality 30 and more), resized
(0.37 to 2 times), brightened and grey copies have a similarity of 0.97 and more, other pictures of 0.79 and less, the
same text written again of 0.84 and less.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ownhand.images import ConvertedPicture, open_image
from ownhand.progress import track

SAME_PICTURE = 0.92  # similarity from which on two pictures are taken for one
CANDIDATE_BITS = 64  # of 256 that may differ; copies were seen to differ in up to 61, other lines in 80 and more
CANDIDATE_ASPECT = 0.06  # relative difference of aspect ratios: a low line, halved, is rounded to whole pixels
GRID = (64, 32)
GRID_CELLS = (256, 8192)  # of the comparison by pixels, at least and at most
PIXELS_PER_CELL = 12  # of the smaller picture: finer, and resizing itself shows
LIGHT_CELLS = 4  # what changes over more cells than this counts as light


class DisjointSets:
    """Which of `count` things belong together (union-find)."""

    def __init__(self, count: int) -> None:
        self.parents = list(range(count))

    def find(self, i: int) -> int:
        """The representative of i's set."""
        while self.parents[i] != i:
            self.parents[i] = self.parents[self.parents[i]]
            i = self.parents[i]
        return i

    def join(self, i: int, j: int) -> bool:
        """Make one set of the sets of i and j; False when they were one already."""
        i, j = sorted((self.find(i), self.find(j)))
        self.parents[j] = i
        return i != j


def perceptual_hash(image: Image.Image) -> bytes:
    """32 bytes that differ in few bits for copies of a picture: the signs of 256 random projections of its cells.

    Computed in whole numbers, so that it does not depend on the number of threads.
    """
    cells = np.rint(_without_light(image, GRID) * 100).astype(np.int32).ravel()
    # einsum: for whole numbers many times faster than the product of matrices, and without threads of its own.
    return np.packbits(np.einsum("c,dc->d", cells, _directions()) > 0).tobytes()


@cache
def _directions() -> np.ndarray:
    """int32 (256, cells), each 1 or -1."""
    drawn = np.random.default_rng(0).choice(np.array([-1, 1], np.int32), (GRID[0] * GRID[1], 256))
    return np.ascontiguousarray(drawn.T)


def similarity(one: ConvertedPicture, other: ConvertedPicture) -> float:
    """How alike two pictures are, -1 to 1: the correlation of their pixels at a size that both can show."""
    smaller = min(one.width_px * one.height_px, other.width_px * other.height_px)
    cells = int(np.clip(smaller // PIXELS_PER_CELL, *GRID_CELLS))
    columns = max(1, round((cells * one.width_px / one.height_px) ** 0.5))
    grid = (columns, max(1, round(cells / columns)))
    return float(np.mean(_pixels(one.path, grid) * _pixels(other.path, grid)))


@lru_cache(maxsize=1024)
def _pixels(path: Path, grid: tuple[int, int]) -> np.ndarray:
    return _without_light(open_image(path), grid)


def _without_light(image: Image.Image, grid: tuple[int, int]) -> np.ndarray:
    """float32 (rows, columns) with mean 0 and variance 1; all zero for an empty picture."""
    grey = image.convert("L").resize(grid, Image.Resampling.BILINEAR)
    cells = Image.fromarray(np.asarray(grey, np.float32))
    coarse = (max(1, round(grid[0] / LIGHT_CELLS)), max(1, round(grid[1] / LIGHT_CELLS)))
    light = cells.resize(coarse, Image.Resampling.BOX).resize(grid, Image.Resampling.BILINEAR)
    detail = np.asarray(cells) - np.asarray(light)
    strong = 3 * float(np.median(np.abs(detail)))
    detail = np.clip(detail, -strong, strong)
    detail = detail - detail.mean()
    return np.asarray(detail / max(float(detail.std()), 1e-6))


def find_same_pictures(pictures: Sequence[ConvertedPicture], recurring: Sequence[bool] = ()) -> list[tuple[int, int]]:
    """Pairs of indices that connect all pictures which are the same: equal files, or equal but for re-saving.

    Three copies give two pairs. Only pictures with close hashes are opened. recurring: for each picture whether
    its text recurs (`repeats.py`); a steady hand or a printed heading makes such pictures alike without their being
    copies, so two of them are the same only when their files are.
    """
    sets = DisjointSets(len(pictures))
    first: dict[str, int] = {}
    pairs = [(first.setdefault(picture.sha256, i), i) for i, picture in enumerate(pictures)]
    pairs = [(i, j) for i, j in pairs if sets.join(i, j)]
    for i, j in close_hashes(pictures):
        if recurring and recurring[i] and recurring[j]:
            continue
        if sets.find(i) != sets.find(j) and similarity(pictures[i], pictures[j]) >= SAME_PICTURE:
            sets.join(i, j)
            pairs.append((i, j))
    return pairs


def close_hashes(pictures: Sequence[ConvertedPicture]) -> Iterator[tuple[int, int]]:
    """Pairs of indices i < j whose bits are close; each picture is compared with those of about its own shape only."""
    hashes = _Hashes(pictures, range(len(pictures)))
    for at, i in enumerate(track(hashes.order, what="copies of pictures", unit="picture", delay=2)):
        for j in hashes.close_to(pictures[i], at + 1):
            yield min(i, j), max(i, j)


def close_hashes_across(
    pictures: Sequence[ConvertedPicture], some: Sequence[int], others: Sequence[int]
) -> Iterator[tuple[int, int]]:
    """Pairs of an index of `some` and one of `others` whose bits are close."""
    hashes = _Hashes(pictures, others)
    for i in some:
        for j in hashes.close_to(pictures[i], 0):
            yield i, j


class _Hashes:
    """Perceptual hashes in the order of the pictures' shapes; `order` holds the indices of the pictures."""

    def __init__(self, pictures: Sequence[ConvertedPicture], indices: Sequence[int]) -> None:
        self.order = sorted(indices, key=lambda i: _aspect(pictures[i]))
        self.aspects = np.array([_aspect(pictures[i]) for i in self.order])
        rows = np.array([_words(pictures[i]) for i in self.order], np.uint64).reshape(-1, 4)
        self.words = np.ascontiguousarray(rows.T)  # word by word: adding up along short rows is slow

    def close_to(self, picture: ConvertedPicture, start: int) -> list[int]:
        """The indices, from place `start` of the order on, of pictures whose shape and bits are close."""
        aspect = _aspect(picture)
        first = max(start, int(np.searchsorted(self.aspects, aspect - CANDIDATE_ASPECT, side="left")))
        end = int(np.searchsorted(self.aspects, aspect + CANDIDATE_ASPECT, side="right"))
        differing = np.zeros(max(0, end - first), np.uint16)
        for word, own in zip(self.words, _words(picture), strict=True):
            differing += np.bitwise_count(word[first:end] ^ own)
        return [self.order[first + int(offset)] for offset in np.flatnonzero(differing <= CANDIDATE_BITS)]


def _aspect(picture: ConvertedPicture) -> float:
    return math.log(picture.width_px / picture.height_px)


def _words(picture: ConvertedPicture) -> np.ndarray:
    return np.frombuffer(picture.bits, np.uint64)
