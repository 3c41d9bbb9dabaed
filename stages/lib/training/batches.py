"""Batches of like length: padding is work for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

BATCHES_SORTED = 50  # a window of this many batches is sorted: enough for like lengths, few enough to stay random


class LengthBuckets(Sampler[int]):
    """Every index once an epoch, in an order whose consecutive batches hold samples of like length.

    The samples are shuffled, sorted by length within windows of 50 batches, cut into batches, and the batches are
    shuffled. The order depends on seed and epoch alone, so that a resumed run sees the batches of an uninterrupted one.
    The first batch of the run is the one with the longest sample: where memory is short, the first step says so.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        window = BATCHES_SORTED * self.batch_size
        for start in range(0, len(shuffled), window):
            part = sorted(shuffled[start : start + window], key=lambda i: self.lengths[i], reverse=True)
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        rest = [batch for batch in batches if len(batch) < self.batch_size]  # last, or all behind it would shift
        order = [whole[i] for i in torch.randperm(len(whole), generator=generator).tolist()]
        if self.epoch == 0:
            order.sort(key=lambda batch: max(self.lengths[i] for i in batch) < max(self.lengths))
        return iter([i for batch in order + rest for i in batch])
