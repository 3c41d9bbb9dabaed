"""Reading order: columns from left to right, in each from top to bottom, notes in the margin after their column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

GUTTER = 0.7  # of the lines' height: at least so much paper lies between two columns
NARROW = 0.35  # of the other column's width: a column on the left that is narrower holds notes


@dataclass(frozen=True)
class Course:
    """Where a line of writing runs: its middle (y) at its first column of pixels, its last, and all between."""

    start: int
    y: np.ndarray
    height: float

    @property
    def end(self) -> int:
        return self.start + len(self.y)


@dataclass(frozen=True)
class _Span:
    """A line on the page turned until its lines lie level."""

    number: int
    left: float
    right: float
    y: float


def in_reading_order(courses: Sequence[Course], slope: float) -> list[list[int]]:
    """The numbers of the lines by blocks. slope: dy/dx of the page's lines."""
    turn = np.array([[1, slope], [-slope, 1]]) / np.hypot(1, slope)
    spans = []
    for number, course in enumerate(courses):
        ends = np.array([[course.start, course.y[0]], [course.end - 1, course.y[-1]]])
        (left, upper), (right, lower) = ends @ turn.T
        spans.append(_Span(number, float(left), float(right), float(upper + lower) / 2))
    height = float(np.median([course.height for course in courses])) if courses else 1.0
    return [_by_rows(block, courses) for block in _blocks(spans, height)]


def _blocks(spans: list[_Span], height: float) -> list[list[_Span]]:
    """The lines cut at gutters as long as there are any."""
    gutter = _gutter(spans, height)
    if gutter is None:
        return [spans] if spans else []
    left = [span for span in spans if span.right <= gutter]
    right = [span for span in spans if span.left >= gutter]
    across = [span for span in spans if span.left < gutter < span.right]
    blocks: list[list[_Span]] = []
    for heading in sorted(across, key=lambda span: span.y):  # above both columns, or between them
        blocks += [*_blocks([span for span in left + right if span.y < heading.y], height), [heading]]
        left, right = ([span for span in side if span.y >= heading.y] for side in (left, right))
    sides = [left, right]
    if left and right and _width(left) <= NARROW * _width(right):
        sides.reverse()
    return blocks + [block for side in sides for block in _blocks(side, height)]


def _width(spans: list[_Span]) -> float:
    return float(np.median([span.right - span.left for span in spans]))


def _gutter(spans: list[_Span], height: float) -> float | None:
    """The middle of the widest gap that at most one line in ten crosses, with two lines or more on either side."""
    best, widest = None, GUTTER * height
    rights = np.array(sorted(span.right for span in spans))
    lefts = np.array(sorted(span.left for span in spans))
    for right in rights:
        following = lefts[lefts >= right]
        ended = int((rights <= right).sum())
        crossing = len(spans) - ended - len(following)
        if min(ended, len(following)) >= 2 and crossing <= len(spans) / 10 and following[0] - right > widest:
            best, widest = float(right + following[0]) / 2, float(following[0] - right)
    return best


def _by_rows(spans: list[_Span], courses: Sequence[Course]) -> list[int]:
    """From top to bottom where lines stand above each other; those beside each other from left to right."""
    order = [span.number for span in sorted(spans, key=lambda span: span.y)]
    for end in range(len(order) - 1, 0, -1):  # neighbours change places until each stands right with the next
        for place in range(end):
            if _stands_before(courses[order[place + 1]], courses[order[place]]):
                order[place], order[place + 1] = order[place + 1], order[place]
    return order


def _stands_before(one: Course, other: Course) -> bool:
    """Whether a line is read before the one that now stands before it."""
    first, last = max(one.start, other.start), min(one.end, other.end)
    if first < last:
        one_y, other_y = (line.y[first - line.start : last - line.start] for line in (one, other))
        return bool(np.mean(one_y) < np.mean(other_y))
    left, right = (one, other) if one.start < other.start else (other, one)
    beside = abs(left.y[-1] - right.y[0]) < 0.5 * min(one.height, other.height)
    return bool(beside and left is one)
