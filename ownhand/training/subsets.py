"""Subsets: ever larger parts of the training pages, each trained on as `train` trains, for the learning curve.

Pages that belong together (the groups of `prepare`) come in as one. They stand in an order that their pictures'
content gives, as good as drawn by lot and kept when pages are added. Subsets are taken from both of its ends, so that
what chance does to a small one can be seen; those from one end hold each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ownhand.errors import Refusal
from ownhand.files import hash_value
from ownhand.model.base import BaseModel
from ownhand.params import Params
from ownhand.runtime import checkpoint_folder, fingerprint
from ownhand.samples import SIDES, Sample, metadata_file
from ownhand.training.cross_validation import train_each, without_choice
from ownhand.training.folds import join_groups
from ownhand.vision.features import FeatureCache

Row = dict[str, Any]


@dataclass(frozen=True)
class Subset:
    """Some of the training samples; name: such as "first 38 lines"."""

    name: str
    samples: list[Sample]

    @property
    def pages(self) -> int:
        """How many pages they stand on."""
        return len({sample.place for sample in self.samples})


def choose_subsets(samples: Sequence[Sample], points: int) -> list[Subset]:
    """The halves, quarters and so on of the training samples, `points` sizes with the whole, from small to large.

    Each size comes from both ends of the order, as near as whole groups allow; the whole comes once and last. Refusal
    when the groups are too few for two sizes.
    """
    training = [sample for sample in samples if sample.split == "train"]
    groups: dict[int, list[Sample]] = {}
    for group, sample in zip(join_groups(training), training, strict=True):
        groups.setdefault(group, []).append(sample)
    order = sorted(groups.values(), key=lambda group: hash_value(sorted(sample.sha256 for sample in group)))
    found: dict[tuple[str, int], list[Sample]] = {}
    for power in range(points - 1, 0, -1):
        for end, row in (("first", order), ("last", order[::-1])):
            part = _take(row, len(training) / 2**power)
            if len(part) < len(training):
                found.setdefault((end, len(part)), part)
    if not found:
        raise Refusal(
            f"{len(training)} training line(s) make {len(order)} group(s) of pages, too few for a curve; add pages"
        )
    chosen = [Subset(f"{end} {size} lines", part) for (end, size), part in found.items()]
    chosen.sort(key=lambda subset: len(subset.samples))
    return [*chosen, Subset(f"all {len(training)} lines", training)]


def train_on_subsets(
    subsets: Sequence[Subset],
    samples: Sequence[Sample],
    params: Params,
    features: Path,
    unfinished: Path,
    device: torch.device,
) -> tuple[list[Row], list[Row]]:
    """(what the base model read, the record and rows of each subset's adapter) on the validation samples.

    Finished subsets stay in `unfinished`: further ones cost only themselves. Refusal when a subset has fewer training
    views than a batch.
    """
    validation = [sample for sample in samples if sample.split == "val"]
    runs = {subset.name: [*subset.samples, *validation] for subset in subsets}
    return train_each("curve", runs, without_choice(params), FeatureCache(features), unfinished, device)


def subsets_folder(params: Params, features: Path) -> Path:
    """Where the adapters' readings of exactly these samples, vision tokens and parameters lie."""
    files = [*map(metadata_file, SIDES), features / "index.json", *BaseModel.open(params, weights=False).files()]
    decides = (params.model, params.encode, without_choice(params).train, params.transcribe)
    return checkpoint_folder("curve", fingerprint(*decides, files=files))


def _take(row: Sequence[list[Sample]], wanted: float) -> list[Sample]:
    """Whole groups from the front, at least one, as near to so many samples as they allow; in order of image id."""
    taken = list(row[0])
    for group in row[1:]:
        if abs(len(taken) + len(group) - wanted) > abs(len(taken) - wanted):
            break
        taken += group
    return sorted(taken, key=lambda sample: sample.image_id)
