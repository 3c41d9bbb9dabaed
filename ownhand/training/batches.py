"""Batches: samples of like length, for padding is work for nothing, made into tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

from ownhand import processes
from ownhand.model.sequence import SpecialTokens, as_image_outputs, pad_batch
from ownhand.model.views import pixel_inputs

BATCHES_SORTED = 50  # a window of this many batches is sorted: enough for like lengths, few enough to stay random
LIKE_LENGTH = 0.875  # of the longest of a class: hardly more than an eighth of a batch is padding


class LengthBuckets(Sampler[list[int]]):
    """Batches of indices into `lengths` (tokens), every index once an epoch, samples of like length together.

    With a number of sequences per batch, the samples are shuffled, sorted by length within windows of 50 batches, cut,
    and the batches are shuffled. With a budget of tokens (`batch_tokens`, padding included; batch_size is then the most
    sequences), they are cut within classes of like length, which are the same in every epoch: what is shuffled is who
    shares a batch with whom, and the number of batches stays.

    The batches depend on seed and epoch alone, so that a resumed run sees those of an uninterrupted one. The first of
    the run is the one with the most tokens: where memory is short, the first step says so. Of several processes each
    gets its part of every batch; index + len(lengths) stands for a sample that only keeps a process busy that has no
    part in a small batch: its labels do not count.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, batch_tokens: int | None = None) -> None:
        self.lengths = lengths
        self.batch_size = batch_size
        self.batch_tokens = batch_tokens
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return count_batches(self.lengths, self.batch_size, self.batch_tokens)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in self.whole_batches():
            yield processes.share(batch) or [batch[0] + len(self.lengths)]

    def whole_batches(self) -> list[list[int]]:
        """The batches of this epoch, before they are shared out among processes."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.batch_tokens is None:
            batches = self._cut_windows(generator)
            batches.sort(key=lambda batch: len(batch) < self.batch_size)
            full = sum(len(batch) == self.batch_size for batch in batches)  # what is smaller comes last
        else:
            batches = self._cut_classes(self.batch_tokens, generator)
            full = len(batches)
        order = [batches[i] for i in torch.randperm(full, generator=generator).tolist()]
        if self.epoch == 0 and order:
            tokens = [padded_tokens(batch, self.lengths) for batch in order]
            order.sort(key=lambda batch: padded_tokens(batch, self.lengths) < max(tokens))
        return order + batches[full:]

    def _cut_windows(self, generator: torch.Generator) -> list[list[int]]:
        shuffled = torch.randperm(len(self.lengths), generator=generator).tolist()
        batches: list[list[int]] = []
        window = BATCHES_SORTED * self.batch_size
        for start in range(0, len(shuffled), window):
            part = sorted(shuffled[start : start + window], key=lambda i: self.lengths[i], reverse=True)
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        return batches

    def _cut_classes(self, batch_tokens: int, generator: torch.Generator) -> list[list[int]]:
        batches: list[list[int]] = []
        for members, size in length_classes(self.lengths, self.batch_size, batch_tokens):
            shuffled = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
            batches += [shuffled[i : i + size] for i in range(0, len(shuffled), size)]
        return batches


def length_classes(lengths: Sequence[int], batch_size: int, batch_tokens: int) -> list[tuple[list[int], int]]:
    """(indices, sequences per batch) of each class of like length, the longest first.

    As many sequences as the longest of the class allows: `batch_tokens` // its length, at most batch_size, at least 1.
    A class holds whole batches, so that only the last one, that of the shortest sequences, leaves a smaller batch.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    classes = []
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        size = sequences_within(longest, batch_size, batch_tokens)
        end = start
        while end < len(order) and lengths[order[end]] > LIKE_LENGTH * longest:
            end += size
        classes.append((order[start:end], size))
        start = end
    return classes


def sequences_within(tokens: int, batch_size: int, batch_tokens: int | None) -> int:
    """How many sequences of so many tokens a batch holds: at least 1."""
    return batch_size if batch_tokens is None else max(1, min(batch_size, batch_tokens // tokens))


def count_batches(lengths: Sequence[int], batch_size: int, batch_tokens: int | None) -> int:
    """How many batches an epoch has."""
    if batch_tokens is None:
        return math.ceil(len(lengths) / batch_size)
    return sum(math.ceil(len(members) / size) for members, size in length_classes(lengths, batch_size, batch_tokens))


def padded_tokens(batch: Sequence[int], lengths: Sequence[int]) -> int:
    """Tokens of a batch with its padding."""
    return len(batch) * max(lengths[i] for i in batch)


def cut_in_order(lengths: Sequence[int], batch_size: int, batch_tokens: int | None) -> list[list[int]]:
    """Batches of neighbours, for measuring: as many sequences as fit, in the order in which they come."""
    batches: list[list[int]] = []
    for i, length in enumerate(lengths):
        if batches:
            longest = max(length, *(lengths[j] for j in batches[-1]))
            if len(batches[-1]) < sequences_within(longest, batch_size, batch_tokens):
                batches[-1].append(i)
                continue
        batches.append([i])
    return batches


class VisionCollator:
    """Samples with `image_id`, `input_ids`, `labels` and either `vision_tokens` or `views` become one batch.

    Vision tokens, (tokens, width) each, come from the cache; views are for a model whose vision tower is trained, and
    become pixels of `dtype`. A module-level class without open files, so that a spawned process can have it.
    """

    def __init__(self, special: SpecialTokens, dtype: torch.dtype) -> None:
        self.special = special
        self.dtype = dtype

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        for sample in samples:
            expected = sample["input_ids"].count(self.special.image)
            seen = sample["views"].tokens if "views" in sample else len(sample["vision_tokens"])
            if expected != seen:
                raise ValueError(
                    f"sample {sample['image_id']}: {expected} image ids but {seen} vision tokens; "
                    "delete data/features and encode again"
                )
        batch: dict[str, Any] = pad_batch(
            [sample["input_ids"] for sample in samples], self.special.pad, [sample["labels"] for sample in samples]
        )
        batch["image_ids"] = [sample["image_id"] for sample in samples]
        if "views" in samples[0]:
            return batch | pixel_inputs([sample["views"] for sample in samples], self.dtype)
        return batch | {"mm_encoder_outputs": as_image_outputs([sample["vision_tokens"] for sample in samples])}
