"""Prepare: photographs and their transcriptions become samples for training and validation.

Reads   data/raw/: pictures in any sub-folders and their transcriptions in one of the formats of DATA.md, such as
        annotations.csv (filename, text and perhaps page, hand); the base model's tokenizer; parameters `prepare`,
        and those of `model`, `encode`, `train` that decide what fits.
Writes  data/processed/{train,val}/images/<image id>.jpg, data/processed/metadata.json (last: without it the folder is
        not whole), metrics/rejected.csv (file, row, reason).
Refuses what cannot be one sample, row by row; the whole run when more than `prepare.max_rejected_share` is refused or
        when no split without a leak exists.
Alone   python -m stages.prepare
"""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from stages.lib.conversion import Original, convert_pictures
from stages.lib.duplicates import Picture, find_same_pictures
from stages.lib.failures import Refusal, run_stage
from stages.lib.files import write_json, write_text
from stages.lib.ground_truth import Rejection, TranscribedImage, read_ground_truth
from stages.lib.images import ImageLimits
from stages.lib.metadata import METADATA, Sample
from stages.lib.params import PrepareParams, read_params
from stages.lib.splits import Split, SplitSample, split_samples

if TYPE_CHECKING:  # the processes that convert pictures import this module, and torch behind it costs each 300 MB
    from stages.lib.fit import SequenceLimit

RAW = Path("data/raw")
REJECTED = Path("metrics/rejected.csv")
UNFINISHED = "unfinished"  # pictures are written here first: their id and side are known only when all are read
SHOWN = 5  # examples in a message; lists are complete


@dataclass(frozen=True)
class Summary:
    """What `prepare` read, wrote and refused; samples and pages as (train, val)."""

    rows: int
    images: int
    samples: tuple[int, int]
    pages: tuple[int, int]
    rejected: int
    rejected_csv: Path

    def __str__(self) -> str:
        return (
            f"prepare: read {self.rows} rows and {self.images} images; "
            f"wrote {self.samples[0]} train + {self.samples[1]} val samples ({self.pages[0]} + {self.pages[1]} pages); "
            f"rejected {self.rejected} ({self.rejected_csv.as_posix()})"
        )


def prepare(
    raw: Path,
    processed: Path,
    rejected_csv: Path,
    params: PrepareParams,
    limit: SequenceLimit,
    workers: int | None = None,
) -> Summary:
    """Make the samples of `raw` in `processed`, which is emptied first; list in `rejected_csv` what did not become one.

    The result does not depend on `workers` (None: all cores). Image ids count in the order of the annotations. Raises
    Refusal for ground truth that cannot be read, too many rejections, or samples that cannot be split.
    """
    if processed.exists():
        shutil.rmtree(processed)
    rejected_csv.unlink(missing_ok=True)
    truth = read_ground_truth(raw, params.encoding)
    print(f"prepare: ground truth is read as {truth.source}")
    for note in truth.notes:
        print(f"prepare: note: {note}")
    limits = ImageLimits(params.max_side_px, params.min_side_px, params.max_pixels, params.max_aspect)
    unfinished = processed / UNFINISHED
    originals = [Original(sample.path, sample.region) for sample in truth.samples]
    results = convert_pictures(originals, unfinished, limits, workers)
    accepted: list[tuple[TranscribedImage, Picture]] = []
    rejections = list(truth.rejections)
    for sample, result in zip(truth.samples, results, strict=True):
        if not isinstance(result, Picture):
            rejections.append(Rejection(sample.name, sample.row, result))
        elif problem := limit.why_not(sample.text, result.width_px, result.height_px):
            result.path.unlink()
            rejections.append(Rejection(sample.name, sample.row, problem))
        else:
            accepted.append((sample, result))
    write_rejections(rejected_csv, rejections)
    try:
        _refuse_too_many(rejections, len(accepted), params.max_rejected_share, rejected_csv)
        samples = _write_samples(accepted, processed, params)
    except Refusal:
        shutil.rmtree(processed)
        raise
    by_side = [[sample for sample in samples if sample.split == side] for side in ("train", "val")]
    train_pages, val_pages = (len({(sample.hand, sample.page) for sample in side}) for side in by_side)
    return Summary(
        rows=truth.rows,
        images=truth.images,
        samples=(len(by_side[0]), len(by_side[1])),
        pages=(train_pages, val_pages),
        rejected=len(rejections),
        rejected_csv=rejected_csv,
    )


