"""Leaks: what was held out is compared with what is trained on once more, without using how the split was made.

The result goes to metrics/split.json together with what a person needs to see that two runs have the same split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ownhand.dataset.duplicates import SAME_PICTURE, Picture, close_fingerprints_across, similarity
from ownhand.dataset.splits import Split, SplitSample, comparable_text

SIDES = ("train", "val", "test")
SHOWN = 5  # examples in the log; metrics/split.json has all


@dataclass(frozen=True)
class Checks:
    """How often something of a held-out sample is in training, too; all but the last two must be 0.

    close_pictures_compared: pairs across the split whose fingerprints are close, so that their pixels were compared;
    shorter_identical_texts: identical texts below `prepare.same_text_characters`.
    """

    pages_on_both_sides: int
    identical_texts: int
    identical_pictures: int
    near_identical_pictures: int
    close_pictures_compared: int
    shorter_identical_texts: int

    @property
    def leaks(self) -> int:
        """The sum of what must be 0."""
        return self.pages_on_both_sides + self.identical_texts + self.identical_pictures + self.near_identical_pictures


def check_split(
    samples: Sequence[SplitSample], pictures: Sequence[Picture], sides: Sequence[str], same_text_characters: int
) -> Checks:
    """Compare pages, texts and pictures across the split; a sample of side "" takes part in neither."""
    trained = [i for i, side in enumerate(sides) if side == "train"]
    held_out = [i for i, side in enumerate(sides) if side and side != "train"]

    def shared(values: Sequence[Any]) -> set[Any]:
        return {values[i] for i in trained} & {values[i] for i in held_out}

    texts = shared([comparable_text(sample.text) for sample in samples])
    identical = {text for text in texts if len(text) >= same_text_characters}
    across = [(pictures[i], pictures[j]) for i, j in close_fingerprints_across(pictures, held_out, trained)]
    return Checks(
        pages_on_both_sides=len(shared([(sample.hand, sample.page) for sample in samples])),
        identical_texts=len(identical),
        identical_pictures=len(shared([picture.sha256 for picture in pictures])),
        near_identical_pictures=sum(similarity(one, other) >= SAME_PICTURE for one, other in across),
        close_pictures_compared=len(across),
        shorter_identical_texts=len(texts) - len(identical),
    )


def list_names(names: Sequence[str]) -> str:
    """The list of a side as it is written and hashed: one original file name per line, sorted."""
    return "".join(f"{name}\n" for name in sorted(names))


def describe_split(
    samples: Sequence[SplitSample], names: Sequence[str], split: Split, checks: Checks, chosen_by: dict[str, str]
) -> dict[str, Any]:
    """The content of metrics/split.json; `names` are the samples' original file names."""
    trained_characters = {c for s, side in zip(samples, split.sides, strict=True) if side == "train" for c in s.text}
    sides: dict[str, Any] = {}
    for side in SIDES:
        own = [i for i, of in enumerate(split.sides) if of == side]
        if not own:
            continue
        texts = [comparable_text(samples[i].text) for i in own]
        sides[side] = {
            "samples": len(own),
            "pages": len({(samples[i].hand, samples[i].page) for i in own}),
            "groups": len({split.groups[i] for i in own}),
            "hands": sorted({samples[i].hand for i in own if samples[i].hand}),
            "characters": sum(map(len, texts)),
            "typical_characters": round(math.exp(sum(math.log(1 + len(text)) for text in texts) / len(texts)) - 1, 1),
            "characters_not_in_training": "".join(sorted(set("".join(texts)) - trained_characters)),
            "sha256_of_names": hashlib.sha256(list_names([names[i] for i in own]).encode()).hexdigest(),
        }
    return {
        "sides": sides,
        "chosen_by": chosen_by,
        "checks": asdict(checks),
        "joined_pages": [
            {"first": names[join.first], "second": names[join.second], "by": join.reason} for join in split.joins
        ],
        "contained_texts": [
            {"text_of": names[inner], "side": split.sides[inner], "stands_in": names[outer]}
            for inner, outer in split.contained
        ],
        "left_out": [{"sample": names[i], "shares_a_group_with": names[j]} for i, j in split.left_out],
    }


def word_split(names: Sequence[str], split: Split) -> list[str]:
    """Lines for the log: what tied pages together, and which texts can be read on the other side."""
    joined = [
        f"note: {names[join.first]} and {names[join.second]} hold {join.reason}; their pages stay together"
        for join in split.joins
    ]
    contained = []
    for inner, outer in split.contained:
        sides = f"({split.sides[inner]}) stands inside that of {names[outer]} ({split.sides[outer]})"
        contained.append(f"warning: the text of {names[inner]} {sides}: it may be recited instead of read")
    return _some(joined, "pages that stay together") + _some(contained, "texts of one side inside the other's")


def _some(lines: list[str], what: str) -> list[str]:
    left = len(lines) - SHOWN
    return [*lines[:SHOWN], f"... and {left} more {what}: metrics/split.json"] if left > 0 else lines
