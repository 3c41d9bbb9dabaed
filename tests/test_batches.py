"""Batches of like length: nothing lost, little padding, the same order for the same seed and epoch."""

from __future__ import annotations

import itertools
import random

import pytest

from stages.lib.training.batches import LengthBuckets

LENGTHS = random.Random(1).choices(range(40, 400), k=333)


def batches(sampler: LengthBuckets) -> list[list[int]]:
    order = list(sampler)
    return [order[i : i + sampler.batch_size] for i in range(0, len(order), sampler.batch_size)]


@pytest.mark.parametrize("batch_size", [1, 8, 400])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_sample_comes_once_an_epoch(batch_size: int, epoch: int) -> None:
    sampler = LengthBuckets(LENGTHS, batch_size, seed=3)
    sampler.set_epoch(epoch)
    assert sorted(sampler) == list(range(len(LENGTHS))) and len(sampler) == len(LENGTHS)


def test_padding_costs_less_than_a_tenth_where_a_random_order_costs_half() -> None:
    def cost(parts: list[list[int]]) -> float:
        return sum(max(LENGTHS[i] for i in part) * len(part) for part in parts) / sum(LENGTHS)

    order = list(range(len(LENGTHS)))
    random.Random(2).shuffle(order)
    assert cost([order[i : i + 8] for i in range(0, len(order), 8)]) > 1.5
    assert cost(batches(LengthBuckets(LENGTHS, 8, seed=3))) < 1.1


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = LengthBuckets(LENGTHS, 8, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_the_first_batch_of_the_run_holds_the_longest_sample() -> None:
    assert LENGTHS.index(max(LENGTHS)) in batches(LengthBuckets(LENGTHS, 8, seed=3))[0]


def test_batches_are_not_sorted_by_length_over_the_epoch() -> None:
    means = [sum(LENGTHS[i] for i in part) / len(part) for part in batches(LengthBuckets(LENGTHS, 8, seed=3))[1:]]
    falls = sum(a > b for a, b in itertools.pairwise(means))
    assert 0.3 < falls / len(means) < 0.7
