"""The geometry of lines: from a detector's boxes, which are coarse, to polygons and baselines in reading order.

Boxes of slanted lines overlap, cut tall strokes off, and take in parts of their neighbours. So a box only says where a
line is. Its course is then followed through the ink, neighbouring lines are parted by the path between them that
crosses least ink, and the polygon lies close around the ink on the line's side of both paths.

All is measured on a copy of the page of WORK_PX; nothing here knows a detector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from PIL import Image

from ownhand.ground_truth.regions import Points
from ownhand.pages.ink import blurred, extent, measure_ink, spread, strokes
from ownhand.pages.reading_order import Course, in_reading_order

WORK_PX = 1600  # the longer side of the copy; a smaller page is taken as it is
DARKEST, INK_SHARE = 0.97, 0.45  # ink has this share of the contrast of a line's darkest strokes (a quantile)
BLANK = 0.06  # contrast with the paper below which nothing is written
GRAIN = 5  # times the usual contrast: paper's grain reaches 3, strokes 8 and more

# Lengths below are in heights of a detector's box unless they are named otherwise.
JOINED_GAP = 1.2  # between boxes of one line
JOINED_RISE = 0.4  # how far the courses of boxes of one line may lie apart where they meet
UPRIGHT = 1.5  # times taller than wide: such a box is of a line that runs from top to bottom
SHORT = 2.5  # a box shorter than this has no direction of its own
REACH = 1.2  # how far above and below its course a line may go where no other line is near
GROWTH = 0.6  # beyond its boxes, along strokes that go on
STROKE_GAP = 0.3  # between a stroke and what still belongs to it
EDGE = 0.7  # of a box's height: a column with so much ink is no stroke but the edge of something
WINDOW = 0.5  # to both sides: how far an outline goes level at the height of a stroke
MARGIN = 0.1  # of paper around the ink
SPLIT_GAP = 0.7  # at least, where a line is cut in two
STEEPEST_LINE = 0.15  # dy/dx against its box
STEEPEST = 2  # pixels that a parting path may rise or fall from one column of pixels to the next
IMPASSABLE = 1e6


@dataclass(frozen=True)
class FoundLine:
    """A line of writing: points (x, y) in the page's pixels; the baseline runs from left to right."""

    polygon: Points
    baseline: Points


class TurnedPage(ValueError):
    """The lines run from top to bottom: the page lies on its side; the message says what to do."""

    def __init__(self) -> None:
        super().__init__(
            "its lines run from top to bottom: turn the photograph upright, in any picture viewer, and save it"
        )


@dataclass
class _Line:
    """A line on the copy, in pixels: its course is the middle of its small letters.

    height: of its boxes, less what is due to their slant; start, course: y for each column x from start on; box_start,
    box_end: where its boxes begin and end; top, bottom: of the small letters, from the course; contrast: of its darkest
    strokes.
    """

    height: float
    start: int
    course: np.ndarray
    box_start: int
    box_end: int
    top: float = 0.0
    bottom: float = 0.0
    contrast: float = 0.0

    @property
    def end(self) -> int:
        return self.start + len(self.course)

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """The course at any columns, continued straight beyond its ends."""
        columns = np.asarray(x, float)
        step = min(len(self.course) - 1, round(2 * self.height))
        first = (self.course[step] - self.course[0]) / max(step, 1)
        last = (self.course[-1] - self.course[-1 - step]) / max(step, 1)
        inside = np.clip(columns, self.start, self.end - 1)
        beyond = np.where(columns < self.start, first, last) * (columns - inside)
        return np.asarray(np.interp(inside, np.arange(self.start, self.end), self.course) + beyond)


