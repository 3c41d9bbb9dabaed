"""What is held out is like the rest, as far as whole groups allow it."""

from __future__ import annotations

import math
import random

import pytest

from ownhand.dataset.strata import LENGTH_TOLERANCE, Stratum, choose_groups


def strata(texts: list[list[str]]) -> dict[int, Stratum]:
    return {number: Stratum.of(group, 0) for number, group in enumerate(texts)}


def mean_log(groups: set[int], of: dict[int, Stratum]) -> float:
    return sum(of[group].log_length for group in groups) / sum(of[group].samples for group in groups)


def test_a_character_of_several_groups_is_never_held_out_completely() -> None:
    texts = [["аб"], ["аё"], ["аё"], ["аж"], ["ав"], ["аг"], ["ад"], ["ае"]]
    for seed in range(50):
        order = random.Random(seed).sample(range(8), 8)
        chosen = choose_groups(order, strata(texts), wanted=4)
        assert len(chosen) == 4
        assert not {1, 2} <= chosen


def test_a_character_of_one_group_only_does_not_keep_it_from_validation() -> None:
    assert choose_groups([0, 1, 2], strata([["аё"], ["а"], ["а"]]), wanted=1) == {0}


def test_without_need_groups_are_taken_in_order() -> None:
    texts = [["слово " * length] for length in (4, 5, 4, 5, 4, 5, 4, 5, 4, 5, 4, 5)]
    assert choose_groups(list(range(12)), strata(texts), wanted=6) == set(range(6))


@pytest.mark.parametrize("long_first", [False, True])
def test_a_choice_of_long_or_short_texts_is_exchanged_until_the_lengths_agree(long_first: bool) -> None:
    texts = [["и" * (60 if (number < 20) is long_first else 10)] for number in range(40)]
    of = strata(texts)
    chosen = choose_groups(list(range(40)), of, wanted=10)
    assert len(chosen) == 10
    assert abs(mean_log(chosen, of) - mean_log(set(of), of)) <= LENGTH_TOLERANCE
    plain = set(range(10))
    assert abs(mean_log(plain, of) - mean_log(set(of), of)) > 5 * LENGTH_TOLERANCE
    assert len(plain - chosen) <= 6  # no more than needed


def test_an_exchange_keeps_the_number_of_samples_and_the_last_of_each_character() -> None:
    texts = [["и" * 60, "и" * 60] if number < 10 else ["и" * 10, f"{'и' * 9}ё"] for number in range(20)]
    texts[10:] = [["и" * 10, "и" * 10] if number else ["и" * 10, "ё" * 10] for number in range(10)]
    texts[3] = ["ё" * 60, "и" * 60]
    of = strata(texts)
    chosen = choose_groups(list(range(20)), of, wanted=10)
    assert sum(of[group].samples for group in chosen) == 10
    assert not {3, 10} <= chosen


def test_with_few_groups_nothing_is_exchanged() -> None:
    texts = [["и" * 60], ["и" * 60], ["и"], ["и"], ["и"], ["и"]]
    assert choose_groups(list(range(6)), strata(texts), wanted=2) == {0, 1}


def test_the_smallest_group_is_taken_where_each_is_more_than_twice_the_share() -> None:
    assert choose_groups([0, 1], strata([["а"] * 9, ["б"] * 7]), wanted=1) == {1}


def test_the_length_of_a_group_is_the_sum_of_logarithms() -> None:
    assert Stratum.of(["abc", ""], 1) == Stratum(2, math.log(4), frozenset("abc"), 1)
