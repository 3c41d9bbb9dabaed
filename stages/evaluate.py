"""Evaluate: what base model and adapter read becomes numbers and a report.

Reads   data/processed/ (lists and validation pictures), data/predictions/{base,adapter,probes}.jsonl,
        data/others/*.jsonl (what other readers read, see the README there), params.yaml and, where they exist,
        data/cross_validation/, data/features/contact_sheet/, metrics/{rejected,waiting}.csv, metrics/train.json,
        metrics/curves/, and metrics/learning_curve/curve.json (what `ownhand curve` left; shown while samples and
        parameters are those of it).
Writes  metrics/evaluation.json (the dozen numbers that people compare), metrics/lines.csv (a row per validation line),
        metrics/confusions.csv (the adapter's), metrics/tables/: summary.json (all numbers) and *.csv (every rate with
        its interval; CER by page, hand, length and script; calibration; review; folds), metrics/report/index.html and
        metrics/gallery/*.svg. The same inputs give the same bytes: there is no time in them.
Refuses prediction files that lack, repeat or add a line.
Alone   python -m stages.evaluate

Needs no GPU and no model; takes seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownhand.errors import run_stage
from ownhand.evaluation.cross_validation import (
    read_cross_validation,
    summarise_cross_validation,
    word_cross_validation,
)
from ownhand.evaluation.learning_curve import FILE as LEARNING_CURVE
from ownhand.evaluation.learning_curve import read_curve
from ownhand.evaluation.others import other_files
from ownhand.evaluation.proof import find_problems, read_probes, summarise_probes
from ownhand.evaluation.readings import PREDICTIONS, own_files, score_lines
from ownhand.evaluation.summary import compare_rates, headline, rounded, summarise
from ownhand.evaluation.written import write_confusions, write_lines, write_tables
from ownhand.files import write_json
from ownhand.inputs import Inputs
from ownhand.params import PARAMS_FILE, EvaluateParams, read_params
from ownhand.report.gallery import write_gallery
from ownhand.report.html_report import ReportSources, write_report
from ownhand.report.verdict import NBSP, describe_trained_texts
from ownhand.samples import PROCESSED, read_metadata

METRICS = Path("metrics")


def evaluate(root: Path, params: EvaluateParams) -> dict[str, Any]:
    """Read everything below `root`, write the outputs there and return the content of tables/summary.json.

    Raises Refusal for predictions or pictures that do not fit, FileNotFoundError for a missing metadata.json.
    """
    samples = read_metadata(root / PROCESSED)
    lines = score_lines(samples, own_files(root), other_files(root))
    rates = compare_rates(lines, params)
    probes = read_probes(root / PREDICTIONS / "probes.jsonl")
    crossed = read_cross_validation(root, samples, params)
    numbers = summarise(lines, rates) | summarise_probes(probes, lines) | summarise_cross_validation(crossed)
    summary: dict[str, Any] = rounded(numbers)
    metrics = root / METRICS
    write_json(metrics / "evaluation.json", headline(summary))
    write_json(metrics / "tables/summary.json", summary)
    write_lines(metrics / "lines.csv", lines)
    write_confusions(metrics / "confusions.csv", lines)
    write_tables(metrics / "tables", lines, rates, crossed)
    curve = read_curve(root, samples, read_params(root / PARAMS_FILE))
    if curve is None and (root / LEARNING_CURVE).exists():
        print(f"evaluate: note: {LEARNING_CURVE.as_posix()} is of other samples or parameters, and is not shown")
    sources = ReportSources(root, samples, lines, rates, summary, params, crossed, curve)
    write_report(metrics / "report" / "index.html", sources)
    write_gallery(metrics / "gallery", lines, root)
    return summary


def main() -> None:
    inputs = Inputs.of("evaluate")
    params = read_params().evaluate
    summary = evaluate(Path(), params)
    inputs.refuse_edits()
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
