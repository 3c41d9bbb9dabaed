"""Charts: numbers become positions; the template draws them with HTML and SVG.

Positions are per cent of the drawing area, so that a chart fits any width; y counts from the top as in SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MAX_POINTS = 500  # of one drawn series; more cannot be told apart on a screen


@dataclass(frozen=True)
class Tick:
    """A label of an axis and where it stands, in per cent."""

    position: float
    label: str


@dataclass(frozen=True)
class Bar:
    """A horizontal bar from 0 to `end`, with a whisker from `low` to `high` where there is an interval; per cent."""

    name: str
    value: float
    end: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Series:
    """One line of a curve: its name, the points of an SVG polyline, the same points as pairs, and its last value."""

    name: str
    points: str
    dots: tuple[tuple[float, float], ...]
    last: float


@dataclass(frozen=True)
class Curve:
    """Several series over the same steps, with ticks for both axes."""

    series: tuple[Series, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def end_of_axis(rows: Sequence[dict[str, Any]], readers: Sequence[str]) -> float:
    """The highest CER of a table, for bars in its cells."""
    return max(0.01, *(row[f"{reader}_cer"] or 0.0 for row in rows for reader in readers))


def nice_ticks(highest: float, at_most: int = 5) -> list[float]:
    """Round numbers from 0 to at least `highest`, in steps of 1, 2 or 5 times a power of ten.

    `at_most` bounds the number of steps; ValueError unless `highest` is positive and finite.
    """
    if not (math.isfinite(highest) and highest > 0):
        raise ValueError(f"an axis needs a positive, finite end; seen: {highest}")
    power = 10.0 ** (math.floor(math.log10(highest / at_most)))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if factor * power * at_most >= highest * (1 - 1e-9))
    return [round(step * index, 12) for index in range(math.ceil(highest / step - 1e-9) + 1)]


def draw_bars(rows: Sequence[tuple[str, float, float | None, float | None]]) -> tuple[list[Bar], list[Tick]]:
    """Bars for (name, rate, low, high) on one axis of per cent that starts at zero, and the axis' ticks."""
    highest = max(max(value, high or 0.0) for _, value, _, high in rows)
    ticks = nice_ticks(100 * highest if highest > 0 else 1.0)

    def place(share: float | None) -> float | None:
        return None if share is None else round(100 * 100 * share / ticks[-1], 3)

    bars = [Bar(name, value, place(value) or 0.0, place(low), place(high)) for name, value, low, high in rows]
    return bars, [Tick(100 * tick / ticks[-1], f"{tick:g}") for tick in ticks]


def draw_curve(columns: dict[str, list[tuple[float, float]]], x_end: float | None = None) -> Curve | None:
    """A curve for {name: [(step, value), ...]} from 0 to `x_end`, or to the last step; None without two points."""
    drawable = {name: points for name, points in columns.items() if len(points) >= 2}
    if not drawable:
        return None
    highest = max(value for points in drawable.values() for _, value in points)
    y_values = nice_ticks(highest if highest > 0 else 1.0)
    x_end = x_end or max(step for points in drawable.values() for step, _ in points)
    x_values = [tick for tick in nice_ticks(x_end) if tick <= x_end]

    def draw(name: str, points: Sequence[tuple[float, float]]) -> Series:
        stride = max(1, len(points) // MAX_POINTS)
        kept = [*points[:-1:stride], points[-1]]
        dots = tuple((100 * step / x_end, 100 - 100 * value / y_values[-1]) for step, value in kept)
        return Series(name, " ".join(f"{x:.2f},{y:.2f}" for x, y in dots), dots, points[-1][1])

    return Curve(
        series=tuple(draw(name, points) for name, points in drawable.items()),
        x_ticks=tuple(Tick(100 * tick / x_end, f"{tick:g}") for tick in x_values),
        y_ticks=tuple(Tick(100 - 100 * tick / y_values[-1], f"{tick:g}") for tick in y_values),
    )
