"""Ground truth: which picture holds which text. Read in this one place, whatever its format.

`read_ground_truth` finds out which format the folder holds, has it read, and matches what was read with the files that
really exist. A format is one file here; matching, duplicates and rejections are the same for all of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from ownhand.ground_truth.alto_xml import FORMAT as ALTO_XML
from ownhand.ground_truth.annotations import FORMAT as ANNOTATIONS
from ownhand.ground_truth.image_folder import FORMAT as IMAGE_FOLDER
from ownhand.ground_truth.json_lines import FORMAT as JSON_LINES
from ownhand.ground_truth.matching import EMPTY, GroundTruth, TranscribedImage, match
from ownhand.ground_truth.page_xml import FORMAT as PAGE_XML
from ownhand.ground_truth.records import GroundTruthError, Rejection, Waiting
from ownhand.ground_truth.set_aside import read_set_aside
from ownhand.ground_truth.text_files import FORMAT as TEXT_FILES
from ownhand.images import find_files, find_unfit_files

__all__ = [
    "FORMATS",
    "GroundTruth",
    "GroundTruthError",
    "Rejection",
    "TranscribedImage",
    "Waiting",
    "read_ground_truth",
]

SHOWN = 20  # entries that are no files, in one message
FORMATS = (ANNOTATIONS, TEXT_FILES, JSON_LINES, IMAGE_FOLDER, PAGE_XML, ALTO_XML)


def read_ground_truth(folder: Path, encoding: str, not_truth: Collection[str] = ()) -> GroundTruth:
    """The ground truth of `folder`; every record becomes a sample or a rejection or waits for its text.

    A picture without a record waits, too; what was set aside does not. `encoding` is that of tables, text files and
    JSON lines; XML says its own. `not_truth` names files that are something else, such as a list of validation
    pictures. Raises GroundTruthError when the folder holds no format or more than one, when it holds a FIFO, a dangling
    link or another entry that is no file, when its files cannot be read as a whole, or when two files differ only in
    case or Unicode form.
    """
    if not folder.is_dir():
        raise GroundTruthError(f"{folder.as_posix()} is missing; put the pictures and annotations.csv there")
    if unfit := find_unfit_files(folder):
        raise GroundTruthError(
            f"{folder.as_posix()} holds what is no file; `dvc repro` would wait for it for ever, or stop without a "
            f"reason. Remove it, or put the file itself there: {_listed(unfit)}"
        )
    found = find_files(folder)
    found = replace(found, files=[file for file in found.files if file[0] not in not_truth])
    seen = [(form, own) for form in FORMATS if (own := form.find(found.files))]
    if not seen:
        names = ", ".join(form.name for form in FORMATS)
        raise GroundTruthError(
            f"{folder.as_posix()} holds no transcriptions in a known format; seen: none of {names}. "
            "The simplest is a file annotations.csv with the columns filename and text; DATA.md shows all"
        )
    if len(seen) > 1:
        lines = "".join(f"\n  {form.name}: {_some(own)}" for form, own in seen)
        raise GroundTruthError(
            f"{folder.as_posix()} holds transcriptions in {len(seen)} formats, and which one is right cannot be known; "
            f"leave one and move the others out of it:{lines}"
        )
    ((form, own),) = seen
    if form.single and len(own) > 1:
        raise GroundTruthError(f"{folder.as_posix()} must hold one file of the format {form.name}; seen: {_some(own)}")
    own_names = {name for name, _ in own}
    others = [file for file in found.files if file[0] not in own_names]
    truth = match(form, own, form.read(own, others, encoding), replace(found, files=others))
    return _leave_out(truth, read_set_aside(folder))


def _leave_out(truth: GroundTruth, set_aside: Collection[str]) -> GroundTruth:
    """What was set aside waits no longer, and its empty text is no fault."""
    waiting = [one for one in truth.waiting if one.file not in set_aside]
    rejections = [one for one in truth.rejections if not (one.file in set_aside and one.reason == EMPTY)]
    left_out = len(truth.waiting) - len(waiting) + len(truth.rejections) - len(rejections)
    return replace(truth, waiting=waiting, rejections=rejections, set_aside=left_out)


def _listed(unfit: dict[str, str]) -> str:
    lines = [f"\n  {name}: {what}" for name, what in unfit.items()]
    more = f"\n  and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "".join(lines[:SHOWN]) + more


def _some(files: list[tuple[str, Path]]) -> str:
    shown = ", ".join(name for name, _ in files[:5])
    return shown + (f" and {len(files) - 5} more" if len(files) > 5 else "")