def trace_lines(page: Image.Image, boxes: np.ndarray) -> list[list[FoundLine]]:
    """The lines of an RGB page in reading order, by blocks: columns from left to right, notes in the margin after them.

    boxes: (n, 4, 2), a detector's; those of one line are joined, such without ink are dropped. Raises TurnedPage.
    """
    if not len(boxes):
        return []
    scale = min(1.0, WORK_PX / max(page.size))
    width, height = (max(1, round(side * scale)) for side in page.size)
    copy = page.resize((width, height), Image.Resampling.BOX) if scale < 1 else page
    factors = np.array([width / page.width, height / page.height])
    corners = np.asarray(boxes, float) * factors
    if _lies_on_its_side(corners):
        raise TurnedPage()
    ink = measure_ink(copy)
    long = [_is_long(box) for box in corners]
    lines = [_line_of(box, None, ink) for box, is_long in zip(corners, long, strict=True) if is_long]
    slope = _slope(lines)
    lines += [_line_of(box, slope, ink) for box, is_long in zip(corners, long, strict=True) if not is_long]
    lines = _join([line for line in lines if line.contrast], ink)
    if not lines:
        return []
    lines = _split(lines, ink)
    for line in lines:
        _grow(line, lines, width)
    paths = _part(lines, ink)
    blocks = []
    courses = [Course(line.box_start, line.at(np.arange(line.box_start, line.box_end)), line.height) for line in lines]
    for block in in_reading_order(courses, slope):
        found = []
        for number in block:
            polygon, baseline = _outline(lines[number], *paths[number], ink)
            found.append(FoundLine(_points(polygon / factors, page.size), _points(baseline / factors, page.size)))
        blocks.append(found)
    return blocks


def _lies_on_its_side(corners: np.ndarray) -> bool:
    upper_left, upper_right, lower_right, lower_left = corners.swapaxes(0, 1)
    width = (_length(upper_right - upper_left) + _length(lower_right - lower_left)) / 2
    height = (_length(lower_left - upper_left) + _length(lower_right - upper_right)) / 2
    return bool(height[height > UPRIGHT * width].sum() > width[width > UPRIGHT * height].sum())


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(np.hypot(vectors[..., 0], vectors[..., 1]))


def _is_long(box: np.ndarray) -> bool:
    """Whether a box shows a direction of its own."""
    height = _length(box[3] - box[0]) + _length(box[2] - box[1])
    return bool(_length(box[1] + box[2] - box[0] - box[3]) >= SHORT * height)


def _slope(lines: Sequence[_Line]) -> float:
    """dy/dx of the page's lines: the median, each weighted with its length; 0 where all are short."""
    if not lines:
        return 0.0
    slopes = np.array([(line.course[-1] - line.course[0]) / (len(line.course) - 1) for line in lines])
    order = np.argsort(slopes)
    reached = np.cumsum([len(lines[number].course) for number in order])
    return float(slopes[order][np.searchsorted(reached, reached[-1] / 2)])


def _line_of(box: np.ndarray, slope: float | None, ink: np.ndarray) -> _Line:
    """The line in a box. slope: None where the box is long enough to find it.

    A box may lie level where its line rises. Of all straight courses in it the one is taken on which most ink lies
    close together; how much higher the box is for that slant is taken from its height.
    """
    left, right = (box[0] + box[3]) / 2, (box[1] + box[2]) / 2
    height = max(4.0, float(_length(box[3] - box[0]) + _length(box[2] - box[1])) / 2)
    start = int(np.clip(np.floor(box[:, 0].min()), 0, ink.shape[1] - 2))
    end = int(np.clip(np.ceil(box[:, 0].max()), start + 2, ink.shape[1]))
    x = np.arange(start, end) - (left[0] + right[0]) / 2
    middle = (left[1] + right[1]) / 2
    if slope is None:
        drawn = (right[1] - left[1]) / (right[0] - left[0])
        line = _Line(height, start, middle + drawn * x, start, end)
        near = np.arange(-round(height), round(height) + 1)
        line.contrast = _contrast(_band(ink, line, near))
        parts = np.arange(0, end - start, max(1, round(height / 4)))  # columns are taken together: this is tried often
        band = np.add.reduceat(_is_ink(_band(ink, line, near), line).astype(float), parts, axis=1)
        weights = np.exp(-((near / (0.15 * height)) ** 2))
        most = min(STEEPEST_LINE, 0.7 * height / (right[0] - left[0]))
        best, steeper, offset = -1.0, 0.0, 0
        for share in (0.0, *(sign * step / 12 for step in range(1, 13) for sign in (-1, 1))):
            profile = np.convolve(_sheared(band, share * most * x[parts]).sum(axis=1), weights, "same")
            profile[np.abs(near) > 0.35 * height] = 0
            if profile.max() * (1 - 0.05 * abs(share)) > best:
                best = profile.max() * (1 - 0.05 * abs(share))
                steeper, offset = share * most, int(near[profile.argmax()])
        height = max(height - abs(steeper) * (right[0] - left[0]), 0.45 * height)
        middle, slope = middle + offset, drawn + steeper
    line = _Line(height, start, middle + slope * x, start, end)
    _follow(line, ink)
    return line


