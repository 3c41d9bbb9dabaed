"""Files of an evaluation: what evaluation.json is too short for, as CSV; docs/numbers.md explains them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ownhand.evaluation.confidence import calibrate, review
from ownhand.evaluation.cross_validation import CrossValidation, by_fold
from ownhand.evaluation.metrics import count_confusions
from ownhand.evaluation.readings import READERS, ScoredLine
from ownhand.evaluation.summary import Rate, rounded
from ownhand.evaluation.tables import by_hand, by_length, by_leniency, by_page, by_script, confusion_cells
from ownhand.files import write_table


def write_lines(path: Path, lines: Sequence[ScoredLine]) -> None:
    """A CSV row per validation line with all readings, in the given order; texts exactly as they were read."""
    rows = [
        {
            "image_id": line.sample.image_id,
            "hand": line.sample.hand,
            "page": line.sample.page,
            "characters": line.characters,
            **{f"{reader}_cer": line.scores[reader].cer for reader in READERS},
            **{f"{reader}_prediction": line.readings[reader].text for reader in READERS},
            "truth": line.sample.text,
            **{f"{reader}_confidence": line.readings[reader].confidence for reader in READERS},
            **{f"{reader}_runaway": str(line.readings[reader].runaway).lower() for reader in READERS},
            "text_was_trained": str(line.text_was_trained).lower(),
            **{
                f"{name}_{column}": value
                for name, other in line.others.items()
                for column, value in (("cer", line.scores[name].cer), ("prediction", other.text))
            },
        }
        for line in lines
    ]
    _write_rows(path, rows)


def write_confusions(path: Path, lines: Sequence[ScoredLine]) -> None:
    """A CSV row per character that the adapter confused; an empty cell is "nothing": one missed, or one added."""
    write_table(path, ("truth", "prediction", "count"), _confusions(lines))


def _confusions(lines: Sequence[ScoredLine]) -> list[tuple[str, str, int]]:
    return count_confusions([(line.sample.text, line.adapter.text) for line in lines])


def write_tables(
    folder: Path, lines: Sequence[ScoredLine], rates: Sequence[Rate], crossed: CrossValidation | None = None
) -> None:
    """One CSV file for each view of the rates; folds.csv with cross-validation only."""
    _write_rows(folder / "rates.csv", [_rate_row(rate) for rate in rates])
    _write_rows(folder / "leniency.csv", by_leniency(lines))
    _write_rows(folder / "pages.csv", by_page(lines))
    _write_rows(folder / "hands.csv", by_hand(lines))
    _write_rows(folder / "lengths.csv", by_length(lines))
    _write_rows(folder / "scripts.csv", by_script(lines))
    _write_rows(folder / "calibration.csv", calibrate(lines), ("confidence", "cer"))
    _write_rows(folder / "review.csv", review(lines), ("share", "cer", "cer_any_order", "cer_best_order"))
    _write_rows(folder / "confusion_cells.csv", confusion_cells(_confusions(lines)), ("truth", "prediction"))
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
    write_table(path, columns, ([rounded(row[column]) for column in columns] for row in rows))
