"""Samples, as `prepare` writes them, and readings of their pictures: what passes from stage to stage.

Samples stand in `data/processed/{train,val}/metadata.json`, each whole for its side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ownhand.errors import Refusal
from ownhand.files import read_json, write_json

PROCESSED = Path("data/processed")
SIDES = ("train", "val")  # those that stages read
ALL_SIDES = (*SIDES, "test")  # test samples are kept apart


@dataclass(frozen=True)
class Sample:
    """One picture with its transcription. `image_path` is a POSIX path from the repository root.

    group: what must stay on one side: a page, or pages that share a picture, a passage or a long text; it is the image
    id of one of its samples, and "" in files of before it was recorded.
    """

    image_id: str
    image_path: str
    text: str
    original_filename: str
    page: str
    hand: str
    width: int
    height: int
    split: str
    sha256: str
    group: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Hand and page: two hands may both have a page 1."""
        return self.hand, self.page


@dataclass(frozen=True)
class Reading:
    """What a reader made of one picture.

    runaway: the output reached the token limit or ends in a loop; confidence: geometric mean of the probabilities of
    the chosen tokens, eos included, 0-1, NaN from readers that say none; character_confidence: for each code point of
    the text the probability of the token that holds it, () where tokens and text do not fit each other byte by byte.
    """

    text: str
    new_tokens: int = 0
    runaway: bool = False
    confidence: float = math.nan
    character_confidence: tuple[float, ...] = field(default=(), compare=False, repr=False)

    def row(self, image_id: str) -> dict[str, Any]:
        """The row of a prediction file, for the picture of this sample."""
        return {
            "image_id": image_id,
            "prediction": self.text,
            "new_tokens": self.new_tokens,
            "runaway": self.runaway,
            "confidence": self.confidence,
        }


def metadata_file(side: str, processed: Path = PROCESSED) -> Path:
    """The list of one side's samples."""
    return processed / side / "metadata.json"


def read_metadata(processed: Path = PROCESSED, sides: Sequence[str] = SIDES) -> list[Sample]:
    """The samples of the sides in order of image id.

    FileNotFoundError says which stage is missing, Refusal names a file that is damaged.
    """
    samples: list[Sample] = []
    for path in (metadata_file(side, processed) for side in sides):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: run `dvc repro prepare`")
        remedy = "run `dvc repro --force --single-item prepare`"
        try:
            samples += [Sample(**record) for record in read_json(path, remedy)]
        except TypeError as error:
            raise Refusal(f"{path.as_posix()} does not hold samples ({error}); {remedy}") from None
    return sorted(samples, key=lambda sample: sample.image_id)


def write_metadata(samples: Sequence[Sample], processed: Path = PROCESSED, sides: Sequence[str] = SIDES) -> None:
    """Write each side's samples, in order of image id, into its own list."""
    for side in sides:
        own = sorted((sample for sample in samples if sample.split == side), key=lambda sample: sample.image_id)
        write_json(metadata_file(side, processed), [asdict(sample) for sample in own])
