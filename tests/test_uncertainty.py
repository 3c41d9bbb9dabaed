"""Intervals and the p-value: what they must do whatever the numbers are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ownhand.evaluation import uncertainty
from ownhand.evaluation.uncertainty import PairedRates, add_by_page, bootstrap, permutation_p_value


def rates(base: list[int], adapter: list[int], n: list[int]) -> PairedRates:
    return PairedRates(*(np.array(values, np.int64) for values in (base, adapter, n)))


@pytest.fixture
def noisy() -> PairedRates:
    rng = np.random.default_rng(0)
    n = rng.integers(60, 120, 40)
    base = rng.binomial(n, 0.3)
    return PairedRates(base, rng.binomial(base, 0.5), n)


def test_values_are_added_by_page_in_order_of_their_names() -> None:
    assert add_by_page(["b", "a", "b"], [1, 2, 4]).tolist() == [2, 5]


def test_the_same_seed_gives_the_same_interval_and_another_seed_another(noisy: PairedRates) -> None:
    first = bootstrap(noisy, 500, 0.95, seed=3)
    assert bootstrap(noisy, 500, 0.95, seed=3) == first
    assert bootstrap(noisy, 500, 0.95, seed=4) != first


def test_an_interval_holds_the_rate_and_grows_with_the_confidence_level(noisy: PairedRates) -> None:
    rate = float(noisy.adapter.sum() / noisy.n.sum())
    narrow, wide = (bootstrap(noisy, 2000, level, seed=1).adapter for level in (0.8, 0.99))
    assert wide.low < narrow.low < rate < narrow.high < wide.high


def test_pages_that_are_all_alike_leave_no_uncertainty() -> None:
    intervals = bootstrap(rates([30] * 6, [10] * 6, [100] * 6), 200, 0.95, seed=1)
    assert (intervals.reader.low, intervals.reader.high) == (0.3, 0.3)
    assert intervals.difference.low == pytest.approx(0.2) == intervals.difference.high


def test_the_pairing_makes_the_difference_sharper_than_two_single_intervals() -> None:
    hard = np.arange(20) * 3  # pages differ much, the adapter's gain hardly
    intervals = bootstrap(rates((hard + 10).tolist(), hard.tolist(), [100] * 20), 1000, 0.95, seed=1)
    width = intervals.reader.high - intervals.reader.low
    assert intervals.difference.high - intervals.difference.low < 0.05 * width


def test_the_interval_agrees_with_theory_for_the_mean_of_equal_pages() -> None:
    errors = np.random.default_rng(2).integers(0, 60, 200)
    interval = bootstrap(rates(errors.tolist(), [0] * 200, [100] * 200), 4000, 0.95, seed=1).reader
    half = 1.96 * float(np.std(errors / 100)) / 200**0.5
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.08)


def test_blocks_do_not_change_the_draws(noisy: PairedRates, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap(noisy, 300, 0.95, seed=3), permutation_p_value(noisy, 300, seed=3)
    monkeypatch.setattr(uncertainty, "NUMBERS_AT_ONCE", 40 * 7)
    assert (bootstrap(noisy, 300, 0.95, seed=3), permutation_p_value(noisy, 300, seed=3)) == whole


def test_few_pages_get_the_exact_p_value() -> None:
    differences = [5, 3, -1, 2]
    signs = itertools.product((1, -1), repeat=4)
    sums = [abs(sum(s * d for s, d in zip(row, differences, strict=True))) for row in signs]
    exact = sum(value >= 9 for value in sums) / 16
    base = [20 + difference for difference in differences]
    assert permutation_p_value(rates(base, [20] * 4, [100] * 4), 1000, seed=1) == exact


def test_five_pages_never_get_below_six_percent() -> None:
    assert permutation_p_value(rates([90] * 5, [0] * 5, [100] * 5), 1000, seed=1) == 2 / 32


def test_the_sampled_p_value_agrees_with_the_exact_one() -> None:
    rng = np.random.default_rng(8)
    sample = PairedRates(rng.integers(20, 40, 10), rng.integers(15, 35, 10), np.full(10, 100))
    exact = permutation_p_value(sample, 1024, seed=1)
    assert permutation_p_value(sample, 1023, seed=1) == pytest.approx(exact, abs=0.04)


def test_no_difference_is_no_evidence_and_a_clear_one_is() -> None:
    assert permutation_p_value(rates([9] * 30, [9] * 30, [100] * 30), 500, seed=1) == 1.0
    assert permutation_p_value(rates([30] * 30, [9] * 30, [100] * 30), 500, seed=1) == pytest.approx(1 / 501)


def test_pages_without_text_or_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="every page"):
        rates([1], [1], [0])
    with pytest.raises(ValueError, match="one entry per page"):
        rates([1, 2], [1], [3])
