"""The split: which samples train and which validate, so that nothing validated was seen in training.

Samples move in groups. A group is a page of a hand; pages that share a text or a picture are one group. Groups are
taken for validation in an order that only the seed and each group's own name decide, so that new samples on other
pages move few of the old ones.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stages.lib.duplicates import DisjointSets
from stages.lib.failures import Refusal
from stages.lib.text import collapse_whitespace, grapheme_clusters, to_nfc, words

# From here on a text that stands inside another one tells more than a common phrase would.
CONTAINED_WORDS, CONTAINED_CHARACTERS = 3, 15


class SplitError(Refusal):
    """Samples that cannot be split without a leak; the message says what ties them together."""


@dataclass(frozen=True)
class SplitSample:
    """What the split looks at. A page is known by hand and page together."""

    hand: str
    page: str
    text: str


@dataclass(frozen=True)
class Join:
    """Two samples of different pages, by index, that put these pages into one group, and why."""

    first: int
    second: int
    reason: str


@dataclass(frozen=True)
class Split:
    """sides: "train" or "val" per sample; joins: why pages became one group;
    contained: (inner, outer) indices of texts that stand inside a text of the other side.
    """

    sides: list[str]
    joins: list[Join]
    contained: list[tuple[int, int]]


def split_samples(
    samples: Sequence[SplitSample], same_pictures: Iterable[tuple[int, int]], val_share: float, seed: int
) -> Split:
    """Split by whole groups, as near to `val_share` of the samples as they allow, at least one group on each side.

    `same_pictures` are pairs of indices whose pictures show the same. Groups whose texts stand in no other group, and
    that hold no text of another, are preferred for validation; next come those that hold one; last those whose text
    could be copied from training. Raises SplitError when there are fewer than two groups.
    """
    groups, joins = _find_groups(samples, same_pictures)
    members = Counter(groups)
    if len(members) < 2:
        raise SplitError(_why_one_group(samples, joins))
    contained = [(i, j) for i, j in find_contained(samples) if groups[i] != groups[j]]
    order = _order_groups(samples, groups, contained, seed)
    validation = _choose_groups([(group, members[group]) for group in order], val_share)
    sides = ["val" if group in validation else "train" for group in groups]
    return Split(sides, joins, [(i, j) for i, j in contained if sides[i] != sides[j]])


def find_contained(samples: Sequence[SplitSample]) -> list[tuple[int, int]]:
    """(inner, outer) for every text whose words stand, in a row, in another's; case and punctuation do not count.

    Only inner texts of at least 3 words and 15 characters are looked for, and no text is inside an identical one.
    """
    texts = [_comparable(sample.text) for sample in samples]
    worded = [tuple(words(text)) for text in texts]
    inner_texts: dict[tuple[str, ...], list[int]] = {}
    lengths: dict[tuple[str, ...], set[int]] = {}  # of the inner texts that begin with these words
    for i, own in enumerate(worded):
        if len(own) >= CONTAINED_WORDS and len(grapheme_clusters(texts[i])) >= CONTAINED_CHARACTERS:
            inner_texts.setdefault(own, []).append(i)
            lengths.setdefault(own[:CONTAINED_WORDS], set()).add(len(own))
    found = set()
    for outer, own in enumerate(worded):
        for at in range(len(own) - CONTAINED_WORDS + 1):
            for length in lengths.get(own[at : at + CONTAINED_WORDS], ()):
                for inner in inner_texts.get(own[at : at + length], ()):
                    if texts[inner] != texts[outer]:
                        found.add((inner, outer))
    return sorted(found)


def _comparable(text: str) -> str:
    return collapse_whitespace(to_nfc(text))


def _find_groups(
    samples: Sequence[SplitSample], same_pictures: Iterable[tuple[int, int]]
) -> tuple[list[int], list[Join]]:
    """(the group of each sample, named by its first sample; the joins across pages)."""
    sets = DisjointSets(len(samples))
    first_on_page: dict[tuple[str, str], int] = {}
    first_with_text: dict[str, int] = {}
    for i, sample in enumerate(samples):
        sets.join(first_on_page.setdefault((sample.hand, sample.page), i), i)
    joins = []
    for i, sample in enumerate(samples):
        first = first_with_text.setdefault(_comparable(sample.text), i)
        if sets.join(first, i):
            joins.append(Join(first, i, "the same text"))
    joins += [Join(i, j, "the same picture") for i, j in same_pictures if sets.join(i, j)]
    return [sets.find(i) for i in range(len(samples))], joins


def _order_groups(
    samples: Sequence[SplitSample], groups: Sequence[int], contained: Iterable[tuple[int, int]], seed: int
) -> list[int]:
    names: dict[int, tuple[str, str]] = {}
    for sample, group in zip(samples, groups, strict=True):
        names[group] = min(names.get(group, (sample.hand, sample.page)), (sample.hand, sample.page))
    entangled = dict.fromkeys(names, 0)
    for inner, outer in contained:
        entangled[groups[inner]] = 2
        entangled[groups[outer]] = max(entangled[groups[outer]], 1)

    def rank(group: int) -> tuple[int, str]:
        name = "\0".join((str(seed), *names[group]))
        return entangled[group], hashlib.sha256(name.encode()).hexdigest()

    return sorted(names, key=rank)


def _choose_groups(sizes: Sequence[tuple[int, int]], val_share: float) -> set[int]:
    """From (group, size) in order: every group that brings the sum closer to the share without taking all."""
    total = sum(size for _, size in sizes)
    wanted = val_share * total
    chosen: set[int] = set()
    taken = 0
    for group, size in sizes:
        if taken + size < total and abs(taken + size - wanted) < abs(taken - wanted):
            chosen.add(group)
            taken += size
    if not chosen:  # each alone is more than twice the share
        chosen.add(min(sizes, key=lambda entry: entry[1])[0])
    return chosen


def _why_one_group(samples: Sequence[SplitSample], joins: Sequence[Join]) -> str:
    if not samples:
        return "no sample is left to split"
    pages = len({(sample.hand, sample.page) for sample in samples})
    remedy = "add a picture of another page with another text"
    if pages == 1:
        remedy += ", or name the pages in a column page"
    why = "".join(f'\n  {join.reason}: "{_comparable(samples[join.second].text)[:60]}"' for join in joins[:5])
    return (
        f"{len(samples)} sample(s) on {pages} page(s) make one group, but training and validation need one each; "
        f"{remedy}{why}"
    )
