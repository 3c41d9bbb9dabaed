"""Evaluate: what base model and adapter read becomes numbers and a report.

Reads data/processed (the lists and the validation pictures), data/predictions/{base,adapter,probes}.jsonl,
data/others/*.jsonl (what other readers read, see the README there), params.yaml and, where they exist,
metrics/rejected.csv, metrics/train.json, metrics/curves/*.csv and data/features/contact_sheet.
Writes metrics/evaluation.json (the dozen numbers that people compare), metrics/lines.csv (a row per validation line),
metrics/confusions.csv (the adapter's), metrics/tables/: summary.json (all numbers) and *.csv (every rate with its
interval; CER by page, hand, length and script; calibration; review), metrics/report/index.html and
metrics/gallery/*.svg. The same inputs give the same bytes: there is no time in them.
With `evaluate.folds` data/cross_validation, too, for more in summary.json, metrics/tables/folds.csv, and the report.
Refuses prediction files that lack, repeat or add a line. Needs no GPU and no model; takes seconds.

Alone: python -m stages.evaluate
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ownhand.errors import run_stage
from ownhand.evaluation.confidence import calibrate, review
from ownhand.evaluation.cross_validation import (
    CrossValidation,
    by_fold,
    read_cross_validation,
    summarise_cross_validation,
    word_cross_validation,
)
from ownhand.evaluation.metrics import count_confusions
from ownhand.evaluation.others import PREDICTIONS, other_files, own_files
from ownhand.evaluation.proof import find_problems, read_probes, summarise_probes
from ownhand.evaluation.readings import (
    READERS,
    Line,
    read_lines,
    readers_of,
)
from ownhand.evaluation.summary import Rate, compare_rates, headline, summarise
from ownhand.evaluation.tables import by_hand, by_length, by_leniency, by_page, by_script, confusion_cells
from ownhand.files import write_json, write_table
from ownhand.params import EvaluateParams, read_params
from ownhand.report.gallery import write_gallery
from ownhand.report.html_report import ReportSources, write_report
from ownhand.report.verdict import NBSP, describe_trained_texts
from ownhand.samples import PROCESSED, read_metadata

METRICS = Path("metrics")
DIGITS = 6  # of every rate that is written

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
    "text_was_trained",
)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """A CSV row per validation line with all readings, in the given order; texts exactly as they were read."""
    names = [name for name in readers_of(lines) if name not in READERS]
    header = [*LINES_HEADER, *(f"{name}_{column}" for name in names for column in ("cer", "prediction"))]
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
            str(line.text_was_trained).lower(),
            *(
                cell
                for name in names
                for cell in (round(line.others[name].score.cer, DIGITS), line.others[name].prediction.prediction)
            ),
        )
        for line in lines
    ]
    write_table(path, header, rows)


def write_confusions(path: Path, confusions: Iterable[tuple[str, str, int]]) -> None:
    """A CSV row per confused character; an empty cell is "nothing": a character missed, or one added."""
    write_table(path, ("truth", "prediction", "count"), confusions)


def write_tables(
    folder: Path, lines: Sequence[Line], rates: Sequence[Rate], crossed: CrossValidation | None = None
) -> None:
    """What evaluation.json is too short for, one CSV file each; docs/numbers.md explains them."""
    texts = [(line.sample.text, line.adapter.prediction.prediction) for line in lines]
    _write_rows(folder / "rates.csv", [_rate_row(rate) for rate in rates])
    _write_rows(folder / "leniency.csv", by_leniency(lines))
    _write_rows(folder / "pages.csv", by_page(lines))
    _write_rows(folder / "hands.csv", by_hand(lines))
    _write_rows(folder / "lengths.csv", by_length(lines))
    _write_rows(folder / "scripts.csv", by_script(lines))
    _write_rows(folder / "calibration.csv", calibrate(lines), ("confidence", "cer"))
    _write_rows(folder / "review.csv", review(lines), ("share", "cer", "cer_any_order", "cer_best_order"))
    _write_rows(folder / "confusion_cells.csv", confusion_cells(count_confusions(texts)), ("truth", "prediction"))
    if crossed:
        _write_rows(folder / "folds.csv", by_fold(crossed))
    else:
        (folder / "folds.csv").unlink(missing_ok=True)  # of an earlier run outside DVC


def _rate_row(rate: Rate) -> dict[str, Any]:
    interval, difference = rate.interval, rate.difference_interval
    return {
        "reader": rate.reader,
        "rate": rate.name,
        "value": rate.value,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "minus_adapter": rate.difference,
        "minus_adapter_low": difference.low if difference else None,
        "minus_adapter_high": difference.high if difference else None,
        "p_value": rate.p_value,
    }


def _write_rows(path: Path, rows: Sequence[dict[str, Any]], columns_if_empty: Sequence[str] = ()) -> None:
    columns = list(rows[0]) if rows else columns_if_empty
    write_table(path, columns, ([_rounded(row[column]) for column in columns] for row in rows))


def evaluate(root: Path, params: EvaluateParams) -> dict[str, Any]:
    """Read everything below `root`, write the outputs there and return the content of tables/summary.json.

    Raises Refusal for predictions or pictures that do not fit, FileNotFoundError for a missing metadata.json.
    """
    samples = read_metadata(root / PROCESSED)
    lines = read_lines(samples, own_files(root), other_files(root))
    rates = compare_rates(lines, params)
    probes = read_probes(root / PREDICTIONS / "probes.jsonl")
    crossed = read_cross_validation(root, samples, params)
    numbers = summarise(lines, rates) | summarise_probes(probes, lines) | summarise_cross_validation(crossed)
    summary: dict[str, Any] = _rounded(numbers)
    texts = [(line.sample.text, line.adapter.prediction.prediction) for line in lines]
    metrics = root / METRICS
    write_json(metrics / "evaluation.json", headline(summary))
    write_json(metrics / "tables/summary.json", summary)
    write_lines(metrics / "lines.csv", lines)
    write_confusions(metrics / "confusions.csv", count_confusions(texts))
    write_tables(metrics / "tables", lines, rates, crossed)
    sources = ReportSources(
        root=root,
        samples=samples,
        lines=lines,
        rates=rates,
        summary=summary,
        params=params,
        crossed=crossed,
    )
    write_report(metrics / "report" / "index.html", sources)
    write_gallery(metrics / "gallery", lines, root)
    return summary


def main() -> None:
    params = read_params().evaluate
    summary = evaluate(Path(), params)
    few = f" ({summary['n_pages']} page(s) are too few to say more)" if summary["n_pages"] < params.min_pages else ""
    print(
        f"evaluate: read 2 x {summary['n_lines']} predictions of {summary['n_pages']} page(s), refused 0; "
        f"CER {summary['base']['cer']:.1%} -> {summary['adapter']['cer']:.1%}{few}; wrote metrics/report/index.html"
    )
    if note := describe_trained_texts(summary):
        print(f"evaluate: note: {note.replace(NBSP, ' ')}")
    for sentence in word_cross_validation(summary):
        print(f"evaluate: {sentence}")
    for problem in find_problems(summary).values():
        print(f"evaluate: WARNING {problem}")


if __name__ == "__main__":
    run_stage(main)
