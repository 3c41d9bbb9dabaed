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
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ownhand.dataset.conversion import Original, convert_pictures
from ownhand.dataset.conversion_cache import ConversionCache, open_cache
from ownhand.dataset.duplicates import Picture, find_same_pictures
from ownhand.dataset.frozen import read_frozen
from ownhand.dataset.leaks import SIDES, check_split, describe_split, list_names, word_split
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
from ownhand.dataset.splits import Split, SplitRules, SplitSample, split_samples
from ownhand.errors import Refusal, run_stage
from ownhand.files import write_json, write_text
from ownhand.ground_truth import Rejection, TranscribedImage, read_ground_truth
from ownhand.images import ImageLimits
from ownhand.params import PrepareParams, read_params
from ownhand.samples import PROCESSED, Sample, write_metadata

if TYPE_CHECKING:  # the processes that convert pictures import this module, and torch behind it costs each 300 MB
    from ownhand.model.fit import SequenceLimit

RAW = Path("data/raw")
METRICS = Path("metrics")
UNFINISHED = "unfinished"  # pictures are written here first: their id and side are known only when all are read

Accepted = tuple[TranscribedImage, Picture]


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
    workers: int | None = None,
    cache: ConversionCache | None = None,
) -> Summary:
    """Make the samples of `raw` in `processed`, which is emptied first; list in `metrics` what did not become one.

    The result does not depend on `workers` (None: all cores) or on what `cache` holds of earlier runs. Image ids count
    in the order of the annotations. Raises Refusal for ground truth that cannot be read, too many rejections, or
    samples that cannot be split.
    """
    rejected_csv, waiting_csv = metrics / REJECTED, metrics / WAITING
    if processed.exists():
        shutil.rmtree(processed)
    rejected_csv.unlink(missing_ok=True)
    waiting_csv.unlink(missing_ok=True)
    lists = {"val": params.val, "test": params.test}
    truth = read_ground_truth(raw, params.encoding, not_truth=[name for name in lists.values() if name])
    print(f"prepare: ground truth is read as {truth.source}")
    for note in truth.notes:
        print(f"prepare: note: {note}")
    originals = [Original(sample.path, sample.region) for sample in truth.samples]
    results = convert_pictures(originals, processed / UNFINISHED, ImageLimits.of(params), workers, cache)
    accepted: list[Accepted] = []
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
    write_waiting(waiting_csv, truth.waiting)
    try:
        refuse_too_many(rejections, len(accepted), params.max_rejected_share, raw, rejected_csv, truth.waiting)
        facts, split = _split(accepted, raw, metrics, params)
        for left_out, frozen in split.left_out:
            image, picture = accepted[left_out]
            picture.path.unlink()
            where = f"{accepted[frozen][0].name}, which prepare.{split.sides[frozen]} freezes"
            reason = f"left out: it shares a text or a picture with {where}"
            rejections.append(Rejection(image.name, image.row, reason, counted=False))
        if split.left_out:
            write_rejections(rejected_csv, rejections)
        _write_samples(accepted, facts, split, processed)
    except Refusal:
        shutil.rmtree(processed)
        raise
    if cache:
        cache.tidy()
    for line in count_kinds(rejections):
        print(f"prepare: rejected: {line}")
    if truth.waiting:
        print(f"prepare: {count_waiting(truth.waiting, waiting_csv)}")
    pages = {side: {(f.hand, f.page) for f, of in zip(facts, split.sides, strict=True) if of == side} for side in SIDES}
    return Summary(
        rows=truth.rows,
        images=truth.images,
        samples={side: split.sides.count(side) for side in SIDES if side in split.sides},
        pages={side: len(own) for side, own in pages.items() if own},
        rejected=len(rejections),
        rejected_csv=rejected_csv,
        waiting=len(truth.waiting),
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


def _split(
    accepted: Sequence[Accepted], raw: Path, metrics: Path, params: PrepareParams
) -> tuple[list[SplitSample], Split]:
    """Split, look for leaks without trusting the split, and write the proof to metrics/split.json."""
    names = [image.name for image, _ in accepted]
    pictures = [picture for _, picture in accepted]
    pages = name_pages([image for image, _ in accepted])
    places = [(image.hand, page) for (image, _), page in zip(accepted, pages, strict=True)]
    lists = {"val": params.val, "test": params.test}
    frozen = read_frozen(raw, lists, names, places)
    facts = [
        SplitSample(image.hand, page, image.text, side)
        for (image, _), page, side in zip(accepted, pages, frozen, strict=True)
    ]
    fixed = frozenset(side for side, name in lists.items() if name)
    rules = SplitRules(params.val_share, params.seed, params.test_share, params.same_text_characters, fixed)
    recurring = find_recurring([fact.text for fact in facts], [fact.place for fact in facts])
    split = split_samples(facts, find_same_pictures(pictures, recurring), rules)
    checks = check_split(facts, pictures, split.sides, params.same_text_characters)
    if checks.leaks:
        raise RuntimeError(f"the split has leaks, which is a mistake in this program: {checks}")
    shares = {"val": params.val_share, "test": params.test_share}
    chosen_by = {
        side: f"the list {name}" if name else f"prepare.{side}_share {shares[side]:g} and prepare.seed {params.seed}"
        for side, name in lists.items()
        if side in split.sides
    }
    write_json(
        metrics / "split.json", describe_split(facts, names, split, checks, chosen_by, params.same_text_characters)
    )
    for line in word_split(names, split, checks):
        print(f"prepare: {line}")
    return facts, split


def _write_samples(
    accepted: Sequence[Accepted],
    facts: Sequence[SplitSample],
    split: Split,
    processed: Path,
) -> None:
    """Number the pictures and move them to where they belong; the lists come last."""
    digits = max(5, len(str(len(accepted))))
    samples: dict[str, list[Sample]] = {side: [] for side in SIDES}
    for side in set(split.sides) & set(SIDES):
        (processed / side / "images").mkdir(parents=True)
    image_ids = [f"{number:0{digits}d}" for number in range(1, len(accepted) + 1)]
    for image_id, (image, picture), fact, side, group in zip(
        image_ids, accepted, facts, split.sides, split.groups, strict=True
    ):
        if not side:
            continue
        path = processed / side / "images" / f"{image_id}.jpg"
        os.replace(picture.path, path)
        samples[side].append(
            Sample(
                image_id=image_id,
                image_path=path.as_posix(),
                text=image.text,
                original_filename=image.name,
                page=fact.page,
                hand=image.hand,
                width=picture.width_px,
                height=picture.height_px,
                split=side,
                sha256=picture.sha256,
                group=image_ids[group],
            )
        )
    (processed / UNFINISHED).rmdir()
    for side, own in samples.items():
        if own:
            write_text(processed / f"{side}.txt", list_names([sample.original_filename for sample in own]))
    sides = [side for side in ("test", "train", "val") if samples[side]]
    write_metadata([sample for side in sides for sample in samples[side]], processed, sides)


def main() -> None:
    from ownhand.model.fit import SequenceLimit

    params = read_params()
    with open_cache(ImageLimits.of(params.prepare)) as cache:
        print(prepare(RAW, PROCESSED, METRICS, params.prepare, SequenceLimit.of(params), cache=cache))


if __name__ == "__main__":
    run_stage(main)
