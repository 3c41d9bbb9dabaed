"""The samples of `data/processed/metadata.json`, as `prepare` wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import read_json

METADATA = Path("data/processed/metadata.json")


@dataclass(frozen=True)
class Sample:
    """One picture with its transcription. `image_path` is a POSIX path from the repository root.

    group: what must stay on one side, pages that share a text or a picture with each other; it is the image id of one
    of its samples, and "" in files of before it was recorded.
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


def read_metadata(path: Path = METADATA) -> list[Sample]:
    """All samples in order of image id. FileNotFoundError says which stage is missing, Refusal that it is damaged."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro prepare`")
    remedy = "run `dvc repro --force --single-item prepare`"
    try:
        return [Sample(**record) for record in read_json(path, remedy)]
    except TypeError as error:
        raise Refusal(f"{path.as_posix()} does not hold samples ({error}); {remedy}") from None
