"""The learning curve: CER of adapters that were trained on ever more lines, and what further lines would bring.

A power law, CER = a * lines ** -b, is fitted to the logarithms by least squares (Hestness et al., "Deep Learning
Scaling is Predictable, Empirically", 2017, for its form). Two things make it uncertain, and the draws hold both:
validation pages are drawn with replacement, the same for every adapter; and the adapters scatter about the law, for
each saw other pages in another order, so that the law is drawn from Student's t of the residuals, too.

Beyond what the curve can bear nothing is predicted: further than FAR times the lines that there are is "out of reach".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from ownhand.errors import Refusal
from ownhand.evaluation.uncertainty import Counts, PairedRates, bootstrap, draw_pages
from ownhand.files import hash_value
from ownhand.params import EvaluateParams, Params
from ownhand.samples import Sample

FILE = Path("metrics/learning_curve/curve.json")
REMEDY = "run `ownhand curve` again, or remove it"
FAR = 10  # times the lines that there are
LEAST_POINTS = 4  # two for the law, and two that can contradict it

Outlook = Literal["reached", "between", "at least", "out of reach", "unknown"]
Floats = NDArray[np.float64]


class CurvePart(Schema):
    """A part of curve.json."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Point(CurvePart):
    """An adapter of the curve; the interval is None with fewer validation pages than `evaluate.min_pages`.

    subset: what it was trained on, such as "first 38 lines".
    """

    subset: str
    lines: int
    pages: int
    optimizer_steps: int
    cer: float
    cer_low: float | None
    cer_high: float | None


class Law(CurvePart):
    """CER = a * lines ** -b with the interval of b; scatter: of the adapters about it, as a share of the CER.

    band: (lines, CER, low, high) along the law; twice: the CER that twice the lines would give, as one more adapter
    would show it, with its interval.
    """

    a: float
    b: float
    b_low: float
    b_high: float
    scatter: float
    band: list[tuple[float, float, float, float]]
    twice: tuple[float, float, float]


class Goal(CurvePart):
    """How many more lines the target asks for: the law's own number, and the ends of its interval.

    "between": both ends are known; "at least": only the lower one; "out of reach": not even that within FAR times the
    lines; "unknown": there is no law; "reached": by all the lines that there are.
    """

    target: float
    outlook: Outlook
    more_lines: int | None = None
    low: int | None = None
    high: int | None = None


class LearningCurve(CurvePart):
    """The content of curve.json; of: the samples and parameters that it was made from, see `origin`."""

    of: str
    validation_pages: int
    confidence_level: float
    base_cer: float
    points: list[Point] = Field(min_length=1)
    law: Law | None
    goal: Goal

    @property
    def last(self) -> Point:
        """The adapter of all lines."""
        return self.points[-1]


@dataclass(frozen=True)
class Trained:
    """An adapter on a subset, and the wrong characters that it reads on each validation page."""

    subset: str
    lines: int
    pages: int
    optimizer_steps: int
    errors: Counts


def make_curve(
    trained: Sequence[Trained], base: Counts, characters: Counts, of: str, params: EvaluateParams, target: float
) -> LearningCurve:
    """The curve of some adapters, that of all lines last; base: wrong characters of the base model by page."""
    total = int(characters.sum())
    enough = len(characters) >= params.min_pages and bool(characters.all())
    points = []
    for one in trained:
        interval = None
        if enough:
            rates = PairedRates(base, one.errors, characters)
            interval = bootstrap(rates, params.bootstrap_samples, params.confidence_level, params.seed).adapter
        ends = (interval.low, interval.high) if interval else (None, None)
        cer = int(one.errors.sum()) / total
        points.append(Point(
            subset=one.subset, lines=one.lines, pages=one.pages, optimizer_steps=one.optimizer_steps,
            cer=cer, cer_low=ends[0], cer_high=ends[1],
        ))  # fmt: skip
    law, goal = None, Goal(target=target, outlook="reached" if points[-1].cer <= target else "unknown")
    if enough and len(points) >= LEAST_POINTS:
        fit = Fit.of([one.lines for one in trained], np.stack([one.errors for one in trained]), characters, params)
        law = fit.describe(points[0].lines, points[-1].lines)
        if goal.outlook == "unknown":
            goal = fit.look_out(target, points[-1].lines)
    return LearningCurve(
        of=of, validation_pages=len(characters), confidence_level=params.confidence_level,
        base_cer=int(base.sum()) / total, points=points, law=law, goal=goal,
    )  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """The law in logarithms, (log a, -b), with its draws, (draws, 2), and the scatter of adapters about it.

    deviates: (draws,) of the scatter of one more adapter, as large as the draws are.
    """

    law: Floats
    draws: Floats
    deviates: Floats
    scatter: float
    tail: float

    @staticmethod
    def of(lines: Sequence[int], errors: Counts, characters: Counts, params: EvaluateParams) -> Fit:
        """The fit to wrong characters (adapters, pages) of `characters` (pages,); at least three adapters.

        Half an error is added to every adapter's, so that one without any has a logarithm.
        """
        design = np.stack([np.ones(len(lines)), np.log(np.array(lines, float))], axis=1)  # (adapters, 2)
        solve = np.linalg.pinv(design)  # (2, adapters)

        def law_of(wrong: NDArray[Any], n: NDArray[Any]) -> Floats:
            return np.asarray(np.log((wrong + 0.5) / n) @ solve.T)

        seen = np.log((errors.sum(axis=1) + 0.5) / characters.sum())
        law = solve @ seen
        freedom = len(lines) - 2
        scatter = float(np.sqrt(((seen - design @ law) ** 2).sum() / freedom))
        weights = np.concatenate(list(draw_pages(len(characters), params.bootstrap_samples, params.seed)))
        of_pages = law_of(weights @ errors.T, (weights @ characters)[:, None])  # (draws, 2)
        rng = np.random.default_rng(params.seed)
        wide = scatter * np.sqrt(freedom / rng.chisquare(freedom, len(weights)))  # Student's t, with the normals below
        root = np.linalg.cholesky(np.linalg.inv(design.T @ design))
        own = wide[:, None] * (rng.standard_normal((len(weights), 2)) @ root.T)
        deviates = wide * rng.standard_normal(len(weights))
        return Fit(law, of_pages + own, deviates, scatter, (1 - params.confidence_level) / 2)

    def describe(self, first: int, last: int) -> Law:
        """The law from the `first` number of lines to twice the `last`."""
        b_low, b_high = self._ends(-self.draws[:, 1])
        band = []
        for lines in np.geomspace(first, 2 * last, 40):
            low, high = self._ends(_rates(self.draws @ (1, math.log(lines))))
            band.append((float(lines), self._at(lines), low, high))
        twice = self._ends(_rates(self.draws @ (1, math.log(2 * last)) + self.deviates))
        return Law(
            a=math.exp(self.law[0]), b=-float(self.law[1]), b_low=b_low, b_high=b_high,
            scatter=self.scatter, band=band, twice=(self._at(2 * last), *twice),
        )  # fmt: skip

    def look_out(self, target: float, lines: int) -> Goal:
        """What `target` asks for beyond `lines`."""

        def needed(laws: Floats) -> Floats:  # (laws,) lines, infinite where the law does not fall
            with np.errstate(all="ignore"):
                return np.where(laws[:, 1] < 0, np.exp((math.log(target) - laws[:, 0]) / laws[:, 1]), math.inf)

        low, high = np.quantile(needed(self.draws), [self.tail, 1 - self.tail], method="higher")
        middle = float(needed(self.law[None, :])[0])

        def more(total: float) -> int:
            return max(0, math.ceil(total - lines))

        if low > FAR * lines:
            return Goal(target=target, outlook="out of reach")
        if high > FAR * lines or middle > FAR * lines:
            return Goal(target=target, outlook="at least", low=more(float(low)))
        return Goal(
            target=target, outlook="between", more_lines=more(middle), low=more(float(low)), high=more(float(high))
        )

    def _at(self, lines: float) -> float:
        return float(np.exp(self.law @ (1, math.log(lines))))

    def _ends(self, values: Floats) -> tuple[float, float]:
        low, high = np.quantile(values, [self.tail, 1 - self.tail])
        return float(low), float(high)


