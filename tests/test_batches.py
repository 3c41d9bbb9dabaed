"""Batches of like length: nothing lost, little padding, the same batches for the same seed and epoch."""

from __future__ import annotations

import itertools
import random

import pytest
import torch

from ownhand.training.batches import LengthBuckets, count_batches, cut_in_order, length_classes, padded_tokens

LENGTHS = random.Random(1).choices(range(40, 400), k=333)
BUDGETS = [None, 400, 1600]


def batches(sampler: LengthBuckets) -> list[list[int]]:
    return list(sampler)


def padding(parts: list[list[int]]) -> float:
    return sum(padded_tokens(part, LENGTHS) for part in parts) / sum(LENGTHS)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("batch_size", [1, 8, 400])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_sample_comes_once_an_epoch_and_every_epoch_has_as_many_batches(
    batch_size: int, epoch: int, budget: int | None
) -> None:
    sampler = LengthBuckets(LENGTHS, batch_size, 3, budget)
    sampler.set_epoch(epoch)
    assert sorted(i for batch in sampler for i in batch) == list(range(len(LENGTHS)))
    assert len(batches(sampler)) == len(sampler) == count_batches(LENGTHS, batch_size, budget)


def test_padding_costs_less_than_a_tenth_where_a_random_order_costs_half() -> None:
    order = list(range(len(LENGTHS)))
    random.Random(2).shuffle(order)
    assert padding([order[i : i + 8] for i in range(0, len(order), 8)]) > 1.5
    assert padding(batches(LengthBuckets(LENGTHS, 8, seed=3))) < 1.1
    assert padding(batches(LengthBuckets(LENGTHS, 64, 3, batch_tokens=1600))) < 1.1


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_batches_depend_on_seed_and_epoch_alone(budget: int | None) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        sampler = LengthBuckets(LENGTHS, 8, seed, budget)
        sampler.set_epoch(epoch)
        return batches(sampler)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3) and order(1, 2) != order(2, 2)


def test_within_a_budget_samples_meet_others_in_the_next_epoch() -> None:
    epochs = []
    for epoch in (2, 3):
        sampler = LengthBuckets(LENGTHS, 8, 1, batch_tokens=1600)
        sampler.set_epoch(epoch)
        epochs.append({frozenset(batch) for batch in sampler})
    assert len(epochs[0] & epochs[1]) < len(epochs[0]) / 4


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_first_batch_of_the_run_has_the_most_tokens(budget: int | None) -> None:
    tokens = [padded_tokens(batch, LENGTHS) for batch in LengthBuckets(LENGTHS, 8, 3, budget)]
    assert tokens[0] == max(tokens)


@pytest.mark.parametrize("budget", BUDGETS)
def test_batches_are_not_sorted_by_length_over_the_epoch(budget: int | None) -> None:
    parts = batches(LengthBuckets(LENGTHS, 8, 3, budget))[1:]
    means = [sum(LENGTHS[i] for i in part) / len(part) for part in parts]
    falls = sum(a > b for a, b in itertools.pairwise(means))
    assert 0.3 < falls / len(means) < 0.7


@pytest.mark.parametrize("batch_size", [8, 1000])
def test_no_batch_exceeds_its_budget_and_few_are_far_below(batch_size: int) -> None:
    parts = batches(LengthBuckets(LENGTHS, batch_size, 3, batch_tokens=1600))
    assert all(padded_tokens(part, LENGTHS) <= 1600 and len(part) <= batch_size for part in parts)
    if batch_size == 1000:
        assert sum(padded_tokens(part, LENGTHS) < 1000 for part in parts) <= 1, "the last of the shortest"


def test_a_class_holds_whole_batches_of_like_length() -> None:
    classes = length_classes(LENGTHS, 1000, 1600)
    for members, size in classes[:-1]:
        longest = max(LENGTHS[i] for i in members)
        assert size == 1600 // longest and len(members) % size == 0
        assert sum(LENGTHS[i] <= 0.875 * longest for i in members) < size, "only to fill its last batch"
    assert length_classes([500], 4, 100) == [([0], 1)]


@pytest.mark.parametrize("budget", BUDGETS)
def test_several_processes_share_every_batch_and_none_has_nothing_to_do(
    budget: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LengthBuckets(LENGTHS, 8, 3, budget)
    alone = batches(whole)
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in "012":
        monkeypatch.setenv("RANK", rank)
        parts.append(batches(whole))
    for batch, *shares in zip(alone, *parts, strict=True):
        assert all(shares)
        assert sorted(i for share in shares for i in share if i < len(LENGTHS)) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_batches_for_measuring_keep_the_order_and_the_budget() -> None:
    assert cut_in_order([9, 3, 4, 5], 2, None) == [[0, 1], [2, 3]]
    assert cut_in_order([9, 3, 4, 5, 20], 8, 12) == [[0], [1, 2], [3], [4]]
    assert cut_in_order([], 4, None) == []


def test_without_a_budget_the_order_is_one_that_is_known() -> None:
    """A change here would change every adapter that was ever trained from these seeds."""
    generator = torch.Generator().manual_seed(3 * 1_000_003 + 1)
    shuffled = torch.randperm(5, generator=generator).tolist()
    by_length = sorted(shuffled, key=lambda i: [10, 20, 30, 40, 50][i], reverse=True)
    full = [by_length[0:2], by_length[2:4]]
    order = [full[i] for i in torch.randperm(2, generator=generator).tolist()]
    sampler = LengthBuckets([10, 20, 30, 40, 50], 2, seed=3)
    sampler.set_epoch(1)
    assert batches(sampler) == [*order, by_length[4:]]
