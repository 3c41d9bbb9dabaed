"""How sure a rate is: intervals and a p-value that respect pages.

Lines of one page share its light, its pen and its subject, so they are not independent; pages are drawn, not lines.
Base model and adapter read the same pages and are drawn together (paired), which makes their difference much sharper
than two separate intervals. Counts stay integers until the one division, so results do not depend on the machine.

Sources: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 (grouped data), 13 (percentile
intervals) and 15 (permutation tests); Phipson and Smyth (2010) for the "+ 1" of a sampled p-value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUMBERS_AT_ONCE = 4_000_000  # of a block of draws, 32 MB: memory stays flat for any number of pages

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """The lower and upper end of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class PairedRates:
    """Errors of a reader and of the adapter and their common n (characters or words), one entry per page each."""

    reader: Counts
    adapter: Counts
    n: Counts

    def __post_init__(self) -> None:
        if not len(self.reader) == len(self.adapter) == len(self.n) > 0:
            raise ValueError("reader, adapter and n need one entry per page, and at least one page")
        if (self.n <= 0).any():
            raise ValueError("every page needs at least one character or word of transcription")


@dataclass(frozen=True)
class PairedIntervals:
    """Intervals of both rates and of reader minus adapter."""

    reader: Interval
    adapter: Interval
    difference: Interval


def add_by_page(pages: Sequence[str], values: Sequence[int]) -> Counts:
    """Sums of `values` per page, pages in sorted order."""
    names, index = np.unique(np.array(pages), return_inverse=True)
    sums: Counts = np.zeros(len(names), np.int64)
    np.add.at(sums, index, np.asarray(values, np.int64))
    return sums


def bootstrap(rates: PairedRates, samples: int, confidence_level: float, seed: int) -> PairedIntervals:
    """Percentile intervals from `samples` draws of pages with replacement, the same draws for both.

    With few pages (below about 20) percentile intervals are somewhat too narrow; the report says so.
    """
    counts = np.stack([rates.reader, rates.adapter, rates.n], axis=1)  # (pages, 3)
    sums = np.concatenate([weights @ counts for weights in draw_pages(len(counts), samples, seed)])  # (samples, 3)
    reader, adapter = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
    tail = (1 - confidence_level) / 2

    def interval(values: NDArray[np.float64]) -> Interval:
        low, high = np.quantile(values, [tail, 1 - tail])
        return Interval(float(low), float(high))

    return PairedIntervals(interval(reader), interval(adapter), interval(reader - adapter))


def permutation_p_value(rates: PairedRates, samples: int, seed: int) -> float:
    """How often chance alone gives a difference at least this large, in either direction.

    Under "the adapter changes nothing" the labels reader and adapter of a page could be swapped. All swaps are tried
    where there are at most `samples` of them, else `samples` random ones. The smallest value that p pages can give is
    2 / 2**p, so five pages never get below 0.06.
    """
    differences = rates.reader - rates.adapter
    observed = abs(int(differences.sum()))
    pages = len(differences)
    if pages < 63 and 2**pages <= samples:
        swaps = (np.arange(2**pages)[:, None] >> np.arange(pages)) & 1  # (2**pages, pages)
        return float(np.mean(np.abs((1 - 2 * swaps) @ differences) >= observed))
    rng = np.random.default_rng(seed)
    as_large = 0
    for size in _block_sizes(pages, samples):
        signs = 1 - 2 * rng.integers(0, 2, (size, pages))
        as_large += int(np.count_nonzero(np.abs(signs @ differences) >= observed))
    return (as_large + 1) / (samples + 1)


def draw_pages(pages: int, samples: int, seed: int) -> Iterator[Counts]:
    """Blocks (draws, pages) of how often each page was drawn; every row adds up to `pages`."""
    rng = np.random.default_rng(seed)
    for size in _block_sizes(pages, samples):
        yield rng.multinomial(pages, np.full(pages, 1 / pages), size)


def _block_sizes(pages: int, samples: int) -> Iterator[int]:
    block = max(1, NUMBERS_AT_ONCE // pages)
    for start in range(0, samples, block):
        yield min(block, samples - start)