def _sheared(band: np.ndarray, rises: np.ndarray) -> np.ndarray:
    """A band with each column moved up by its rise, what leaves it lost."""
    rows = np.arange(len(band))[:, None] + np.rint(rises).astype(np.intp)
    inside = (rows >= 0) & (rows < len(band))
    return np.where(inside, band[np.clip(rows, 0, len(band) - 1), np.arange(band.shape[1])], 0)


def _follow(line: _Line, ink: np.ndarray) -> None:
    """Fit the course to the ink in short steps: straight first, then more and more bent; measure the letters on it."""
    columns, height = len(line.course), line.height
    most = 0 if columns < SHORT * height else 1 if columns < 8 * height else 2 if columns < 20 * height else 3
    position = np.linspace(-1, 1, columns)  # for polynomials
    near = np.arange(-round(height), round(height) + 1)
    line.contrast = _contrast(_band(ink, line, near[np.abs(near) <= 0.4 * height]))
    # Where most ink lies close together, along the line; without jumps, so that a neighbour's letters mislead no end.
    parts = np.arange(0, columns, max(1, round(height / 4)))
    density = np.add.reduceat(_is_ink(_band(ink, line, near), line).astype(float), parts, axis=1)
    density = blurred(blurred(density, 0.15 * height, 0), 0.75 * height * len(parts) / columns, 1)
    allowed = np.abs(near)[:, None] <= (0.15 + 0.4 * np.abs(position[parts])) * height  # the middle is known best
    if most and density.any():
        (path,) = _cheapest_paths([np.where(allowed, 1 - density / density.max(), IMPASSABLE)])
        weights = density[path.astype(int), np.arange(len(parts))]
        bend = np.polyfit(position[parts], near[path.astype(int)], most, w=np.sqrt(weights))
        line.course = line.course + np.polyval(bend, position)
    for _ in range(3):
        band = _is_ink(_band(ink, line, near), line) * np.exp(-((near / (0.3 * height)) ** 2))[:, None]
        mass = blurred(band.sum(axis=0)[None], 0.75 * height, 1)[0]
        if not mass.any():
            break
        shift = blurred((band * near[:, None]).sum(axis=0)[None], 0.75 * height, 1)[0] / np.maximum(mass, 1e-6)
        bend = np.polyfit(position, shift, most, w=np.sqrt(np.maximum(mass, 0)))
        line.course = line.course + np.polyval(bend, position)
    profile = _is_ink(_band(ink, line, near), line).mean(axis=1)
    middle = np.abs(near) <= 0.25 * height
    profile = np.convolve(np.minimum(profile, 2 * np.median(profile[middle])), np.ones(3) / 3, "same")  # no ruling
    peak = int(np.argmax(np.where(middle, profile, -1)))
    low = profile < 0.5 * profile[peak]
    line.top = float(near[max((i for i in range(peak) if low[i]), default=0)])
    line.bottom = float(near[min((i for i in range(peak, len(near)) if low[i]), default=len(near) - 1)])


