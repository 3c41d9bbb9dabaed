"""Probes: pictures that show whether a model reads its pictures, and what it could read before.

Shuffled  some validation lines with the vision tokens of another line: a model that reads must get them wrong.
Blank     the same lines with a white picture of the same size: what comes out is recited.
Printed   24 lines in four printed fonts, drawn here, the same for every data set: what the base model could read and
          the adapter may have cost.

`encode` looks at the blank and printed pictures, `transcribe` reads, `evaluate` judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo.drawing import Hand, draw_line
from ownhand.samples import Sample

PRINTED_TEXTS = Path("demo/texts/printed.txt")
PRINTED_FONTS = Path("demo/fonts/held_out")  # families that the demo base model has never seen
PRINTED_HAND = Hand(wobble=0.0, size_jitter=0.0, stretch_jitter=0.0, ink=(20, 20, 20), shade=0.05, grain=2.0)
PRINTED_HEIGHT_PX = 64
LINES = 24  # validation lines that are read with wrong and blank pictures; enough to tell reading from reciting


@dataclass(frozen=True)
class PrintedLine:
    """A line of the fixed printed set: its key in the feature cache, and its text."""

    key: str
    text: str


def printed_lines() -> list[PrintedLine]:
    """The fixed set, in order of the text file."""
    texts = PRINTED_TEXTS.read_text(encoding="utf-8").splitlines()
    return [PrintedLine(f"printed/{number:02d}", text) for number, text in enumerate(texts)]


def draw_printed(line: PrintedLine) -> Image.Image:
    """The line as a clean print; fonts take turns, and every call draws the same pixels."""
    number = int(line.key.rpartition("/")[2])
    fonts = sorted(PRINTED_FONTS.glob("*.woff2"))
    rng = np.random.default_rng(number)
    return draw_line(line.text, fonts[number % len(fonts)], PRINTED_HAND, rng, PRINTED_HEIGHT_PX)


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
    return blank | {line.key: draw_printed(line) for line in printed_lines()}


def exchange(samples: Sequence[Sample]) -> list[Sample]:
    """For each sample the next one, going round, that has another text; empty where all texts are the same."""
    if len({sample.text for sample in samples}) < 2:
        return []
    return [
        next(other for other in [*samples[number + 1 :], *samples] if other.text != sample.text)
        for number, sample in enumerate(samples)
    ]
