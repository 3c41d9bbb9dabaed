"""Evaluate: what base model and adapter read becomes numbers and a report.

Reads data/processed (metadata.json and the validation pictures), data/predictions/{base,adapter}.jsonl,
params.yaml and, where they exist, metrics/rejected.csv, metrics/train.json and metrics/curves/*.csv.
Writes metrics/evaluation.json, metrics/lines.csv (a row per validation line), metrics/confusions.csv (the adapter's)
and metrics/report/index.html. The same inputs give the same bytes: there is no time in any of them.
Refuses prediction files that lack, repeat or add a line. Needs no GPU and no model; takes seconds.

Alone: python -m stages.evaluate
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stages.lib.failures import run_stage
from stages.lib.files import write_json, write_text
from stages.lib.metadata import METADATA, read_metadata
from stages.lib.metrics import count_confusions, micro_average
from stages.lib.params import PARAMS_FILE, EvaluateParams, read_params
from stages.lib.readings import READERS, Line, read_lines
from stages.lib.report import ReportSources, write_report
from stages.lib.uncertainty import PairedRates, add_by_page, bootstrap, permutation_p_value

PREDICTIONS = Path("data/predictions")
METRICS = Path("metrics")
DIGITS = 6  # of every rate in evaluation.json

LINES_HEADER = (
    "image_id",
    "hand",
    "page",
    "characters",
    "base_cer",
    "adapter_cer",
    "base_prediction",
    "adapter_prediction",
    "truth",
    "base_confidence",
    "adapter_confidence",
    "base_runaway",
    "adapter_runaway",
)


def summarise(lines: Sequence[Line], params: EvaluateParams) -> dict[str, Any]:
    """The content of evaluation.json: rates of base and adapter, their difference, and what they rest on.

    Nested dictionaries of numbers and no lists, because `dvc metrics` drops lists. Rates are shares (0.12 is 12 %) and
    can pass 1. With fewer than `min_pages` pages the ends of intervals and the p-value are None.
    """
    pages = [line.page for line in lines]
    n_pages = len(set(pages))
    summary: dict[str, Any] = {reader: _rates(lines, reader) for reader in READERS}
    base_cer, adapter_cer = summary["base"]["cer"], summary["adapter"]["cer"]
    summary["difference"] = {
        "cer": base_cer - adapter_cer,
        "cer_low": None,
        "cer_high": None,
        "relative": (base_cer - adapter_cer) / base_cer if base_cer else None,
        "p_value": None,
    }
    if n_pages >= params.min_pages:
        characters = PairedRates(
            base=add_by_page(pages, [line.base.score.character_errors for line in lines]),
            adapter=add_by_page(pages, [line.adapter.score.character_errors for line in lines]),
            n=add_by_page(pages, [line.characters for line in lines]),
        )
        words = PairedRates(
            base=add_by_page(pages, [line.base.score.word_errors for line in lines]),
            adapter=add_by_page(pages, [line.adapter.score.word_errors for line in lines]),
            n=add_by_page(pages, [line.base.score.words for line in lines]),
        )
        for name, rates in (("cer", characters), ("wer", words)):
            intervals = bootstrap(rates, params.bootstrap_samples, params.confidence_level, params.seed)
            for reader, interval in (("base", intervals.base), ("adapter", intervals.adapter)):
                summary[reader] |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
            if name == "cer":
                summary["difference"] |= {"cer_low": intervals.difference.low, "cer_high": intervals.difference.high}
        summary["difference"]["p_value"] = permutation_p_value(characters, params.bootstrap_samples, params.seed)
    summary |= {
        "n_lines": len(lines),
        "n_characters": sum(line.characters for line in lines),
        "n_words": sum(line.base.score.words for line in lines),
        "n_pages": n_pages,
    }
    return {name: _rounded(value) for name, value in summary.items()}


def _rates(lines: Sequence[Line], reader: str) -> dict[str, float | int | None]:
    readings = [line.reading(reader) for line in lines]
    scores = [reading.score for reading in readings]
    return {
        "cer": micro_average((score.character_errors, score.characters) for score in scores),
        "cer_low": None,
        "cer_high": None,
        "cer_code_points": micro_average((score.code_point_errors, score.code_points) for score in scores),
        "cer_line_mean": statistics.fmean(score.cer for score in scores),
        "cer_line_median": statistics.median(score.cer for score in scores),
        "wer": micro_average((score.word_errors, score.words) for score in scores),
        "wer_low": None,
        "wer_high": None,
        "exact_match": statistics.fmean(score.exact for score in scores),
        "runaway_rate": statistics.fmean(reading.prediction.runaway for reading in readings),
        "blank_rate": statistics.fmean(score.blank for score in scores),
        "insertions": sum(score.insertions for score in scores),
        "deletions": sum(score.deletions for score in scores),
        "substitutions": sum(score.substitutions for score in scores),
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def write_lines(path: Path, lines: Iterable[Line]) -> None:
    """A CSV row per validation line with both readings, in the given order; texts exactly as they were read."""
    rows = [
        (
            line.sample.image_id,
            line.sample.hand,
            line.sample.page,
            line.characters,
            round(line.base.score.cer, DIGITS),
            round(line.adapter.score.cer, DIGITS),
            line.base.prediction.prediction,
            line.adapter.prediction.prediction,
            line.sample.text,
            line.base.prediction.confidence,
            line.adapter.prediction.confidence,
            str(line.base.prediction.runaway).lower(),
            str(line.adapter.prediction.runaway).lower(),
        )
        for line in lines
    ]
    _write_csv(path, LINES_HEADER, rows)


def write_confusions(path: Path, confusions: Iterable[tuple[str, str, int]]) -> None:
    """A CSV row per confused character; an empty cell is "nothing": a character missed, or one added."""
    _write_csv(path, ("truth", "prediction", "count"), confusions)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def evaluate(root: Path, params: EvaluateParams) -> dict[str, Any]:
    """Read everything below `root`, write the four outputs there and return the content of evaluation.json.

    Raises Refusal for predictions or pictures that do not fit, FileNotFoundError for a missing metadata.json.
    """
    samples = read_metadata(root / METADATA)
    files = {reader: root / PREDICTIONS / f"{reader}.jsonl" for reader in READERS}
    lines = read_lines(samples, files)
    summary = summarise(lines, params)
    texts = [(line.sample.text, line.adapter.prediction.prediction) for line in lines]
    metrics = root / METRICS
    write_json(metrics / "evaluation.json", summary)
    write_lines(metrics / "lines.csv", lines)
    write_confusions(metrics / "confusions.csv", count_confusions(texts))
    sources = ReportSources(
        root=root,
        samples=samples,
        lines=lines,
        summary=summary,
        params=params,
        train_file=metrics / "train.json",
        curves_folder=metrics / "curves",
        rejected_file=metrics / "rejected.csv",
        params_file=root / PARAMS_FILE,
    )
    write_report(metrics / "report" / "index.html", sources)
    return summary


def main() -> None:
    summary = evaluate(Path(), read_params().evaluate)
    print(
        f"evaluate: read 2 x {summary['n_lines']} predictions of {summary['n_pages']} page(s), refused 0; "
        f"CER {summary['base']['cer']:.1%} -> {summary['adapter']['cer']:.1%}; wrote metrics/report/index.html"
    )


if __name__ == "__main__":
    run_stage(main)
