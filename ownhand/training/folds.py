"""Folds: every sample is held out once, together with all that could give its text or its picture away.

What stays together are the groups of `prepare`: pages, and pages that share a picture, a long text that stands on few
pages, or a passage. What a phrase that recurs gives away is counted apart, as in validation (`cer_unseen_texts`).
There is no chance in it, so no seed: the folds of the same samples are always the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from ownhand.errors import Refusal
from ownhand.samples import Sample
from ownhand.text import comparable


def assign_folds(samples: Sequence[Sample], folds: int) -> list[int]:
    """The fold of each sample, counted from 1, as equal in characters as whole groups allow.

    The largest group goes first, each into the fold that holds least. Refusal when there are fewer groups than folds,
    or when metadata.json does not say the groups.
    """
    groups = join_groups(samples)
    characters: dict[int, int] = {}
    for group, sample in zip(groups, samples, strict=True):
        characters[group] = characters.get(group, 0) + len(comparable(sample.text))
    if folds > len(characters):
        possible = f"set it to at most {len(characters)}, " if len(characters) > 1 else "set it to 0, "
        raise Refusal(
            f"evaluate.folds is {folds}, but {len(samples)} sample(s) make only {len(characters)} group(s) that can be "
            f"held out; {possible}or add pages. Together stay pages that share a picture, a passage, or a long text "
            "that stands on few pages (prepare.same_text_characters; metrics/split.json names what joined them)"
        )
    filled = [0] * folds
    fold_of = {}
    for group in sorted(characters, key=lambda group: (-characters[group], samples[group].image_id)):
        fold = filled.index(min(filled))
        filled[fold] += characters[group]
        fold_of[group] = fold + 1
    return [fold_of[group] for group in groups]


def join_groups(samples: Sequence[Sample]) -> list[int]:
    """What each sample stays together with, named by the index of one of them."""
    if not all(sample.group for sample in samples):
        raise Refusal(
            "data/processed/train/metadata.json does not say which pages belong together: an older version wrote it; "
            "run `dvc repro --force prepare`"
        )
    first: dict[str, int] = {}
    return [first.setdefault(sample.group, i) for i, sample in enumerate(samples)]
