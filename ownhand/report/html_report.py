"""The report: one HTML file that opens offline, with every validation line, its picture and all readings.

This module gathers the content; verdict.py words it, charts.py places it, and how it looks is in `template/`.
All text passes through the template engine's escaping, and the page's own security policy allows no request to any
address and no script but ours.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ownhand.evaluation.confidence import calibrate, review
from ownhand.evaluation.cross_validation import CrossValidation
from ownhand.evaluation.examples import find_examples
from ownhand.evaluation.learning_curve import LearningCurve
from ownhand.evaluation.metrics import count_confusions, count_wrong_characters, mark_differences
from ownhand.evaluation.proof import find_problems
from ownhand.evaluation.readings import ScoredLine, readers_of, worst_first
from ownhand.evaluation.summary import Rate
from ownhand.evaluation.tables import by_hand, by_length, by_leniency, by_page, by_script
from ownhand.files import write_text
from ownhand.params import EvaluateParams
from ownhand.report import crossed, verdict
from ownhand.report.charts import draw_bars, draw_curve, end_of_axis
from ownhand.report.learning_curve import gather_learning_curve
from ownhand.report.records import gather_records
from ownhand.report.thumbnails import embed_pictures
from ownhand.samples import Sample
from ownhand.text import comparable, grapheme_clusters

TEMPLATE_FOLDER = Path(__file__).parent / "template"
NAMES = {"base": "Base model", "adapter": "With adapter"}
MEASURES = {  # in the order of the table; the names of summary.py
    "cer": "Character error rate (CER)",
    "cer_unseen_texts": "CER of the lines whose text was not trained on",
    "wer": "Word error rate (WER)",
    "exact_match": "Lines without any error",
    "cer_lenient": "Lenient CER (rules below)",
    "cer_code_points": "CER by code points, as most tools count",
    "runaway_rate": "Runaway outputs (hit the limit, or loop)",
    "blank_rate": "Blank outputs",
}

CONFUSIONS_SHOWN = 16
EXAMPLES_SHOWN = 6  # of the confusions
CHARACTERS_SHOWN = 16
NEXT_SHOWN = 5  # characters to annotate next
REVIEW_SHARE = 0.2  # of the lines, for "check the least certain lines"


@dataclass(frozen=True)
class ReportSources:
    """What the report tells; records.py finds the rest below `root`."""

    root: Path
    samples: Sequence[Sample]
    lines: Sequence[ScoredLine]
    rates: Sequence[Rate]
    summary: dict[str, Any]
    params: EvaluateParams
    crossed: CrossValidation | None = None
    learning_curve: LearningCurve | None = None


def write_report(path: Path, sources: ReportSources) -> None:
    """The report as a self-contained HTML file; Refusal lists validation pictures that are missing."""
    write_text(path, open_template("index.html").render(gather(sources)))


def open_template(name: str) -> jinja2.Template:
    """A template of ours: everything that it prints is escaped, and a variable that is missing is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": verdict.percent, "interval": lambda ends: verdict.interval(ends.low, ends.high)}
    environment.filters |= {"visible": show_spaces, "count": verdict.count}
    return environment.get_template(name)


