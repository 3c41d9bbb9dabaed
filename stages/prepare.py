"""Prepare: photographs and their transcriptions become samples for training and validation.

Reads   data/raw/: pictures in any sub-folders and their transcriptions in one of the formats of DATA.md, such as
        annotations.csv (filename, text and perhaps page, hand); the base model's tokenizer; parameters `prepare`,
        and those of `model`, `encode`, `train` that decide what fits.
Writes  data/processed/{train,val}/: images/<image id>.jpg and metadata.json (last: without it the folder is not whole);
        {train,val}.txt (the original names); metrics/rejected.csv (file, row, reason), metrics/waiting.csv (what has no
        transcription yet), metrics/split.json (the proof that nothing held out was trained on, and what it allows).
        Test samples, where wanted, are kept apart in data/processed/test/, which no stage opens.
Refuses what cannot be one sample, row by row; the whole run when more than `prepare.max_rejected_share` is refused or
        when no split without a leak exists.
Alone   python -m stages.prepare
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ownhand.dataset.conversion import convert_pictures
from ownhand.dataset.conversion_cache import ConversionCache, open_cache
from ownhand.dataset.duplicates import find_same_pictures
from ownhand.dataset.frozen import read_frozen
from ownhand.dataset.leaks import check_split, describe_split, list_names, word_split
from ownhand.dataset.rejections import (
    REJECTED,
    WAITING,
    count_kinds,
    count_waiting,
    refuse_too_many,
    write_rejections,
    write_waiting,
)
from ownhand.dataset.repeats import find_recurring
from ownhand.dataset.splits import Split, SplitRules, split_samples
from ownhand.errors import Refusal, run_stage
from ownhand.files import clear_folder, write_json, write_text
from ownhand.ground_truth.matching import read_ground_truth
from ownhand.ground_truth.records import Record, Rejection
from ownhand.ground_truth.set_aside import NAME as SET_ASIDE
from ownhand.images import ConvertedPicture, ImageLimits
from ownhand.inputs import Inputs
from ownhand.params import PrepareParams, read_params
from ownhand.samples import ALL_SIDES, PROCESSED, Sample, write_metadata

if TYPE_CHECKING:  # the processes that convert pictures import this module, and torch behind it costs each 300 MB
    from ownhand.model.fit import SequenceLimit

RAW = Path("data/raw")
METRICS = Path("metrics")
UNFINISHED = "unfinished"  # pictures are written here first: their id and side are known only when all are read


def main() -> None:
    from ownhand.model.fit import SequenceLimit  # see above

    inputs = Inputs.of("prepare")
    params = read_params()
    with open_cache(ImageLimits.of(params.prepare)) as cache:
        closing = prepare(RAW, PROCESSED, METRICS, params.prepare, SequenceLimit.of(params), cache)
    inputs.refuse_edits()
    print(closing)


@dataclass(frozen=True)
class Summary:
    """What `prepare` read, wrote and refused: samples and pages of each side that has any."""

    rows: int
    images: int
    samples: dict[str, int]
    pages: dict[str, int]
    rejected: int
    rejected_csv: Path
    waiting: int

    def __str__(self) -> str:
        samples = " + ".join(f"{count} {side}" for side, count in self.samples.items())
        pages = " + ".join(str(count) for count in self.pages.values())
        return (
            f"prepare: read {self.rows} rows and {self.images} images; wrote {samples} samples ({pages} pages); "
            f"rejected {self.rejected} ({self.rejected_csv.as_posix()})"
        )


def prepare(
    raw: Path,
    processed: Path,
    metrics: Path,
    params: PrepareParams,
    limit: SequenceLimit,
    cache: ConversionCache | None = None,
) -> Summary:
    """Make the samples of `raw` in `processed`, which is emptied first; list in `metrics` what did not become one.

    The result does not depend on what `cache` holds of earlier runs. Image ids count in the order of the annotations.
    Raises Refusal for ground truth that cannot be read, too many rejections, or samples that cannot be split.
    """
    rejected_csv, waiting_csv = metrics / REJECTED, metrics / WAITING
    clear_folder(processed)
    rejected_csv.unlink(missing_ok=True)
    waiting_csv.unlink(missing_ok=True)
    lists = {"val": params.val, "test": params.test}
    truth = read_ground_truth(raw, params.encoding, not_truth=[name for name in lists.values() if name])
    print(f"prepare: ground truth is read as {truth.source}")
    for note in truth.notes:
        print(f"prepare: note: {note}")
    results = convert_pictures(
        [(record.path, record.region) for record in truth.records],
        processed / UNFINISHED,
        ImageLimits.of(params),
        cache=cache,
    )
    accepted: list[Record] = []
    pictures: list[ConvertedPicture] = []
    rejections = list(truth.rejections)
    for record, result in zip(truth.records, results, strict=True):
        if not isinstance(result, ConvertedPicture):
            rejections.append(Rejection(record.filename, record.row, result))
        elif problem := limit.why_not(record.text, result.width_px, result.height_px):
            result.path.unlink()
            rejections.append(Rejection(record.filename, record.row, problem))
        else:
            accepted.append(record)
            pictures.append(result)
    write_rejections(rejected_csv, rejections)
    write_waiting(waiting_csv, truth.waiting)
    try:
        refuse_too_many(rejections, len(accepted), params.max_rejected_share, raw, rejected_csv, truth.waiting)
        samples = _make_samples(accepted, pictures, raw, lists)
        split = _split(samples, pictures, lists, metrics, params)
        for left_out, frozen in split.left_out:
            pictures[left_out].path.unlink()
            where = f"{accepted[frozen].filename}, which prepare.{split.sides[frozen]} freezes"
            reason = f"left out: it shares a text or a picture with {where}"
            rejections.append(Rejection(accepted[left_out].filename, accepted[left_out].row, reason, counted=False))
        if split.left_out:
            write_rejections(rejected_csv, rejections)
        _write_samples(samples, split, processed)
    except Refusal:
        shutil.rmtree(processed)
        raise
    if cache:
        cache.tidy()
    for line in count_kinds(rejections):
        print(f"prepare: rejected: {line}")
    if truth.waiting:
        print(f"prepare: {count_waiting(truth.waiting, waiting_csv)}")
    if truth.set_aside:
        print(f"prepare: {truth.set_aside} set aside as no ground truth ({(raw / SET_ASIDE).as_posix()})")
    placed = list(zip(samples, split.sides, strict=True))
    pages = {side: {sample.place for sample, of in placed if of == side} for side in ALL_SIDES}
    return Summary(
        rows=truth.rows,
        images=truth.images,
        samples={side: split.sides.count(side) for side in ALL_SIDES if side in split.sides},
        pages={side: len(own) for side, own in pages.items() if own},
        rejected=len(rejections),
        rejected_csv=rejected_csv,
        waiting=len(truth.waiting),
    )


def name_pages(records: Sequence[Record]) -> list[str]:
    """The page of each record; one that names none is its own page, called like its file without the suffix.

    Where that name is another's too, the file name stays whole, so that no two own pages are one.
    """
    stems = [str(PurePosixPath(record.filename).with_suffix("")) for record in records]
    own = Counter(stem for record, stem in zip(records, stems, strict=True) if not record.page)
    given = {record.page for record in records}
    return [
        record.page or (record.filename if own[stem] > 1 or stem in given else stem)
        for record, stem in zip(records, stems, strict=True)
    ]


def _make_samples(
    accepted: Sequence[Record], pictures: Sequence[ConvertedPicture], raw: Path, lists: dict[str, str | None]
) -> list[Sample]:
    """Samples in the order of the annotations, their pictures where they were converted to; `split` is the side of
    those that a list freezes, "" for the others.
    """
    names, pages = [record.filename for record in accepted], name_pages(accepted)
    frozen = read_frozen(raw, lists, names, [(record.hand, page) for record, page in zip(accepted, pages, strict=True)])
    digits = max(5, len(str(len(accepted))))
    return [
        Sample(
            image_id=f"{number:0{digits}d}",
            image_path=picture.path.as_posix(),
            text=record.text,
            original_filename=record.filename,
            page=page,
            hand=record.hand,
            width=picture.width_px,
            height=picture.height_px,
            split=side,
            sha256=picture.sha256,
        )
        for number, (record, picture, page, side) in enumerate(zip(accepted, pictures, pages, frozen, strict=True), 1)
    ]


def _split(
    samples: Sequence[Sample],
    pictures: Sequence[ConvertedPicture],
    lists: dict[str, str | None],
    metrics: Path,
    params: PrepareParams,
) -> Split:
    """Split, look for leaks without trusting the split, and write the proof to metrics/split.json."""
    fixed = frozenset(side for side, name in lists.items() if name)
    rules = SplitRules(params.val_share, params.seed, params.test_share, params.same_text_characters, fixed)
    recurring = find_recurring([sample.text for sample in samples], [sample.place for sample in samples])
    split = split_samples(samples, find_same_pictures(pictures, recurring), rules)
    checks = check_split(samples, pictures, split.sides, params.same_text_characters)
    if checks.leaks:
        raise RuntimeError(f"the split has leaks, which is a mistake in this program: {checks}")
    shares = {"val": params.val_share, "test": params.test_share}
    chosen_by = {
        side: f"the list {name}" if name else f"prepare.{side}_share {shares[side]:g} and prepare.seed {params.seed}"
        for side, name in lists.items()
        if side in split.sides
    }
    write_json(metrics / "split.json", describe_split(samples, split, checks, chosen_by, params.same_text_characters))
    for line in word_split(samples, split, checks):
        print(f"prepare: {line}")
    return split


def _write_samples(samples: Sequence[Sample], split: Split, processed: Path) -> None:
    """Move the pictures to where they belong; the lists come last."""
    sides = [side for side in ALL_SIDES if side in split.sides]
    for side in sides:
        (processed / side / "images").mkdir(parents=True)
    placed = []
    for sample, side, group in zip(samples, split.sides, split.groups, strict=True):
        if side:
            path = processed / side / "images" / f"{sample.image_id}.jpg"
            os.replace(sample.image_path, path)
            placed.append(replace(sample, image_path=path.as_posix(), split=side, group=samples[group].image_id))
    (processed / UNFINISHED).rmdir()
    for side in sides:
        names = list_names([sample.original_filename for sample in placed if sample.split == side])
        write_text(processed / f"{side}.txt", names)
    write_metadata(placed, processed, sides)


if __name__ == "__main__":
    run_stage(main)
