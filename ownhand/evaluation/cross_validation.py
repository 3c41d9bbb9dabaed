"""Cross-validation in numbers: what base model and fold adapters read on all pages, each by one that had not seen it.

The rate is that of the procedure (this base model, these parameters, about this many pages), not of the one adapter
in models/adapter, which was trained on other pages than any of the folds' adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from ownhand.dataset.repeats import find_trained
from ownhand.errors import Refusal
from ownhand.evaluation.metrics import micro_average
from ownhand.evaluation.readings import READERS, ScoredLine, score_lines
from ownhand.evaluation.summary import Rate, compare_rates, summarise
from ownhand.files import read_json
from ownhand.params import EvaluateParams
from ownhand.samples import Sample

FOLDER = Path("data/cross_validation")
REMEDY = "run `dvc repro --force cross_validate`"
OF_A_READER = (
    "cer",
    "cer_low",
    "cer_high",
    "cer_unseen_texts",
    "cer_unseen_texts_low",
    "cer_unseen_texts_high",
    "wer",
    "wer_low",
    "wer_high",
    "exact_match",
    "runaway_rate",
)
OF_ALL = ("difference", "n_lines", "n_lines_trained_texts", "n_characters", "n_pages")


class Fold(Schema):
    """The record of one fold, as `cross_validate` writes it; losses in nats per token, of the held-out samples."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    fold: int
    trained: list[str]
    held_out: list[str]
    optimizer_steps: int
    val_loss_before: float
    val_loss: float
    val_loss_swapped_pictures: float  # each held-out text with the picture of another


class Folds(Schema):
    """The content of data/cross_validation/folds.json."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    folds: int
    records: list[Fold] = Field(default=[])


@dataclass(frozen=True)
class CrossValidation:
    """All lines with their readings, the rates over them, and the records of the folds in their order."""

    lines: list[ScoredLine]
    rates: list[Rate]
    records: list[Fold]

    @property
    def fold_of(self) -> dict[str, int]:
        """The fold in which each image was held out."""
        return {image_id: record.fold for record in self.records for image_id in record.held_out}

    def lines_of(self, record: Fold) -> list[ScoredLine]:
        """The lines that were held out in a fold."""
        own = set(record.held_out)
        return [line for line in self.lines if line.sample.image_id in own]


def read_cross_validation(root: Path, samples: Sequence[Sample], params: EvaluateParams) -> CrossValidation | None:
    """What `cross_validate` left below `root`; None where `evaluate.folds` is 0.

    Refusal when it is missing, is of another number of folds, or does not hold each sample out exactly once.
    """
    if not params.folds:
        return None
    path = root / FOLDER / "folds.json"
    where = (FOLDER / "folds.json").as_posix()
    if not path.exists():
        raise Refusal(f"{where} is missing, but evaluate.folds is {params.folds}; {REMEDY}")
    try:
        found = Folds.model_validate(read_json(path, REMEDY))
    except ValidationError as error:
        raise Refusal(f"{where} cannot be read: {error.errors()[0]['msg']}; {REMEDY}") from None
    if found.folds != params.folds:
        raise Refusal(f"{where} is of {found.folds} folds, evaluate.folds is {params.folds}; {REMEDY}")
    held_out = sorted(image_id for record in found.records for image_id in record.held_out)
    if held_out != sorted(sample.image_id for sample in samples):
        raise Refusal(f"{where} does not hold out each sample of metadata.json once; {REMEDY}")
    files = {reader: root / FOLDER / f"{reader}.jsonl" for reader in READERS}
    lines = score_lines([replace(sample, split="val") for sample in samples], files, remedy=REMEDY)
    lines = _mark_trained(lines, found.records)
    return CrossValidation(lines, compare_rates(lines, params), found.records)


def _mark_trained(lines: Sequence[ScoredLine], records: Sequence[Fold]) -> list[ScoredLine]:
    """The lines with what was trained on in the fold that held each of them out."""
    text_of = {line.sample.image_id: line.sample.text for line in lines}
    trained: dict[str, bool] = {}
    for record in records:
        own = [text_of[image_id] for image_id in record.held_out]
        found = find_trained(own, [text_of[image_id] for image_id in record.trained if image_id in text_of])
        trained |= dict(zip(record.held_out, found, strict=True))
    return [replace(line, text_was_trained=trained[line.sample.image_id]) for line in lines]


def summarise_cross_validation(found: CrossValidation | None) -> dict[str, Any]:
    """For summary.json: rates over all lines with their intervals over pages, their difference, and each fold's.

    All of it under one key, `cross_validation`; nothing without cross-validation.
    """
    if found is None:
        return {}
    whole = summarise(found.lines, found.rates)
    summary = {
        "folds": len(found.records),
        **{reader: {name: whole[reader][name] for name in OF_A_READER} for reader in READERS},
        **{name: whole[name] for name in OF_ALL},
        "by_fold": {
            str(row["fold"]): {name: row[name] for name in ("base_cer", "adapter_cer")} for row in by_fold(found)
        },
    }
    return {"cross_validation": summary}


def by_fold(found: CrossValidation) -> list[dict[str, Any]]:
    """Per fold: what was held out, what it was trained on, CER of base and adapter, and the three losses."""
    rows = []
    for record in found.records:
        lines = found.lines_of(record)
        row: dict[str, Any] = {
            "fold": record.fold,
            "lines": len(lines),
            "pages": len({line.page for line in lines}),
            "characters": sum(line.characters for line in lines),
            "trained_lines": len(record.trained),
            "optimizer_steps": record.optimizer_steps,
        }
        for reader in READERS:
            scores = [line.scores[reader] for line in lines]
            row[f"{reader}_cer"] = micro_average((score.character_errors, score.characters) for score in scores)
        losses = ("val_loss_before", "val_loss", "val_loss_swapped_pictures")
        rows.append(row | {name: getattr(record, name) for name in losses})
    return rows


def compare_with_validation(summary: dict[str, Any]) -> str | None:
    """A sentence where the plain validation pages are unusual; None where chance may explain the difference.

    Each of the two rates must lie outside the other's interval: fewer pages scatter more, so that their rate outside
    the interval over all pages is nothing unusual by itself.
    """
    crossed = summary.get("cross_validation")
    if not crossed or crossed["adapter"]["cer_low"] is None or summary["adapter"]["cer_low"] is None:
        return None
    own, over_all = summary["adapter"], crossed["adapter"]
    cer, low, high = own["cer"], over_all["cer_low"], over_all["cer_high"]
    if low <= cer <= high or own["cer_low"] <= over_all["cer"] <= own["cer_high"]:
        return None
    kind = "easier" if cer < low else "harder"
    return (
        f"the validation pages seem {kind} than most: their CER is {cer:.1%}, cross-validation over all pages gives "
        f"{over_all['cer']:.1%} ({low:.1%} to {high:.1%}); believe the latter"
    )


def word_cross_validation(summary: dict[str, Any]) -> list[str]:
    """Lines for the terminal; none without cross-validation."""
    crossed = summary.get("cross_validation")
    if not crossed:
        return []
    rates = f"CER {crossed['base']['cer']:.1%} -> {crossed['adapter']['cer']:.1%}"
    said = f"cross-validation: {rates} on {crossed['n_pages']} page(s) in {crossed['folds']} folds"
    odd = compare_with_validation(summary)
    return [said, *([f"note: {odd}"] if odd else [])]
