"""Confidence: does a low confidence mean a high error rate, and what does checking the least certain lines gain?

The confidence of a line is the geometric mean of the probabilities of its tokens (decoding.py). It is compared with the
line's CER: a reader that knows what it does not know is right in about `confidence` of the characters.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ownhand.evaluation.metrics import micro_average
from ownhand.evaluation.readings import ScoredLine

MIN_LINES = 10  # with fewer, neither a correlation nor a group of lines says anything
GROUPS, MIN_GROUP = 8, 5  # groups of the calibration at most, and lines in each at least
BUDGETS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)  # shares of the lines that a person checks
BUDGETS_MEASURED = (0.1, 0.2, 0.5)  # of them, those in summary.json


def calibrate(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """The adapter's lines in groups of (nearly) equal size by confidence, least certain first.

    Per group the range and the mean of the confidence, the number of lines, the CER, and the line CERs' quartiles. An
    empty list below MIN_LINES.
    """
    if len(lines) < MIN_LINES:
        return []
    ordered = _least_certain_first(lines)
    groups = max(1, min(GROUPS, len(ordered) // MIN_GROUP))
    ends = [round(len(ordered) * number / groups) for number in range(groups + 1)]
    rows = []
    for start, end in itertools.pairwise(ends):
        own = ordered[start:end]
        confidences = [line.adapter.confidence for line in own]
        quartiles = np.quantile([line.scores["adapter"].cer for line in own], [0.25, 0.75])
        rows.append(
            {
                "confidence_from": confidences[0],
                "confidence_to": confidences[-1],
                "confidence": sum(confidences) / len(own),
                "lines": len(own),
                "cer": _cer(own),
                "cer_lower_quartile": float(quartiles[0]),
                "cer_upper_quartile": float(quartiles[1]),
            }
        )
    return rows


def review(lines: Sequence[ScoredLine]) -> list[dict[str, Any]]:
    """Per budget (share of the lines a person checks and corrects, rounded up to whole lines) the CER that is left.

    `cer`: the least certain lines are checked; `cer_any_order`: expected when lines are checked in any order;
    `cer_best_order`: the lines with most errors are checked, which nobody can know. `found`: share of the errors that
    the check finds, None when there is none. An empty list below MIN_LINES.
    """
    if len(lines) < MIN_LINES:
        return []
    n = sum(line.characters for line in lines)
    by_confidence = [line.scores["adapter"].character_errors for line in _least_certain_first(lines)]
    by_errors = sorted(by_confidence, reverse=True)
    errors = sum(by_confidence)
    rows = []
    for share in BUDGETS:
        checked = math.ceil(round(share * len(lines), 9))
        left = sum(by_confidence[checked:])
        rows.append(
            {
                "share": share,
                "lines": checked,
                "cer": left / n,
                "cer_any_order": errors * (1 - checked / len(lines)) / n,
                "cer_best_order": sum(by_errors[checked:]) / n,
                "found": (errors - left) / errors if errors else None,
            }
        )
    return rows


def summarise_confidence(lines: Sequence[ScoredLine]) -> dict[str, float | None]:
    """For summary.json: the rank correlation, the calibration error, and the CER left at some review budgets.

    rank_correlation: Spearman's, of confidence and line CER; -1 is a perfect guide, 0 none; None where all lines have
    one confidence or one CER. calibration_error: mean distance of a group's confidence from 1 - CER, weighted by
    lines. All None below MIN_LINES.
    """
    groups, budgets = calibrate(lines), {row["share"]: row["cer"] for row in review(lines)}
    gaps = [row["lines"] * abs(row["confidence"] - (1 - row["cer"])) for row in groups]
    return {
        "rank_correlation": rank_correlation(
            [line.adapter.confidence for line in lines], [line.scores["adapter"].cer for line in lines]
        )
        if groups
        else None,
        "calibration_error": sum(gaps) / len(lines) if groups else None,
        **{f"cer_after_checking_{round(100 * share)}_percent": budgets.get(share) for share in BUDGETS_MEASURED},
    }


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None when one side has no spread."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    spread = math.sqrt(float((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / spread if spread else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, group, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(sizes)
    ranks: NDArray[np.float64] = ((ends - sizes + 1 + ends) / 2)[group]
    return ranks


def _least_certain_first(lines: Sequence[ScoredLine]) -> list[ScoredLine]:
    return sorted(lines, key=lambda line: (line.adapter.confidence, line.sample.image_id))


def _cer(lines: Sequence[ScoredLine]) -> float:
    return micro_average((line.scores["adapter"].character_errors, line.characters) for line in lines)
