"""Probes: pictures that show whether a model reads its pictures, and what it could read before.

Swapped   some validation lines with the vision tokens of another line: a model that reads must get them wrong.
Blank     the same lines with a white picture of the same size: what comes out is recited.
Printed   48 lines, half Russian, half English, French and German, in four printed fonts: the pictures of printed_lines/
          for every data set, drawn by `demo.printed_lines`. What the base model could read, and what the adapter may
          have cost.

`encode` looks at the blank and printed pictures, `transcribe` reads, `evaluate` judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ownhand.images import open_image
from ownhand.samples import Sample

PRINTED = Path(__file__).parent / "printed_lines"  # in fonts that the demo base model has never seen
LINES = 24  # validation lines that are read with wrong and blank pictures; enough to tell reading from reciting


@dataclass(frozen=True)
class PrintedLine:
    """A line of the fixed printed set: its key in the feature cache, and its text."""

    key: str
    text: str


def printed_lines() -> list[PrintedLine]:
    """The fixed set, in order of the text file."""
    texts = (PRINTED / "texts.txt").read_text(encoding="utf-8").splitlines()
    return [PrintedLine(f"printed/{number:02d}", text) for number, text in enumerate(texts)]


def open_printed(line: PrintedLine) -> Image.Image:
    """The picture of the line, RGB."""
    return open_image(PRINTED / f"{line.key.rpartition('/')[2]}.jpg")


def probe_samples(samples: Sequence[Sample]) -> list[Sample]:
    """At most LINES validation samples, evenly spread, so that as many pages as possible are among them."""
    validation = [sample for sample in samples if sample.split == "val"]
    if len(validation) <= LINES:
        return validation
    return [validation[number * len(validation) // LINES] for number in range(LINES)]


def blank_key(sample: Sample) -> str:
    """The key of the sample's blank picture in the feature cache."""
    return f"blank/{sample.image_id}"


def probe_pictures(samples: Sequence[Sample]) -> dict[str, Image.Image]:
    """Every blank and printed picture by its key in the feature cache."""
    blank = {
        blank_key(sample): Image.new("RGB", (sample.width, sample.height), "white") for sample in probe_samples(samples)
    }
    return blank | {line.key: open_printed(line) for line in printed_lines()}


def swap(samples: Sequence[Sample]) -> list[Sample]:
    """For each sample the next one, going round, that has another text; empty where all texts are the same."""
    if len({sample.text for sample in samples}) < 2:
        return []
    return [
        next(other for other in [*samples[number + 1 :], *samples] if other.text != sample.text)
        for number, sample in enumerate(samples)
    ]
