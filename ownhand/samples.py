"""The samples of `data/processed/metadata.json`, as `prepare` wrote them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

METADATA = Path("data/processed/metadata.json")


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


def read_metadata(path: Path = METADATA) -> list[Sample]:
    """All samples in order of image id. FileNotFoundError says which stage is missing."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `dvc repro prepare`")
    return [Sample(**record) for record in json.loads(path.read_text(encoding="utf-8"))]
