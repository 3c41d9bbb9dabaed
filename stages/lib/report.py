"""The report: one HTML file that opens offline, with every validation line, its picture and both readings.

This module gathers and words the content; how it looks is in `report_template/`. All text passes through the template
engine's escaping, and the page's own security policy allows no request to any address and no script but ours.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stages.lib import verdict
from stages.lib.charts import Curve, draw_bars, draw_curve
from stages.lib.confidence import review
from stages.lib.files import write_text
from stages.lib.metadata import Sample
from stages.lib.metrics import align, comparable, count_confusions, count_wrong_characters
from stages.lib.params import EvaluateParams
from stages.lib.readings import READERS, Line
from stages.lib.tables import by_page
from stages.lib.text import grapheme_clusters
from stages.lib.thumbnails import embed_pictures

TEMPLATE_FOLDER = Path(__file__).parent / "report_template"
PACKAGES = ("torch", "transformers", "peft")

CONFUSIONS_SHOWN = 16
CHARACTERS_SHOWN = 16
REJECTED_SHOWN = 200
REVIEW_SHARE = 0.2  # of the lines, for "check the least certain lines"


@dataclass(frozen=True)
class ReportSources:
    """What the report tells; of the files only params.yaml must exist."""

    root: Path
    samples: Sequence[Sample]
    lines: Sequence[Line]
    summary: dict[str, Any]
    params: EvaluateParams
    train_file: Path
    curves_folder: Path
    rejected_file: Path
    params_file: Path


def write_report(path: Path, sources: ReportSources) -> None:
    """The report as a self-contained HTML file; Refusal lists validation pictures that are missing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE_FOLDER, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": verdict.percent, "interval": lambda pair: verdict.interval(*pair)}
    environment.filters |= {"visible": show_spaces, "count": verdict.count}
    write_text(path, environment.get_template("index.html").render(gather(sources)))


def gather(sources: ReportSources) -> dict[str, Any]:
    """The template's variables; worst lines (by the adapter's CER, then by its errors) come first."""
    lines = sorted(
        sources.lines,
        key=lambda line: (-line.adapter.score.cer, -line.adapter.score.character_errors, line.sample.image_id),
    )
    summary = sources.summary
    bars, ticks = draw_bars(
        [
            (name, summary[reader]["cer"], summary[reader]["cer_low"], summary[reader]["cer_high"])
            for name, reader in (("Base model", "base"), ("With adapter", "adapter"))
        ]
    )
    train = json.loads(sources.train_file.read_text(encoding="utf-8")) if sources.train_file.exists() else {}
    pairs = [(line.sample.text, line.adapter.prediction.prediction) for line in sources.lines]
    confusions = count_confusions(pairs)
    rejected = _read_csv(sources.rejected_file)
    script = (TEMPLATE_FOLDER / "script.js").read_text(encoding="utf-8")
    pages = by_page(sources.lines)
    return {
        "verdict": verdict.judge(summary, sources.params.confidence_level, sources.params.min_pages),
        "summary": summary,
        "level": f"{100 * sources.params.confidence_level:g}",
        "bars": bars,
        "ticks": ticks,
        "lines": lines,
        "first_lines": sources.params.worst_lines,
        "order": {line.sample.image_id: position for position, line in enumerate(sources.lines)},
        "pictures": embed_pictures(lines, sources.root),
        "marked": mark_differences,
        "comparable": comparable,
        "pages": pages,
        "page_names": name_pages(sources.lines),
        "pages_end": max(0.01, *(row[f"{reader}_cer"] for row in pages for reader in READERS)),
        "review": next((row for row in review(sources.lines) if row["share"] == REVIEW_SHARE and row["found"]), None),
        "confusions": confusions[:CONFUSIONS_SHOWN],
        "confusions_left": len(confusions) - CONFUSIONS_SHOWN,
        "hard_characters": find_hard_characters(sources.samples, pairs),
        "curve": read_curves(sources.curves_folder),
        "train": {name: _worded(value) for name, value in train.items() if not isinstance(value, dict)},
        "findings": train.get("findings", {}),
        "reads": verdict.describe_loss(train),
        "splits": count_splits(sources.samples),
        "rejected": rejected[:REJECTED_SHOWN],
        "rejected_left": len(rejected) - REJECTED_SHOWN,
        "reasons": Counter(row["reason"].partition(":")[0] for row in rejected).most_common(),
        "params_text": sources.params_file.read_text(encoding="utf-8-sig"),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "script": Markup(script),
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    }


def mark_differences(truth: str, prediction: str) -> list[tuple[str, str]]:
    """The prediction as (kind, text) stretches; the text of a "deletion" is what is missing from the prediction."""
    return [
        (edit.kind, "".join(edit.truth if edit.kind == "deletion" else edit.prediction))
        for edit in align(truth, prediction)
    ]


def show_spaces(text: str) -> str:
    """A character for a table: space as "␣", nothing as "nothing", an invisible one by its number."""
    if not text:
        return "nothing"
    if text == " ":
        return "␣"
    return text if text.isprintable() else " ".join(f"U+{ord(character):04X}" for character in text)


def name_pages(lines: Sequence[Line]) -> dict[str, str]:
    """What the report calls each page: without the hand's name where there is only one hand."""
    several = len({line.sample.hand for line in lines}) > 1
    return {line.page: line.page if several else line.sample.page for line in lines}


def find_hard_characters(samples: Sequence[Sample], pairs: Sequence[tuple[str, str]]) -> list[dict[str, str | int]]:
    """The characters of the validation texts that were most often wrong, with how often training shows them."""
    seen = Counter(
        cluster
        for sample in samples
        if sample.split == "train"
        for cluster in grapheme_clusters(comparable(sample.text))
    )
    rows = [row for row in count_wrong_characters(pairs) if row[1]][:CHARACTERS_SHOWN]
    return [{"character": name, "wrong": wrong, "of": n, "in_training": seen[name]} for name, wrong, n in rows]


def read_curves(folder: Path) -> Curve | None:
    """One series per CSV file (step, loss), named after the file; None without a drawable one."""
    series = {
        path.stem.replace("_", " "): [(float(row["step"]), float(row["loss"])) for row in _read_csv(path)]
        for path in sorted(folder.glob("*.csv"))
    }
    return draw_curve(series)


def count_splits(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Per split: samples, pages, hands and characters."""
    rows = []
    for split, name in (("train", "Training"), ("val", "Validation")):
        own = [sample for sample in samples if sample.split == split]
        row: dict[str, Any] = {"name": name, "samples": len(own)}
        row["pages"] = len({(sample.hand, sample.page) for sample in own})
        row["hands"] = sorted({sample.hand for sample in own if sample.hand})
        row["characters"] = sum(len(grapheme_clusters(comparable(sample.text))) for sample in own)
        rows.append(row)
    return rows


def _read_csv(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _worded(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
