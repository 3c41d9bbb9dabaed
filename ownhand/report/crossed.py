"""The report's part on cross-validation: the rate over all pages in words, the folds, the worst lines.

Where the validation pages are too few for an interval and all pages together are enough, its verdict goes in front.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ownhand.evaluation.cross_validation import CrossValidation, Fold, by_fold, compare_with_validation
from ownhand.evaluation.metrics import CLEAR_RISE
from ownhand.evaluation.readings import READERS, worst_first
from ownhand.report import verdict
from ownhand.report.charts import draw_bars, end_of_axis
from ownhand.report.thumbnails import embed_pictures

WORST_SHOWN = 6


def judge(summary: dict[str, Any], confidence_level: float, min_pages: int) -> verdict.Verdict:
    """The verdict on the validation pages or, where only cross-validation has an interval, on that."""
    plain = verdict.judge(summary, confidence_level, min_pages)
    if crossed := numbers_in_front(summary):
        found = verdict.judge(summary | crossed, confidence_level, min_pages)
        own = (
            f"It is about {crossed['folds']} adapters that were trained as this one was, each on other pages. This one "
            f"itself was tried on {verdict.count(summary['n_lines'], 'validation line')} from "
            f"{verdict.count(summary['n_pages'], 'page')} only, which is too little to tell."
        )
        headline = f"An adapter trained like this one {_wrong(crossed, confidence_level)}."
        return replace(found, headline=headline, limits=(own, *found.limits))
    if plain.state != "too few":
        return plain
    if crossed := summary.get("cross_validation"):
        seen = (
            f"By cross-validation {verdict.percent(crossed['adapter']['cer'])} of all characters were wrong, and "
            f"{verdict.percent(crossed['base']['cer'])} without adapters; for an interval "
            f"{verdict.count(crossed['n_pages'], 'page')} are too few, too."
        )
        return replace(plain, limits=(seen, *plain.limits))
    more = "To make more of the pages that there are, let all of them validate in turn: evaluate.folds in params.yaml."
    return replace(plain, limits=(*plain.limits, more))


def numbers_in_front(summary: dict[str, Any]) -> dict[str, Any] | None:
    """The numbers of cross-validation where only it has enough pages for an interval; else None."""
    crossed: dict[str, Any] | None = summary.get("cross_validation")
    if crossed and summary["adapter"]["cer_low"] is None and crossed["adapter"]["cer_low"] is not None:
        return crossed
    return None


def _wrong(crossed: dict[str, Any], confidence_level: float) -> str:
    base, adapter = crossed["base"], crossed["adapter"]
    level = f"{100 * confidence_level:g}{verdict.NBSP}%"
    return (
        f"reads {verdict.percent(adapter['cer'])} of the characters of unseen pages wrong ({level} interval "
        f"{verdict.interval(adapter['cer_low'], adapter['cer_high'])}); the base model alone "
        f"{verdict.percent(base['cer'])}"
    )


def describe(summary: dict[str, Any], confidence_level: float) -> list[str]:
    """What was done, what came out, and what that is about; a sentence or two each."""
    crossed = summary["cross_validation"]
    pages, folds = verdict.count(crossed["n_pages"], "page"), crossed["folds"]
    adapter, base = crossed["adapter"], crossed["base"]
    done = f"Each of the {pages} was read once, by one of {folds} adapters that were trained without it."
    if adapter["cer_low"] is None:
        rates = f"The adapters read {verdict.percent(adapter['cer'])} of the characters wrong, the base model alone "
        came_out = f"{rates}{verdict.percent(base['cer'])}. {pages} are too few for an interval."
    else:
        came_out = f"An adapter {_wrong(crossed, confidence_level)}. The interval draws whole pages."
    about = (
        f"This is about the way of training, on about {100 * (folds - 1) / folds:.0f}{verdict.NBSP}% of these lines. "
        "The adapter in models/adapter is none of these; its own rates are those of “All figures”."
    )
    odd, trained = compare_with_validation(summary), verdict.describe_trained_texts(crossed)
    return [done, came_out, *([trained] if trained else []), about, *([f"Note: {odd}."] if odd else [])]


def describe_losses(records: Sequence[Fold]) -> str | None:
    """Whether the pictures of other lines raise the loss of each fold; None where no fold holds out two lines."""
    rises = {one.fold: one.val_loss_swapped_pictures - one.val_loss for one in records if len(one.held_out) > 1}
    if not rises:
        return None
    reciting = [str(fold) for fold, rise in rises.items() if rise < CLEAR_RISE]
    if reciting:
        return (
            f"In fold {', '.join(reciting)} the pictures of other lines hardly raise the loss per token: the adapter "
            "recites instead of reading."
        )
    ends = dict.fromkeys(f"{end(rises.values()):.2f}" for end in (min, max))
    return (
        f"With the pictures of other lines the loss per token is higher by {' to '.join(ends)}: the adapters read, "
        "they do not recite."
    )


def gather_folds(
    crossed: CrossValidation | None, summary: dict[str, Any], confidence_level: float, root: Path
) -> dict[str, Any]:
    """The template's variable `folds`; None without cross-validation."""
    if crossed is None:
        return {"folds": None}
    names = {"base": "Base model", "adapter": "Fold adapters"}
    totals = summary["cross_validation"]
    reading = describe_losses(crossed.records)
    bars, ticks = draw_bars(
        [(names[key], *(totals[key][end] for end in ("cer", "cer_low", "cer_high"))) for key in READERS]
    )
    rows = [{"name": f"{row['fold']}", **row} for row in by_fold(crossed)]
    worst = worst_first([line for line in crossed.lines if not line.scores["adapter"].exact])[:WORST_SHOWN]
    return {
        "folds": {
            "words": [*describe(summary, confidence_level), *([reading] if reading else [])],
            "bars": bars,
            "ticks": ticks,
            "readers": [{"key": key, "name": names[key]} for key in READERS],
            "part": {"column": "Fold", "rows": rows, "end": end_of_axis(rows, READERS)},
            "worst": worst,
            "fold_of": crossed.fold_of,
            "pictures": embed_pictures(worst, root) if worst else {},
        }
    }