def name_pages(samples: Sequence[TranscribedImage]) -> list[str]:
    """The page of each sample; one that names none is its own page, called like its file without the suffix.

    Where that name is another's too, the file name stays whole, so that no two own pages are one.
    """
    stems = [str(PurePosixPath(sample.name).with_suffix("")) for sample in samples]
    own = Counter(stem for sample, stem in zip(samples, stems, strict=True) if not sample.page)
    given = {sample.page for sample in samples}
    return [
        sample.page or (sample.name if own[stem] > 1 or stem in given else stem)
        for sample, stem in zip(samples, stems, strict=True)
    ]


def write_rejections(path: Path, rejections: Sequence[Rejection]) -> None:
    """The list of everything that did not become a sample, in the order of the rows, files without a row last."""
    rows = io.StringIO()
    table = csv.writer(rows, lineterminator="\n")
    table.writerow(["file", "row", "reason"])
    for rejection in sorted(rejections, key=lambda one: (one.row is None, _natural(one.row), one.file)):
        table.writerow([rejection.file, rejection.row or "", rejection.reason])
    write_text(path, rows.getvalue())


def _natural(row: int | str | None) -> list[tuple[str, int]]:
    """A key under which line 10 follows line 9, whatever stands before the number."""
    return [(before, int(number or 0)) for before, number in re.findall(r"(\D*)(\d*)", str(row or ""))]


def _refuse_too_many(rejections: Sequence[Rejection], accepted: int, max_share: float, rejected_csv: Path) -> None:
    counted = [rejection for rejection in rejections if rejection.counted]
    candidates = accepted + len(counted)
    if candidates == 0:
        raise Refusal(f"{RAW.as_posix()}: the annotations name no picture; nothing to prepare")
    if len(counted) <= max_share * candidates:
        return
    reasons = ""
    for kind, count in Counter(rejection.kind for rejection in counted).most_common(SHOWN):
        example = next(rejection for rejection in counted if rejection.kind == kind)
        reasons += f"\n  {count} x {kind}, such as row {example.row}, {example.file!r}: {example.reason}"
    raise Refusal(
        f"{len(counted)} of {candidates} samples are rejected, prepare.max_rejected_share allows {max_share:.0%}; "
        f"mend them or raise it. All are in {rejected_csv.as_posix()}. Most frequent:{reasons}"
    )


def _write_samples(
    accepted: Sequence[tuple[TranscribedImage, Picture]], processed: Path, params: PrepareParams
) -> list[Sample]:
    """Split, number and move the pictures to where they belong; metadata.json comes last."""
    images = [image for image, _ in accepted]
    pictures = [picture for _, picture in accepted]
    pages = name_pages(images)
    facts = [SplitSample(image.hand, page, image.text) for image, page in zip(images, pages, strict=True)]
    split = split_samples(facts, find_same_pictures(pictures), params.val_share, params.seed)
    _report_split(images, split)
    digits = max(5, len(str(len(accepted))))
    samples = []
    for side in ("train", "val"):
        (processed / side / "images").mkdir(parents=True)
    for number, (image, picture, page, side) in enumerate(zip(images, pictures, pages, split.sides, strict=True), 1):
        image_id = f"{number:0{digits}d}"
        path = processed / side / "images" / f"{image_id}.jpg"
        os.replace(picture.path, path)
        samples.append(
            Sample(
                image_id=image_id,
                image_path=path.as_posix(),
                text=image.text,
                original_filename=image.name,
                page=page,
                hand=image.hand,
                width=picture.width_px,
                height=picture.height_px,
                split=side,
                sha256=picture.sha256,
            )
        )
    (processed / UNFINISHED).rmdir()
    write_json(processed / METADATA.name, [asdict(sample) for sample in samples])
    return samples


def _report_split(images: Sequence[TranscribedImage], split: Split) -> None:
    """Say what tied pages together, and which texts can be read on the other side."""
    lines = [
        f"note: {images[join.first].name} and {images[join.second].name} hold {join.reason}; their pages stay together"
        for join in split.joins
    ]
    _print_some(lines, "more pages that stay together")
    lines = []
    for inner, outer in split.contained:
        sides = f"({split.sides[inner]}) stands inside that of {images[outer].name} ({split.sides[outer]})"
        lines.append(f"warning: the text of {images[inner].name} {sides}: it may be recited instead of read")
    _print_some(lines, "more texts of one side inside the other's")


def _print_some(lines: Sequence[str], what: str) -> None:
    for line in lines[:SHOWN]:
        print(f"prepare: {line}")
    if len(lines) > SHOWN:
        print(f"prepare: ... {len(lines) - SHOWN} {what}")


def main() -> None:
    from stages.lib.fit import SequenceLimit

    params = read_params()
    print(prepare(RAW, METADATA.parent, REJECTED, params.prepare, SequenceLimit.of(params)))


if __name__ == "__main__":
    run_stage(main)
