"""Thumbnails: the pictures of the report, small enough that the whole file stays light."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ownhand.errors import Refusal
from ownhand.evaluation.readings import ScoredLine
from ownhand.images import open_image
from ownhand.progress import track

ALL_BYTES = 12_000_000  # of all pictures; in base64 a third more, so that 1,000 lines stay well under 25 MB
ONE_BYTES = (12_000, 160_000)  # what one picture may take, at least and at most
SIDES_PX = (1200, 900, 640, 420, 280)  # tried in this order until the picture is small enough
QUALITY = 74


@dataclass(frozen=True)
class Thumbnail:
    """An embedded picture: data URI, size in pixels."""

    uri: str
    width: int
    height: int


def embed_pictures(lines: Sequence[ScoredLine], root: Path) -> dict[str, Thumbnail]:
    """Pictures by image id, as reduced JPEGs; where the bytes for all are spent, the last lines go without.

    Raises Refusal that lists every picture which is missing.
    """
    missing = [line.sample.image_path for line in lines if not (root / line.sample.image_path).exists()]
    if missing:
        raise Refusal(f"validation pictures are missing: {', '.join(missing)}; run `dvc repro prepare` again")
    smallest, largest = ONE_BYTES
    allowed = min(largest, max(smallest, ALL_BYTES // len(lines)))
    pictures: dict[str, Thumbnail] = {}
    spent = 0
    with ThreadPoolExecutor() as threads:  # Pillow works outside Python's lock
        reduced = threads.map(lambda line: _reduce(root / line.sample.image_path, allowed), lines)
        progress = track(reduced, total=len(lines), what="pictures for the report", unit="line", delay=2)
        for line, (jpeg, size) in zip(lines, progress, strict=True):
            spent += len(jpeg)
            if spent <= ALL_BYTES:
                pictures[line.sample.image_id] = Thumbnail(_data_uri(jpeg), *size)
    return pictures


def embed_jpeg(path: Path) -> str:
    """A JPEG file as data URI, as it is."""
    return _data_uri(path.read_bytes())


def _data_uri(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def _reduce(path: Path, allowed_bytes: int) -> tuple[bytes, tuple[int, int]]:
    picture = open_image(path)
    for side_px in SIDES_PX:
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=QUALITY, optimize=True)
        if buffer.tell() <= allowed_bytes:
            break
    return buffer.getvalue(), picture.size
