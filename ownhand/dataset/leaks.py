"""Leaks: what was held out is compared with what is trained on once more, without using how the split was made.

The result goes to metrics/split.json together with what a person needs to see that two runs have the same split.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ownhand.dataset.duplicates import SAME_PICTURE, close_hashes_across, similarity
from ownhand.dataset.repeats import (
    FEW_PAGES,
    PASSAGE_CHARACTERS,
    count_pages,
    find_passages,
    find_recurring,
    find_trained,
    text_key,
)
from ownhand.dataset.splits import Split
from ownhand.images import ConvertedPicture
from ownhand.samples import ALL_SIDES, Sample
from ownhand.text import comparable

SHOWN = 5  # examples in the log; metrics/split.json has all


@dataclass(frozen=True)
class Checks:
    """How often something of a held-out sample is in training, too; the first five must be 0.

    identical_texts: long ones that stand on few pages; passages: words in a row, over the ends of lines;
    close_pictures_compared: pairs across the split whose hashes are close, so that their pixels were compared.
    What may be on both sides: shorter_identical_texts, below `prepare.same_text_characters`; recurring_texts, which
    stand on many pages; close_pictures_of_recurring_texts, pairs that nobody compared, since such pictures are alike;
    held_out_samples_with_a_trained_text, which evaluation counts apart.
    """

    pages_on_both_sides: int
    identical_texts: int
    passages: int
    identical_pictures: int
    near_identical_pictures: int
    close_pictures_compared: int
    shorter_identical_texts: int
    recurring_texts: int
    close_pictures_of_recurring_texts: int
    held_out_samples_with_a_trained_text: int

    @property
    def leaks(self) -> int:
        """The sum of what must be 0."""
        pictures = self.identical_pictures + self.near_identical_pictures
        return self.pages_on_both_sides + self.identical_texts + self.passages + pictures


def check_split(
    samples: Sequence[Sample], pictures: Sequence[ConvertedPicture], sides: Sequence[str], same_text_characters: int
) -> Checks:
    """Compare pages, texts and pictures across the split; a sample of side "" takes part in neither."""
    trained = [i for i, side in enumerate(sides) if side == "train"]
    held_out = [i for i, side in enumerate(sides) if side and side != "train"]

    def shared(values: Sequence[Any]) -> set[Any]:
        return {values[i] for i in trained} & {values[i] for i in held_out}

    texts, pages = [sample.text for sample in samples], [sample.place for sample in samples]
    keys, recurring = [text_key(text) for text in texts], find_recurring(texts, pages)
    both = shared(keys)
    habits = {key for key, recurs in zip(keys, recurring, strict=True) if recurs} & both
    short = {key for key in both - habits if len(key) < same_text_characters}
    passages: dict[str, set[int]] = {"train": set(), "held out": set(), "": set()}
    for i, passage in find_passages(texts, pages, same_text_characters):
        passages[sides[i] if sides[i] in ("train", "") else "held out"].add(passage)
    across = list(close_hashes_across(pictures, held_out, trained))
    compared = [(pictures[i], pictures[j]) for i, j in across if not (recurring[i] and recurring[j])]
    return Checks(
        pages_on_both_sides=len(shared(pages)),
        identical_texts=len(both - habits - short),
        passages=len(passages["train"] & passages["held out"]),
        identical_pictures=len(shared([picture.sha256 for picture in pictures])),
        near_identical_pictures=sum(similarity(one, other) >= SAME_PICTURE for one, other in compared),
        close_pictures_compared=len(compared),
        shorter_identical_texts=len(short),
        recurring_texts=len(habits),
        close_pictures_of_recurring_texts=len(across) - len(compared),
        held_out_samples_with_a_trained_text=sum(
            find_trained([texts[i] for i in held_out], [texts[i] for i in trained])
        ),
    )


def describe_allowed(samples: Sequence[Sample], sides: Sequence[str], same_text_characters: int) -> dict[str, Any]:
    """What may stand on both sides, for metrics/split.json: the rule, and every text that does, the longest first."""
    counts = count_pages([sample.text for sample in samples], [sample.place for sample in samples])
    found: dict[str, dict[str, Any]] = {}
    for sample, side, pages in zip(samples, sides, counts, strict=True):
        text = comparable(sample.text)
        row = found.setdefault(text_key(text), {"text": text, "pages": pages, **dict.fromkeys(ALL_SIDES, 0)})
        if side:
            row[side] += 1
    both = [(key, row) for key, row in found.items() if row["train"] and (row["val"] or row["test"])]
    return {
        "rule": (
            f"texts of fewer than {same_text_characters} characters (prepare.same_text_characters), and those that "
            f"stand on more than {FEW_PAGES} pages, unless they are part of a passage of "
            f"{max(PASSAGE_CHARACTERS, same_text_characters)} characters that two pages share"
        ),
        "texts": [row for _, row in sorted(both, key=lambda one: (-len(one[0]), one[0]))],
    }


def list_names(names: Sequence[str]) -> str:
    """The list of a side as it is written and hashed: one original file name per line, sorted."""
    return "".join(f"{name}\n" for name in sorted(names))


def describe_split(
    samples: Sequence[Sample],
    split: Split,
    checks: Checks,
    chosen_by: dict[str, str],
    same_text_characters: int,
) -> dict[str, Any]:
    """The content of metrics/split.json."""
    names = [sample.original_filename for sample in samples]
    trained_characters = {c for s, side in zip(samples, split.sides, strict=True) if side == "train" for c in s.text}
    sides: dict[str, Any] = {}
    for side in ALL_SIDES:
        own = [i for i, of in enumerate(split.sides) if of == side]
        if not own:
            continue
        texts = [comparable(samples[i].text) for i in own]
        sides[side] = {
            "samples": len(own),
            "pages": len({samples[i].place for i in own}),
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
        "allowed_on_both_sides": describe_allowed(samples, split.sides, same_text_characters),
        "joined_pages": [
            {"first": names[join.first], "second": names[join.second], "by": join.reason} for join in split.joins
        ],
        "contained_texts": [
            {"text_of": names[inner], "side": split.sides[inner], "stands_in": names[outer]}
            for inner, outer in split.contained
        ],
        "left_out": [{"sample": names[i], "shares_a_group_with": names[j]} for i, j in split.left_out],
    }


def word_split(samples: Sequence[Sample], split: Split, checks: Checks) -> list[str]:
    """Lines for the log: what tied pages together, and which texts can be read on the other side."""
    names = [sample.original_filename for sample in samples]
    joined = [
        f"note: {names[join.first]} and {names[join.second]} hold {join.reason}; their pages stay together"
        for join in split.joins
    ]
    contained = []
    for inner, outer in split.contained:
        sides = f"({split.sides[inner]}) stands inside that of {names[outer]} ({split.sides[outer]})"
        contained.append(f"warning: the text of {names[inner]} {sides}: it may be recited instead of read")
    seen = checks.held_out_samples_with_a_trained_text
    allowed = [
        f"note: {seen} of {sum(side in ALL_SIDES[1:] for side in split.sides)} held-out samples have a text that is "
        "trained on, too, as habits are (metrics/split.json: allowed_on_both_sides); cer_unseen_texts leaves them out"
    ]
    return [
        *_some(joined, "pages that stay together"),
        *_some(contained, "texts of one side inside the other's"),
        *(allowed if seen else []),
    ]


def _some(lines: list[str], what: str) -> list[str]:
    left = len(lines) - SHOWN
    return [*lines[:SHOWN], f"... and {left} more {what}: metrics/split.json"] if left > 0 else lines