def _band(ink: np.ndarray, line: _Line, offsets: np.ndarray) -> np.ndarray:
    """The ink along the course, (offsets, columns); none beyond the picture."""
    rows = np.rint(line.course).astype(np.intp) + offsets[:, None]
    inside = (rows >= 0) & (rows < len(ink))
    return np.where(inside, ink[np.clip(rows, 0, len(ink) - 1), np.arange(line.start, line.end)], 0)


def _contrast(band: np.ndarray) -> float:
    """The contrast of the darkest strokes; 0 where they stand out no more than grain does."""
    usual, darkest = np.quantile(band, (0.5, DARKEST))
    return float(darkest) if darkest > max(BLANK, GRAIN * usual) else 0.0


def _is_ink(band: np.ndarray, line: _Line) -> np.ndarray:
    return band > INK_SHARE * max(line.contrast, BLANK)


def _join(lines: list[_Line], ink: np.ndarray) -> list[_Line]:
    """The lines with those joined that are one: they go on where another ends, or lie on each other."""
    while True:
        groups = list(range(len(lines)))
        for one in range(len(lines)):
            for other in range(one):
                if groups[one] != groups[other] and _are_one(lines[one], lines[other]):
                    old, new = groups[one], groups[other]
                    groups = [new if group == old else group for group in groups]
        if len(set(groups)) == len(lines):
            return lines
        members = [[line for line, group in zip(lines, groups, strict=True) if group == one] for one in set(groups)]
        lines = [some[0] if len(some) == 1 else _joined(some, ink) for some in members]


def _joined(lines: Sequence[_Line], ink: np.ndarray) -> _Line:
    start, end = min(line.start for line in lines), max(line.end for line in lines)
    x = np.concatenate([np.arange(line.start, line.end) for line in lines])
    fit = np.polyfit((x - start) / (end - start), np.concatenate([line.course for line in lines]), 2)
    height = float(np.average([line.height for line in lines], weights=[len(line.course) for line in lines]))
    line = _Line(height, start, np.polyval(fit, (np.arange(start, end) - start) / (end - start)), start, end)
    _follow(line, ink)
    return line


def _are_one(one: _Line, other: _Line) -> bool:
    left, right = sorted((one, other), key=lambda line: line.start)
    lower, higher = sorted((left.height, right.height))
    if right.start - left.end > JOINED_GAP * (lower + higher) / 2:
        return False
    x = (min(left.end, right.end) + right.start) / 2
    return bool(abs(left.at(x) - right.at(x)) <= JOINED_RISE * lower)


def _split(lines: Sequence[_Line], ink: np.ndarray) -> list[_Line]:
    """The lines with those cut that a detector took from two columns, or from the margin and the column beside it.

    A line is cut in a gap without ink where other lines begin: at least three, and more of them than go across.
    """
    parts: list[_Line] = []
    for line in lines:
        near = np.arange(-round(0.5 * line.height), round(0.5 * line.height) + 1)
        inked = np.flatnonzero(_is_ink(_band(ink, line, near), line).any(axis=0)) + line.start
        cuts = []
        for left, right in pairwise(inked):
            if right - left < SPLIT_GAP * line.height:
                continue
            others = [other for other in lines if other is not line]
            begin = sum(abs(other.start - right) < 0.7 * line.height for other in others)
            across = sum(other.start <= left and other.end >= right for other in others)
            if begin >= 3 and begin > across:
                cuts.append((int(left), int(right)))
        edges = [line.start, *(edge for cut in cuts for edge in cut), line.end]
        if not cuts:
            parts.append(line)
            continue
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            end = max(end + 1, start + 2)
            part = _Line(line.height, start, line.at(np.arange(start, end)), start, end)
            _follow(part, ink)
            parts.append(part)
    return parts


