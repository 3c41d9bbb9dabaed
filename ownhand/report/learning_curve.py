"""The figure of the learning curve: `template/learning_curve.svg` stands alone and in the report alike."""

from __future__ import annotations

from typing import Any

from ownhand.evaluation.learning_curve import LearningCurve, word_curve
from ownhand.report.charts import draw_curve


def gather_learning_curve(curve: LearningCurve | None) -> dict[str, Any]:
    """The template's variable `learning_curve`, positions in per cent of the drawing area; None without a curve.

    Drawn are every adapter with its interval, the law with its band, the base model, and the target.
    """
    if curve is None:
        return {"learning_curve": None}
    band = curve.law.band if curve.law else []
    end = 1.02 * (band[-1][0] if band else curve.last.lines)
    columns = {
        "seen": [(0.0, 100 * curve.base_cer), *((float(one.lines), 100 * one.cer) for one in curve.points)],
        "low": [(float(one.lines), 100 * (one.cer if one.cer_low is None else one.cer_low)) for one in curve.points],
        "high": [(float(one.lines), 100 * (one.cer if one.cer_high is None else one.cer_high)) for one in curve.points],
        "law": [(lines, 100 * cer) for lines, cer, _, _ in band],
        "band_low": [(lines, 100 * low) for lines, _, low, _ in band],
        "band_high": [(lines, 100 * min(high, 1.5 * curve.base_cer)) for lines, _, _, high in band],
        "goal": [(0.0, 100 * curve.goal.target), (end, 100 * curve.goal.target)],
    }
    drawn = draw_curve(columns, end)
    assert drawn is not None  # the goal alone is a line
    figure = {
        "dots": {series.name: series.dots for series in drawn.series},
        "x_ticks": drawn.x_ticks,
        "y_ticks": drawn.y_ticks,
        "level": f"{100 * curve.confidence_level:g}",
        "intervals": curve.last.cer_low is not None,
        "law": curve.law is not None,
        "words": word_curve(curve),
    }
    return {"learning_curve": figure}
