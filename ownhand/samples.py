"""The samples, as `prepare` writes them: `data/processed/{train,val}/metadata.json`, each whole for its side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
