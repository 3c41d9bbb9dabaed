"""Charts: positions follow from numbers."""

from __future__ import annotations

import pytest

from ownhand.report.charts import MAX_POINTS, draw_bars, draw_curve, nice_ticks


@pytest.mark.parametrize("highest", [1e-4, 0.07, 0.3, 1.0, 9.99, 10, 35, 101, 5234])
def test_ticks_start_at_zero_are_round_few_and_reach_the_highest_value(highest: float) -> None:
    ticks = nice_ticks(highest)
    step = ticks[1]
    assert ticks[0] == 0 and ticks[-1] >= highest > ticks[-2] - 1e-12
    assert len(ticks) <= 6
    assert f"{step:e}"[0] in "125" and step == pytest.approx(float(f"{step:.0e}"))


def test_an_axis_without_extent_is_refused() -> None:
    for highest in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive, finite"):
            nice_ticks(highest)


def test_bars_share_one_axis_and_hold_their_whiskers() -> None:
    bars, ticks = draw_bars([("base", 0.4, 0.3, 0.8), ("adapter", 0.1, None, None)])
    assert ticks[-1].position == 100 and ticks[-1].label == "80"
    assert bars[0].end == 4 * bars[1].end == 50
    assert (bars[0].low, bars[0].high) == (37.5, 100)
    assert bars[1].low is None and bars[1].high is None


def test_two_perfect_readers_have_bars_of_no_length() -> None:
    bars, _ = draw_bars([("base", 0.0, None, None), ("adapter", 0.0, None, None)])
    assert [bar.end for bar in bars] == [0, 0]


def test_a_curve_runs_from_left_to_right_and_down_as_the_loss_falls() -> None:
    curve = draw_curve({"train": [(10, 2.0), (20, 1.0)], "single": [(10, 1.0)]})
    assert curve is not None
    assert [series.name for series in curve.series] == ["train"]
    assert curve.series[0].points == "50.00,0.00 100.00,50.00"
    assert curve.series[0].last == 1.0
    assert curve.series[0].dots == ((50, 0), (100, 50))


def test_a_curve_may_end_before_its_axis_does() -> None:
    curve = draw_curve({"cer": [(0, 40.0), (50, 20.0)]}, x_end=100)
    assert curve is not None
    assert curve.series[0].dots[-1] == (50, 50)
    assert curve.x_ticks[-1].position == 100


def test_a_long_curve_is_thinned_and_keeps_its_last_value() -> None:
    curve = draw_curve({"train": [(step, 1 + 1 / step) for step in range(1, 20_001)]})
    assert curve is not None
    points = curve.series[0].points.split()
    assert len(points) <= MAX_POINTS + 2
    assert points[-1].startswith("100.00,")


def test_nothing_to_draw_is_no_curve() -> None:
    assert draw_curve({}) is None
    assert draw_curve({"train": [(1, 2.0)]}) is None
