"""Summary: every error rate of every reader with its interval; what evaluation.json and tables/summary.json hold."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ownhand.evaluation.confidence import summarise_confidence
from ownhand.evaluation.metrics import Score, micro_average
from ownhand.evaluation.readings import READERS, ScoredLine, readers_of
from ownhand.evaluation.uncertainty import Interval, PairedRates, add_by_page, bootstrap, permutation_p_value
from ownhand.params import EvaluateParams

# A rate is a sum of errors over a sum of n; n is the same for every reader, so that differences can be paired.
RATES: dict[str, Callable[[Score], tuple[int, int]]] = {
    "cer": lambda score: (score.character_errors, score.characters),
    "cer_code_points": lambda score: (score.code_point_errors, score.code_points),
    "cer_lenient": lambda score: (score.lenient_errors, score.lenient_characters),
    "wer": lambda score: (score.word_errors, score.words),
    "exact_match": lambda score: (int(score.exact), 1),
    "blank_rate": lambda score: (int(score.blank), 1),
}
UNSEEN = "cer_unseen_texts"  # the CER over the lines whose text was not trained on, too
RUNAWAY = "runaway_rate"  # known of base model and adapter only
DIGITS = 6  # of every rate that is written
WITH_INTERVAL = ("cer", UNSEEN, "wer")  # in summary.json, which must stay readable; metrics/tables/rates.csv has all


@dataclass(frozen=True)
class Rate:
    """One rate of one reader; `difference` is this reader's rate minus the adapter's, on the same pages.

    Intervals and the p-value of the difference are None with fewer than `min_pages` pages, those of the difference
    also for the adapter itself. The value is None where the sum of n is 0, as when every text was trained on.
    """

    reader: str
    name: str
    value: float | None
    interval: Interval | None
    difference: float | None
    difference_interval: Interval | None
    p_value: float | None


def compare_rates(lines: Sequence[ScoredLine], params: EvaluateParams) -> list[Rate]:
    """All rates of all readers, readers in their order, each with what the pages say about its uncertainty."""
    rates = [_compare(lines, reader, name, params) for reader in readers_of(lines) for name in RATES]
    unseen = [line for line in lines if not line.text_was_trained]
    rates += [_compare(unseen, reader, UNSEEN, params) for reader in readers_of(lines)]
    return rates + [_compare(lines, reader, RUNAWAY, params) for reader in READERS]


def _compare(lines: Sequence[ScoredLine], reader: str, name: str, params: EvaluateParams) -> Rate:
    own, adapter = _counts(lines, reader, name), _counts(lines, "adapter", name)
    n = sum(count for _, count in own)
    value = micro_average(own) if n else None
    difference = micro_average(own) - micro_average(adapter) if n and reader != "adapter" else None
    pages = [line.page for line in lines]
    n_by_page = add_by_page(pages, [count for _, count in own])
    if len(n_by_page) < params.min_pages or not n_by_page.all():  # the latter: a page of nothing but punctuation
        return Rate(reader, name, value, None, difference, None, None)
    paired = PairedRates(
        reader=add_by_page(pages, [errors for errors, _ in own]),
        adapter=add_by_page(pages, [errors for errors, _ in adapter]),
        n=n_by_page,
    )
    intervals = bootstrap(paired, params.bootstrap_samples, params.confidence_level, params.seed)
    if reader == "adapter":
        return Rate(reader, name, value, intervals.adapter, None, None, None)
    p_value = permutation_p_value(paired, params.bootstrap_samples, params.seed)
    return Rate(reader, name, value, intervals.reader, difference, intervals.difference, p_value)


def _counts(lines: Sequence[ScoredLine], reader: str, name: str) -> list[tuple[int, int]]:
    if name == RUNAWAY:
        return [(int(line.readings[reader].runaway), 1) for line in lines]
    return [RATES["cer" if name == UNSEEN else name](line.scores[reader]) for line in lines]


def summarise(lines: Sequence[ScoredLine], rates: Sequence[Rate]) -> dict[str, Any]:
    """The content of tables/summary.json: rates of base and adapter, their difference, and what they rest on.

    Nested dictionaries of numbers and no lists, because `dvc metrics` drops lists. Rates are shares (0.12 is 12 %) and
    can pass 1. With fewer than `min_pages` pages the ends of intervals and the p-value are None.
    """
    by_name = {(rate.reader, rate.name): rate for rate in rates}
    cer = by_name["base", "cer"]
    summary: dict[str, Any] = {reader: _reader(lines, reader, by_name) for reader in READERS}
    summary["difference"] = {
        "cer": cer.difference,
        **_ends("cer", cer.difference_interval),
        "relative": cer.difference / cer.value if cer.difference is not None and cer.value else None,
        "p_value": cer.p_value,
    }
    if lines[0].others:
        summary["others"] = {
            reader: _reader(lines, reader, by_name) | {"p_value_against_adapter": by_name[reader, "cer"].p_value}
            for reader in lines[0].others
        }
    summary["confidence"] = summarise_confidence(lines)
    return summary | {
        "n_lines": len(lines),
        "n_lines_trained_texts": sum(line.text_was_trained for line in lines),
        "n_characters": sum(line.characters for line in lines),
        "n_words": sum(line.scores["base"].words for line in lines),
        "n_pages": len({line.page for line in lines}),
    }


def rounded(value: Any) -> Any:
    """A number, or all numbers of a dictionary, as they are written."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def headline(summary: dict[str, Any]) -> dict[str, Any]:
    """The content of evaluation.json: the numbers that people compare, few enough for a screen."""
    adapter = ("cer", "cer_low", "cer_high", "wer", "exact_match", *((UNSEEN,) if UNSEEN in summary["adapter"] else ()))
    chosen: dict[str, Any] = {
        "base": {"cer": summary["base"]["cer"]},
        "adapter": {name: summary["adapter"][name] for name in adapter},
        "difference": {name: summary["difference"][name] for name in ("relative", "p_value")},
    }
    if "reads" in summary:
        chosen["swapped_images"] = {"cer": summary["reads"]["cer_swapped_pictures"]}
    if "retention" in summary:
        chosen["print"] = {"lost": summary["retention"]["lost"]}
    if "others" in summary:
        chosen |= {reader: {"cer": rates["cer"]} for reader, rates in summary["others"].items()}
    if "cross_validation" in summary:
        chosen["cross_validation"] = {"cer": summary["cross_validation"]["adapter"]["cer"]}
    return chosen | {name: summary[name] for name in ("n_lines", "n_pages")}


def _reader(lines: Sequence[ScoredLine], reader: str, by_name: dict[tuple[str, str], Rate]) -> dict[str, Any]:
    scores = [line.scores[reader] for line in lines]
    found: dict[str, Any] = {}
    for name in (*RATES, UNSEEN, RUNAWAY):
        rate = by_name.get((reader, name))
        if rate:
            found[name] = rate.value
            if name in WITH_INTERVAL:
                found |= _ends(name, rate.interval)
    return found | {
        "cer_line_mean": statistics.fmean(score.cer for score in scores),
        "cer_line_median": statistics.median(score.cer for score in scores),
        "insertions": sum(score.insertions for score in scores),
        "deletions": sum(score.deletions for score in scores),
        "substitutions": sum(score.substitutions for score in scores),
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}