def _grow(line: _Line, lines: Sequence[_Line], width: int) -> None:
    """Lengthen the course beyond the boxes, at most half of the way to another line in the same row."""
    start = max(0, line.box_start - round(GROWTH * line.height))
    end = min(width, line.box_end + round(GROWTH * line.height))
    for other in lines:
        left, right = (abs(float(other.at(x) - line.at(x))) for x in (line.box_start, line.box_end))
        if other.box_start < line.box_start < other.box_end + 2 * GROWTH * line.height and left < 0.5 * line.height:
            start = max(start, min(line.box_start, (other.box_end + line.box_start) // 2))
        if other.box_end > line.box_end > other.box_start - 2 * GROWTH * line.height and right < 0.5 * line.height:
            end = min(end, max(line.box_end, (other.box_start + line.box_end) // 2))
    line.start, line.course = start, line.at(np.arange(start, end))


def _part(lines: Sequence[_Line], ink: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each line the paths above and below it, as offsets from its course: all that lies between is the line's.

    A path runs between the courses of two neighbours, or within REACH, where least ink is crossed; it goes around
    strokes of either line as long as they do not touch.
    """
    costs = []
    for line in lines:
        far = round(REACH * line.height)
        for sign in (-1, 1):
            room = np.full(len(line.course), float(far))
            core = np.full(len(line.course), np.inf)  # where the neighbour's small letters begin
            for other in lines:
                first, last = max(line.start, other.start), min(line.end, other.end)
                if other is line or first >= last:
                    continue
                part = slice(first - line.start, last - line.start)
                distance = sign * (other.course[first - other.start : last - other.start] - line.course[part])
                nearer = (distance > 0.25 * line.height) & (distance < room[part])
                room[part] = np.where(nearer, distance, room[part])
                core[part] = np.where(nearer, distance - (other.bottom if sign < 0 else -other.top), core[part])
            away = np.arange(far + 1)[:, None]
            strokes = np.minimum(_band(ink, line, sign * np.arange(far + 1)) / max(line.contrast * INK_SHARE, BLANK), 1)
            cost = strokes + 0.1 * (2 * away / room - 1) ** 2
            own = -line.top if sign < 0 else line.bottom
            cost += 0.5 * ((away < own) | (away > core))
            cost[np.broadcast_to(away > np.maximum(room, 1), cost.shape)] = IMPASSABLE
            costs.append(cost.astype(np.float32))
    paths = _cheapest_paths(costs)
    return [(-paths[2 * number], paths[2 * number + 1]) for number in range(len(lines))]


def _cheapest_paths(costs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each (rows, columns) of costs the row in every column of the cheapest path from its left to its right."""
    rows, columns = (max(cost.shape[axis] for cost in costs) for axis in (0, 1))
    total = np.full((len(costs), rows, columns), IMPASSABLE, np.float32)
    for number, cost in enumerate(costs):
        total[number, : cost.shape[0], : cost.shape[1]] = cost
    steps = np.arange(-STEEPEST, STEEPEST + 1)
    came_from = np.zeros(total.shape, np.int8)
    penalty = 0.02 * np.abs(steps, dtype=np.float32)[:, None, None]
    for column in range(1, columns):
        before = np.pad(total[:, :, column - 1], ((0, 0), (STEEPEST, STEEPEST)), constant_values=10 * IMPASSABLE)
        choices = np.stack([before[:, STEEPEST + step : STEEPEST + step + rows] for step in steps]) + penalty
        best = choices.argmin(axis=0)
        came_from[:, :, column] = steps[best]
        total[:, :, column] += np.minimum(np.take_along_axis(choices, best[None], 0)[0], 5 * IMPASSABLE)
    paths = []
    for number, cost in enumerate(costs):
        row = int(total[number, :, cost.shape[1] - 1].argmin())
        path = np.empty(cost.shape[1])
        for column in range(cost.shape[1] - 1, -1, -1):
            path[column] = row
            row += int(came_from[number, row, column])
        paths.append(path)
    return paths


def _outline(line: _Line, above: np.ndarray, below: np.ndarray, ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The polygon around the line's own ink, between the paths, and the baseline; (n, 2) points on the copy."""
    far = round(REACH * line.height)
    offsets = np.arange(-far, far + 1)
    own = strokes(_is_ink(_band(ink, line, offsets), line), round(0.5 * line.height))
    own &= (offsets[:, None] > above) & (offsets[:, None] < below)
    box = own[np.abs(offsets) <= 0.5 * line.height]
    stroke = box.any(axis=0) & (box.mean(axis=0) < EDGE)
    core = own[(offsets >= line.top) & (offsets <= line.bottom)].any(axis=0)
    first, last = _ends(stroke, core & stroke, line)
    window = round(WINDOW * line.height)
    wide = spread(own, window)
    gap = max(2, round(STROKE_GAP * line.height))
    margin = max(1.0, MARGIN * line.height)
    upper = -extent(wide[: far + 1][::-1], max(0, round(-line.top)), gap) - margin
    lower = extent(wide[far:], max(0, round(line.bottom)), gap) + margin
    upper, lower = np.maximum(upper, above), np.minimum(lower, below)
    columns = np.arange(first, last)
    x, course = columns + line.start, line.course[columns]
    polygon = np.concatenate(
        [
            _simplify(np.column_stack([x, course + upper[columns]])),
            _simplify(np.column_stack([x, course + lower[columns]]))[::-1],
        ]
    )
    knots = np.unique(np.linspace(0, len(x) - 1, max(2, round(len(x) / (2 * line.height)) + 1)).astype(int))
    return polygon, np.column_stack([x[knots], course[knots] + line.bottom])


def _ends(inked: np.ndarray, core: np.ndarray, line: _Line) -> tuple[int, int]:
    """The first column of the line and the one after its last, with paper around: from the first to the last ink within
    the boxes, and beyond them the small letters (`core`) that follow without a gap."""
    gap, margin = max(2, round(STROKE_GAP * line.height)), max(1, round(MARGIN * line.height))
    low, high = line.box_start - line.start, line.box_end - line.start
    within = np.flatnonzero(inked[low:high]) + low
    if not len(within):
        return low, high
    first, last = int(within[0]), int(within[-1])
    for column in np.flatnonzero(core[:first])[::-1]:
        if first - column > gap:
            break
        first = int(column)
    for column in np.flatnonzero(core[last + 1 :]) + last + 1:
        if column - last > gap:
            break
        last = int(column)
    return max(0, first - margin), min(len(inked), last + 1 + margin)


def _simplify(points: np.ndarray, tolerance: float = 1.0) -> np.ndarray:
    """The points without those that lie within `tolerance` of the path through the others (Ramer-Douglas-Peucker)."""
    kept = np.zeros(len(points), bool)
    kept[[0, -1]] = True
    pending = [(0, len(points) - 1)]
    while pending:
        first, last = pending.pop()
        if last - first < 2:
            continue
        between = points[first + 1 : last]
        (dx, dy), from_first = points[last] - points[first], between - points[first]
        distance = np.abs(dx * from_first[:, 1] - dy * from_first[:, 0]) / max(np.hypot(dx, dy), 1e-9)
        furthest = int(distance.argmax())
        if distance[furthest] > tolerance:
            middle = first + 1 + furthest
            kept[middle] = True
            pending += [(first, middle), (middle, last)]
    return np.asarray(points[kept])


def _points(points: np.ndarray, size: tuple[int, int]) -> Points:
    """Whole pixels of the page, each once in a row."""
    whole: np.ndarray = np.clip(np.rint(points), 0, np.array(size) - 1)
    kept = np.append(True, np.any(whole[1:] != whole[:-1], axis=1))
    return tuple((float(x), float(y)) for x, y in whole[kept])
