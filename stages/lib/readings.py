"""Readings: the validation lines with what each reader (base model, adapter) read on them, checked and scored.

A prediction file that does not match the validation lines exactly is refused: a line left out would make the rate look
better than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stages.lib.failures import Refusal
from stages.lib.metadata import Sample
from stages.lib.metrics import Score, score

READERS = ("base", "adapter")
SHOWN = 20  # ids, or lines that cannot be read, in one message


class Prediction(BaseModel):
    """One line of a prediction file, as `transcribe` writes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    image_id: str
    prediction: str
    new_tokens: int = Field(ge=0)
    runaway: bool = Field(description="hit max_new_tokens or loops")
    confidence: float = Field(ge=0, le=1, description="exp of the mean log-probability of the generated tokens")


@dataclass(frozen=True)
class Reading:
    """What one reader made of one line."""

    prediction: Prediction
    score: Score


@dataclass(frozen=True)
class Line:
    """One validation sample, a line or a whole page, with its transcription and its readings."""

    sample: Sample
    base: Reading
    adapter: Reading

    @property
    def page(self) -> str:
        """The page's name, with the hand's in front where there is one: two hands may both have a page 1."""
        return f"{self.sample.hand} / {self.sample.page}" if self.sample.hand else self.sample.page

    @property
    def characters(self) -> int:
        """Grapheme clusters of the transcription."""
        return self.base.score.characters

    def reading(self, reader: str) -> Reading:
        """The reading of "base" or "adapter"; KeyError for another name."""
        return {"base": self.base, "adapter": self.adapter}[reader]


def read_predictions(path: Path, image_ids: Sequence[str]) -> dict[str, Prediction]:
    """The predictions of a JSONL file by image id, exactly one for each of `image_ids`.

    Raises Refusal that lists the lines which cannot be read and the missing, unknown and repeated ids.
    """
    if not path.exists():
        raise Refusal(f"{path.as_posix()} is missing; run `dvc repro transcribe` first")
    predictions: list[Prediction] = []
    problems: list[str] = []
    for number, row in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not row.strip():
            continue
        try:
            predictions.append(Prediction.model_validate_json(row))
        except ValidationError as error:
            problem = error.errors()[0]
            where = ".".join(str(part) for part in problem["loc"])
            problems.append(f"line {number}: {where + ': ' if where else ''}{problem['msg']}")
    if not problems:  # which ids are missing cannot be told while there are lines that cannot be read
        counts = Counter(prediction.image_id for prediction in predictions)
        findings = {
            "no prediction for": sorted(set(image_ids) - set(counts)),
            "prediction for an image that is not in validation": sorted(set(counts) - set(image_ids)),
            "more than one prediction for": sorted(name for name, count in counts.items() if count > 1),
        }
        problems = [f"{finding}: {_listed(names)}" for finding, names in findings.items() if names]
    if problems:
        raise Refusal(
            f"{path.as_posix()} does not fit the {len(image_ids)} validation line(s); "
            f"remedy: `dvc repro --force transcribe`\n  {_listed(problems, separator=chr(10) + '  ')}"
        )
    return {prediction.image_id: prediction for prediction in predictions}


def read_lines(samples: Sequence[Sample], prediction_files: dict[str, Path]) -> list[Line]:
    """The validation samples among `samples` with their scored readings, in their order.

    `prediction_files` has one path for each of READERS. Raises Refusal with the problems of all files at once.
    """
    validation = [sample for sample in samples if sample.split == "val"]
    if not validation:
        raise Refusal("data/processed/metadata.json has no validation sample; run `dvc repro prepare` again")
    image_ids = [sample.image_id for sample in validation]
    readers: dict[str, dict[str, Prediction]] = {}
    problems: list[str] = []
    for reader in READERS:
        try:
            readers[reader] = read_predictions(prediction_files[reader], image_ids)
        except Refusal as refusal:
            problems.append(str(refusal))
    if problems:
        raise Refusal("\n".join(problems))

    def reading(reader: str, sample: Sample) -> Reading:
        prediction = readers[reader][sample.image_id]
        return Reading(prediction, score(sample.text, prediction.prediction))

    return [Line(sample, reading("base", sample), reading("adapter", sample)) for sample in validation]


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - SHOWN
    return separator.join([*names[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])])
