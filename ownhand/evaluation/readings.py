"""Readings: the validation lines with what each reader (base model, adapter, others) read on them, checked and scored.

A prediction file that does not match the validation lines exactly is refused: a line left out would make the rate look
better than it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel as Schema
from pydantic import ConfigDict, Field, ValidationError

from ownhand.dataset.repeats import find_trained
from ownhand.errors import Refusal
from ownhand.evaluation.metrics import Score, score
from ownhand.samples import Reading, Sample

READERS = ("base", "adapter")
PREDICTIONS = Path("data/predictions")
OWN_REMEDY = "run `dvc repro --force transcribe`"
OTHERS_REMEDY = "make the file as data/others/README.md says, or remove it"
SHOWN = 20  # ids, or lines that cannot be read, in one message


class _Row(Schema):
    """One line of another reader's prediction file; what else stands there is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    image_id: str
    prediction: str

    def reading(self) -> Reading:
        return Reading(self.prediction)


class _OwnRow(_Row):
    """One line of a prediction file as `transcribe` writes it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    new_tokens: int = Field(ge=0)
    runaway: bool
    confidence: float = Field(ge=0, le=1)

    def reading(self) -> Reading:
        return Reading(self.prediction, self.new_tokens, self.runaway, self.confidence)


def own_files(root: Path) -> dict[str, Path]:
    """The prediction files of base model and adapter below `root`, by reader, as `transcribe` writes them."""
    return {reader: root / PREDICTIONS / f"{reader}.jsonl" for reader in READERS}


@dataclass(frozen=True)
class ScoredLine:
    """One validation sample, a line or a whole page, with what each reader read and the score of it.

    readings, scores: by reader: base, adapter, then the others; text_was_trained: whether its text was also trained on,
    in another picture, so that it could be recited.
    """

    sample: Sample
    readings: Mapping[str, Reading]
    scores: Mapping[str, Score]
    text_was_trained: bool = False

    @property
    def base(self) -> Reading:
        """That of the base model."""
        return self.readings["base"]

    @property
    def adapter(self) -> Reading:
        """That of the base model with the adapter."""
        return self.readings["adapter"]

    @property
    def others(self) -> dict[str, Reading]:
        """Those of other readers, by name."""
        return {name: reading for name, reading in self.readings.items() if name not in READERS}

    @property
    def page(self) -> str:
        """The page's name, with the hand's in front where there is one: two hands may both have a page 1."""
        return f"{self.sample.hand} / {self.sample.page}" if self.sample.hand else self.sample.page

    @property
    def characters(self) -> int:
        """Grapheme clusters of the transcription."""
        return self.scores["base"].characters


def readers_of(lines: Sequence[ScoredLine]) -> tuple[str, ...]:
    """The names of all readers of these lines: base, adapter, then the others."""
    return tuple(lines[0].readings)


def worst_first(lines: Sequence[ScoredLine]) -> list[ScoredLine]:
    """By the adapter's CER, then by its errors."""
    return sorted(
        lines,
        key=lambda line: (-line.scores["adapter"].cer, -line.scores["adapter"].character_errors, line.sample.image_id),
    )


def read_predictions(path: Path, image_ids: Sequence[str], remedy: str, *, own: bool = False) -> dict[str, Reading]:
    """The readings of a JSONL file by image id, exactly one for each of `image_ids`.

    own: whether it must be as `transcribe` writes it. Raises Refusal that lists the lines which cannot be read and the
    missing, unknown and repeated ids, and names the `remedy`.
    """
    if not path.exists():
        raise Refusal(f"{path.as_posix()} is missing; {remedy}")
    predictions: list[_Row] = []
    kind = _OwnRow if own else _Row
    problems: list[str] = []
    for number, row in enumerate(read_text(path).split("\n"), start=1):
        if not row.strip():
            continue
        try:
            predictions.append(kind.model_validate_json(row))
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
            f"remedy: {remedy}\n  {_listed(problems, separator=chr(10) + '  ')}"
        )
    return {prediction.image_id: prediction.reading() for prediction in predictions}


def read_text(path: Path) -> str:
    """A prediction file as text, with or without a byte order mark. Refusal for a folder, and for what is not UTF-8."""
    if path.is_dir():
        raise Refusal(f"{path.as_posix()} is a folder; name the JSONL file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refusal(
            f"{path.as_posix()} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None


def score_lines(
    samples: Sequence[Sample],
    files: Mapping[str, Path],
    other_files: Mapping[str, Path] | None = None,
    remedy: str = OWN_REMEDY,
) -> list[ScoredLine]:
    """The validation samples among `samples` with their scored readings, in their order; the others were trained on.

    `files` has one path for each of READERS, which `remedy` makes again; `other_files` has one for each other reader by
    name. Raises Refusal with the problems of all files at once.
    """
    validation = [sample for sample in samples if sample.split == "val"]
    if not validation:
        raise Refusal("data/processed/val/metadata.json has no validation sample; run `dvc repro prepare` again")
    image_ids = [sample.image_id for sample in validation]
    trained = [sample.text for sample in samples if sample.split == "train"]
    read: dict[str, dict[str, Reading]] = {}
    problems: list[str] = []
    for reader, path in {**files, **(other_files or {})}.items():
        own = reader in READERS
        try:
            read[reader] = read_predictions(path, image_ids, remedy if own else OTHERS_REMEDY, own=own)
        except Refusal as refusal:
            problems.append(str(refusal))
    if problems:
        raise Refusal("\n".join(problems))

    lines = []
    for sample, known in zip(validation, find_trained([one.text for one in validation], trained), strict=True):
        readings = {reader: by_image[sample.image_id] for reader, by_image in read.items()}
        scores = {reader: score(sample.text, reading.text) for reader, reading in readings.items()}
        lines.append(ScoredLine(sample, readings, scores, known))
    return lines


def _listed(names: Sequence[str], separator: str = ", ") -> str:
    rest = len(names) - SHOWN
    return separator.join([*names[:SHOWN], *([f"and {rest} more"] if rest > 0 else [])])