def _rates(logarithms: Floats) -> Floats:
    """Rates from their logarithms; those of wild draws end at 100, which JSON can hold."""
    return np.asarray(np.exp(np.minimum(logarithms, math.log(100))))


def origin(samples: Sequence[Sample], params: Params) -> str:
    """What a curve belongs to: these samples on these sides, and the parameters that train and read."""
    known = [(one.image_id, one.split, one.page, one.text, one.sha256) for one in samples]
    deciding = (params.model, params.encode, params.train, params.transcribe)
    return hash_value([known, *(group.model_dump() for group in deciding)])


def read_curve(root: Path, samples: Sequence[Sample], params: Params) -> LearningCurve | None:
    """The curve that `ownhand curve` left below `root`; None without one, and for one of other samples or parameters.

    Refusal when it is damaged.
    """
    if not (root / FILE).exists():
        return None
    try:
        found = LearningCurve.model_validate_json((root / FILE).read_bytes())
    except ValidationError as error:
        raise Refusal(f"{FILE.as_posix()} cannot be read: {error.errors()[0]['msg']}; {REMEDY}") from None
    return found if found.of == origin(samples, params) else None


def word_curve(curve: LearningCurve) -> list[str]:
    """What the curve shows, what it promises, and what the target asks for; a sentence or two each."""
    last, first, level = curve.last, curve.points[0], f"{100 * curve.confidence_level:g} %"
    less = f"with {first.lines} lines {first.cer:.1%}, " if first is not last else ""
    seen = (
        f"Without training {curve.base_cer:.1%} of the characters are wrong, {less}with all {last.lines} {last.cer:.1%}"
    )
    if last.cer_low is not None and last.cer_high is not None:
        seen += f" ({level} interval {last.cer_low:.1%} to {last.cer_high:.1%})"
    return [f"{seen}.", *([_word_law(curve.law, last.lines)] if curve.law else []), _word_goal(curve)]


def _word_law(law: Law, lines: int) -> str:
    cer, low, high = law.twice
    promise = f"{2 * lines} lines would give {cer:.1%} ({low:.1%} to {high:.1%})"
    if law.b_low <= 0:
        return f"That more lines help is not sure on these pages: by the curve {promise}."
    return f"If the curve goes on as it has, {promise}."


def _word_goal(curve: LearningCurve) -> str:
    goal, lines = curve.goal, curve.last.lines
    target = f"{100 * goal.target:g} %"
    if goal.outlook == "reached":
        return f"{target} is reached."
    if goal.outlook == "between":
        return f"About {goal.more_lines} more lines to reach {target}, between {goal.low} and {goal.high}."
    if goal.outlook == "at least":
        return f"How many more lines {target} takes cannot be predicted; at least {goal.low}."
    if goal.outlook == "out of reach":
        return f"{target} is out of reach of what can be predicted: it takes more than {(FAR - 1) * lines} more lines."
    few = f"{len(curve.points)} adapters" if curve.validation_pages and len(curve.points) < LEAST_POINTS else ""
    few = few or f"{curve.validation_pages} validation pages"
    return f"How many more lines {target} takes cannot be predicted: {few} are too few."
