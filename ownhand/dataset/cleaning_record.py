"""Record of the cleaning: what was done to which picture, and a before and after of each step for the report.

data/processed/cleaning/turned.csv   image_id, turned_degrees (counter-clockwise above 0), where `deskew` is on
data/processed/cleaning/sheet.json   a contact sheet, see contact_sheet.py
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ownhand.dataset.cleaning import NOTHING, Cleaning, clean_by_steps
from ownhand.dataset.conversion import Original, open_original
from ownhand.files import write_text
from ownhand.images import ImageLimits
from ownhand.vision.contact_sheet import Group, write_contact_sheet

CLEANING = "cleaning"  # below data/processed
TRIED = 8  # training pictures, of which each step shows the one that it changed most


@dataclass(frozen=True)
class CleanedSample:
    """A training or validation sample with what it was made of."""

    image_id: str
    split: str
    original: Original
    turned_degrees: float


@dataclass(frozen=True)
class _Step:
    change: float
    image_id: str
    before: Image.Image
    after: Image.Image
    turned_degrees: float


def record_cleaning(folder: Path, samples: Sequence[CleanedSample], limits: ImageLimits, cleaning: Cleaning) -> None:
    """Write the record into `folder`; nothing where no step is switched on.

    The pictures before each step are read again, of the training samples that were turned most.
    """
    if cleaning == NOTHING:
        return
    if cleaning.deskew:
        rows = "".join(f"{sample.image_id},{sample.turned_degrees:g}\n" for sample in samples)
        write_text(folder / "turned.csv", "image_id,turned_degrees\n" + rows)
    training = [sample for sample in samples if sample.split == "train"]
    shown: dict[str, _Step] = {}
    for sample in sorted(training, key=lambda sample: -abs(sample.turned_degrees))[:TRIED]:
        before = open_original(sample.original, limits)
        for name, cleaned in clean_by_steps(before, cleaning):
            after = cleaned.image
            step = _Step(_change(before, after), sample.image_id, before, after, cleaned.turned_degrees)
            if name not in shown or step.change > shown[name].change:
                shown[name] = step
            before = after
    groups = [
        Group(f"{name}, training picture {step.image_id}", [("before", step.before), (_describe(step), step.after)])
        for name, step in shown.items()
    ]
    settings = {name: value for name, value in asdict(cleaning).items() if value}
    write_contact_sheet(folder, settings, groups)


def _change(before: Image.Image, after: Image.Image) -> float:
    """Mean difference of the pixels; a picture whose size changed was turned, which counts most."""
    if before.size != after.size:
        return 255.0
    return float(np.abs(np.asarray(before, np.float32) - np.asarray(after, np.float32)).mean())


def _describe(step: _Step) -> str:
    if step.turned_degrees:
        return f"after: turned by {step.turned_degrees:g}°"
    return "after" if step.change else "after: nothing to mend"
