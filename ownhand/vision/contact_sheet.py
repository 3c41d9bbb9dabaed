"""Contact sheets: small pictures of what a stage does to photographs, left in its output for the report.

<folder>/sheet.json   settings, and groups of pictures: title, and file, caption, width, height of each
<folder>/00-01.jpg    group and place in it
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ownhand.files import read_json, write_atomically, write_json

SHEET = "sheet.json"
SIDES_PX = (560, 320)  # of a picture at most
QUALITY = 80


@dataclass(frozen=True)
class ContactRow:
    """Pictures that belong together, each with its caption."""

    title: str
    pictures: Sequence[tuple[str, Image.Image]]


def write_contact_sheet(folder: Path, settings: Mapping[str, Any], groups: Sequence[ContactRow]) -> None:
    """Write the pictures, reduced, and the settings that made them; sheet.json last."""
    written = []
    for number, group in enumerate(groups):
        entries = []
        for place, (caption, image) in enumerate(group.pictures):
            small = image.copy()
            small.thumbnail(SIDES_PX, Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=QUALITY)
            file = f"{number:02d}-{place:02d}.jpg"
            with write_atomically(folder / file) as temporary:
                temporary.write_bytes(buffer.getvalue())
            entries.append({"file": file, "caption": caption, "width": small.width, "height": small.height})
        written.append({"title": group.title, "pictures": entries})
    write_json(folder / SHEET, {"settings": dict(settings), "groups": written})


def read_contact_sheet(folder: Path) -> dict[str, Any] | None:
    """The content of sheet.json; None where no stage left one."""
    path = folder / SHEET
    if not path.exists():
        return None
    content: dict[str, Any] = read_json(path, "run `dvc repro --force --single-item encode`")
    return content