def gather(sources: ReportSources) -> dict[str, Any]:
    """The template's variables; worst lines (by the adapter's CER, then by its errors) come first."""
    script = (TEMPLATE_FOLDER / "script.js").read_text(encoding="utf-8")
    return {
        **_gather_rates(sources),
        **_gather_lines(sources),
        **_gather_errors(sources),
        **_gather_confidence(sources.lines, sources.summary),
        **_gather_proof(sources),
        **crossed.gather_folds(sources.crossed, sources.summary, sources.params.confidence_level, sources.root),
        **gather_learning_curve(sources.learning_curve),
        **gather_records(sources.root, sources.samples),
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def _gather_rates(sources: ReportSources) -> dict[str, Any]:
    summary, lines, params = sources.summary, sources.lines, sources.params
    rates = {(rate.reader, rate.name): rate for rate in sources.rates}
    readers = [{"key": key, "name": NAMES.get(key, key)} for key in readers_of(lines)]
    totals = {reader: summary.get(reader) or summary["others"][reader] for reader in readers_of(lines)}
    in_front = crossed.numbers_in_front(summary) or totals
    compared = [reader for reader in readers if reader["key"] in in_front]
    bars, ticks = draw_bars(
        [(r["name"], *(in_front[r["key"]][end] for end in ("cer", "cer_low", "cer_high"))) for r in compared]
    )
    return {
        "verdict": crossed.judge(summary, params.confidence_level, params.min_pages),
        "cost": verdict.describe_cost(summary),
        "crossed_in_front": in_front is not totals,
        "summary": summary,
        "level": f"{100 * params.confidence_level:g}",
        "readers": readers,
        "totals": totals,
        "bars": bars,
        "bar_keys": [reader["key"] if reader["key"] in NAMES else "other" for reader in compared],
        "ticks": ticks,
        "measures": [(MEASURES[name], [rates.get((r["key"], name)) for r in readers]) for name in MEASURES],
        "leniency": by_leniency(lines),
        "breakdowns": [
            {"title": title, "column": column, "rows": rows, "end": end_of_axis(rows, readers_of(lines))}
            for title, column, rows in (
                ("By length of the line", "Characters", [_named_length(row) for row in by_length(lines)]),
                ("By script", "Script", [{"name": row["script"], **row} for row in by_script(lines)]),
                ("By hand", "Hand", [{"name": row["hand"] or "not named", **row} for row in by_hand(lines)]),
            )
            if len(rows) > 1
        ],
    }


def _named_length(row: dict[str, Any]) -> dict[str, Any]:
    return {"name": f"{row['characters_from']}–{row['characters_to']}", **row}


def _gather_lines(sources: ReportSources) -> dict[str, Any]:
    lines = worst_first(sources.lines)
    pages = by_page(lines)
    return {
        "lines": lines,
        "first_lines": sources.params.worst_lines,
        "order": {line.sample.image_id: position for position, line in enumerate(sources.lines)},
        "pictures": embed_pictures(lines, sources.root),
        "marked": mark_differences,
        "comparable": comparable,
        "pages": pages,
        "page_names": label_pages(lines),
        "pages_end": end_of_axis(pages, readers_of(lines)),
    }


def _gather_errors(sources: ReportSources) -> dict[str, Any]:
    pairs = [(line.sample.text, line.adapter.text) for line in sources.lines]
    confusions = count_confusions(pairs)
    characters = find_hard_characters(sources.samples, pairs)
    hard_and_rare = sorted(
        (row for row in characters if row["wrong"] >= 2 and 2 * row["wrong"] >= row["of"]),
        key=lambda row: (row["in_training"], -row["wrong"], row["character"]),
    )
    return {
        "confusions": confusions[:CONFUSIONS_SHOWN],
        "confusions_left": len(confusions) - CONFUSIONS_SHOWN,
        "examples": find_examples(sources.lines, confusions[:EXAMPLES_SHOWN]),
        "hard_characters": characters[:CHARACTERS_SHOWN],
        "wrong": verdict.describe_confusions(confusions),
        "next": verdict.describe_next([row["character"] for row in hard_and_rare[:NEXT_SHOWN]]),
    }


def _gather_confidence(lines: Sequence[ScoredLine], summary: dict[str, Any]) -> dict[str, Any]:
    groups, budgets = calibrate(lines), review(lines)
    names = {
        "cer": "least certain first",
        "cer_any_order": "any order",
        "cer_best_order": "most errors first, if one knew",
    }
    curves = {name: [(100 * row["share"], 100 * row[key]) for row in budgets] for key, name in names.items()}
    ideal = [(0.0, 100.0), (100.0, 0.0)]
    groups_curve = [(100 * row["confidence"], 100 * row["cer"]) for row in groups]
    return {
        "review": next((row for row in budgets if row["share"] == REVIEW_SHARE and row["found"]), None),
        "budgets": budgets,
        "review_curve": draw_curve(curves, 100.0),
        "groups": groups,
        "calibration": draw_curve({"groups of lines": groups_curve, "as right as confident": ideal}, 100.0)
        if groups
        else None,
        "guide": verdict.describe_confidence(summary["confidence"]["rank_correlation"]),
    }


def _gather_proof(sources: ReportSources) -> dict[str, Any]:
    summary = sources.summary
    reads, retention = summary["reads"], summary["retention"]
    problems = find_problems(summary)
    rows = [
        ("Own pictures", reads["cer"]),
        ("Other lines’ pictures", reads["cer_swapped_pictures"]),
        ("Blank pictures", reads["cer_blank_pictures"]),
    ]
    printed = [("Before training", retention["base_cer"]), ("With adapter", retention["adapter_cer"])]
    return {
        "problems": problems,
        "reads": verdict.describe_reading(reads, bool({"EVAL-001", "EVAL-002"} & set(problems))),
        "proofs": [
            (title, *draw_bars([(name, value, None, None) for name, value in shown if value is not None]))
            for title, shown in (("Shown other pictures", rows), ("Printed lines", printed))
            if any(value is not None for _, value in shown)
        ],
    }


def show_spaces(text: str) -> str:
    """A character for a table: space as "␣", nothing as "nothing", an invisible one by its number."""
    if not text:
        return "nothing"
    if text == " ":
        return "␣"
    return text if text.isprintable() else " ".join(f"U+{ord(character):04X}" for character in text)


def label_pages(lines: Sequence[ScoredLine]) -> dict[str, str]:
    """What the report calls each page: without the hand's name where there is only one hand."""
    several = len({line.sample.hand for line in lines}) > 1
    return {line.page: line.page if several else line.sample.page for line in lines}


def find_hard_characters(samples: Sequence[Sample], pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The characters that were ever wrong, most often wrong first, with how often the training texts show them."""
    seen = Counter(
        cluster
        for sample in samples
        if sample.split == "train"
        for cluster in grapheme_clusters(comparable(sample.text))
    )
    return [
        {"character": name, "wrong": wrong, "of": n, "in_training": seen[name]}
        for name, wrong, n in count_wrong_characters(pairs)
        if wrong
    ]
