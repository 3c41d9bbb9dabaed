"""The split: which samples train and which are held out, so that nothing held out was seen in training.

Samples move in groups. A group is a page of a hand; pages that share a picture (`duplicates.py`), a long text (from
`prepare.same_text_characters` on) that stands on at most three pages, or a passage of 200 characters are one group
(`repeats.py` says why a phrase that recurs ties nothing together). Groups are taken for
validation in an order that only the seed and each group's own name decide, until the share is reached. New samples on
other pages therefore move the place where the order is cut, and with it few of the old groups: see `test_splits.py` for
how few. A split that must not move at all is frozen by a list (`frozen.py`).

A side is like the rest in the lengths of its texts and in its characters, by two rules, and both only where the groups
allow it. A character that several groups have is never held out completely: training keeps one of them. When the texts
of the chosen groups are on average longer or shorter than all by more than LENGTH_TOLERANCE, groups of equal size are
exchanged until they are not.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ownhand.dataset.duplicates import DisjointSets
from ownhand.dataset.repeats import FEW_PAGES, count_pages, find_contained, find_passages, text_key
from ownhand.errors import Refusal
from ownhand.samples import Sample
from ownhand.text import comparable

SAME_TEXT, SAME_PASSAGE, SAME_PICTURE = "the same text", "the same passage", "the same picture"
LENGTH_TOLERANCE = 0.1  # of the mean logarithm of the number of characters: about 10 per cent
LEAST_GROUPS = 5  # on each side; with fewer, exchanging would replace chance by choice


class SplitError(Refusal):
    """Samples that cannot be split without a leak; the message says what ties them together."""


@dataclass(frozen=True)
class SplitRules:
    """How to split; the names and defaults are those of the `prepare` parameters.

    frozen: the sides that lists decide alone.
    """

    val_share: float
    seed: int
    test_share: float = 0.0
    same_text_characters: int = 20
    frozen: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Join:
    """Two samples of different pages, by index, that put these pages into one group, and why."""

    first: int
    second: int
    reason: str


@dataclass(frozen=True)
class Split:
    """sides: "train", "val" or "test" per sample, "" for one that is left out; groups: the group of each sample;
    joins: why pages became one group; contained: (inner, outer) indices of texts, one of them trained on, the other
    not, where one stands inside the other; left_out: (sample that is left out, frozen sample of its group).
    """

    sides: list[str]
    groups: list[int]
    joins: list[Join]
    contained: list[tuple[int, int]]
    left_out: list[tuple[int, int]] = field(default_factory=list)


def split_samples(samples: Sequence[Sample], same_pictures: Iterable[tuple[int, int]], rules: SplitRules) -> Split:
    """Split by whole groups, as near to the shares as they allow, at least one group for training and one for "val".

    A sample that has a side already (`split`) is frozen by a list. `same_pictures` are pairs of indices whose pictures
    show the same. Groups whose texts stand in no other group, and that hold no text of another, are preferred for
    validation; next come those that hold one; last those whose text could be copied from training. A sample in the
    group of a frozen one that is not frozen itself can neither train nor be held out: it is left out. Raises SplitError
    when no group is left for a side.
    """
    groups, joins = _find_groups(samples, same_pictures, rules.same_text_characters)
    texts, pages = [sample.text for sample in samples], [sample.place for sample in samples]
    contained = [(i, j) for i, j in find_contained(texts, pages) if groups[i] != groups[j]]
    sides = [sample.split for sample in samples]
    frozen_in: dict[int, int] = {}
    for i, group in enumerate(groups):
        if sides[i]:
            frozen_in.setdefault(group, i)
    free = [i for i, group in enumerate(groups) if group not in frozen_in]
    left_out = [(i, frozen_in[group]) for i, group in enumerate(groups) if not sides[i] and group in frozen_in]
    order = [group for group in _order_groups(samples, groups, contained, rules.seed) if group not in frozen_in]
    facts = _facts(samples, free, groups, contained)
    shares = {"val": rules.val_share, "test": rules.test_share}
    for side, share in shares.items():
        if side in rules.frozen or share == 0:
            continue
        if len(order) < 2:
            raise SplitError(_why_one_group(samples, free, groups, joins, side, rules.same_text_characters))
        chosen = choose_groups(order, facts, share * len(free))
        order = [group for group in order if group not in chosen]
        for i in free:
            if groups[i] in chosen:
                sides[i] = side
    if not order:
        raise SplitError("no sample is left to train on: the lists of prepare.val and prepare.test name them all")
    for i in free:
        sides[i] = sides[i] or "train"
    if "val" not in sides:
        raise SplitError("no sample is left to validate: the list of prepare.val names none")
    apart = [(i, j) for i, j in contained if (sides[i] == "train") != (sides[j] == "train") and sides[i] and sides[j]]
    return Split(sides, groups, joins, apart, left_out)


def _find_groups(
    samples: Sequence[Sample], same_pictures: Iterable[tuple[int, int]], same_text_characters: int
) -> tuple[list[int], list[Join]]:
    """(the group of each sample, named by its first sample; the joins across pages)."""
    sets = DisjointSets(len(samples))
    texts, pages = [sample.text for sample in samples], [sample.place for sample in samples]
    first_on_page: dict[tuple[str, str], int] = {}
    for i, page in enumerate(pages):
        sets.join(first_on_page.setdefault(page, i), i)
    joins = []
    first_with: dict[str | int, int] = {}  # a text, or the hash of a passage
    for i, (text, count) in enumerate(zip(texts, count_pages(texts, pages), strict=True)):
        key = text_key(text)
        if len(key) >= same_text_characters and count <= FEW_PAGES and sets.join(first_with.setdefault(key, i), i):
            joins.append(Join(first_with[key], i, SAME_TEXT))
    for i, passage in find_passages(texts, pages, same_text_characters):
        if sets.join(first_with.setdefault(passage, i), i):
            joins.append(Join(first_with[passage], i, SAME_PASSAGE))
    joins += [Join(i, j, SAME_PICTURE) for i, j in same_pictures if sets.join(i, j)]
    return [sets.find(i) for i in range(len(samples))], joins


def _entangled(groups: Sequence[int], contained: Iterable[tuple[int, int]]) -> dict[int, int]:
    """2 for groups whose text stands in another group, 1 for those that hold one; others are missing."""
    entangled: dict[int, int] = {}
    for inner, outer in contained:
        entangled[groups[inner]] = 2
        entangled[groups[outer]] = max(entangled.get(groups[outer], 0), 1)
    return entangled


def _order_groups(
    samples: Sequence[Sample], groups: Sequence[int], contained: Iterable[tuple[int, int]], seed: int
) -> list[int]:
    names: dict[int, tuple[str, str]] = {}
    for sample, group in zip(samples, groups, strict=True):
        names[group] = min(names.get(group, sample.place), sample.place)
    entangled = _entangled(groups, contained)

    def rank(group: int) -> tuple[int, str]:
        name = "\0".join((str(seed), *names[group]))
        return entangled.get(group, 0), hashlib.sha256(name.encode()).hexdigest()

    return sorted(names, key=rank)


def _facts(
    samples: Sequence[Sample], free: Sequence[int], groups: Sequence[int], contained: Iterable[tuple[int, int]]
) -> dict[int, GroupFacts]:
    entangled = _entangled(groups, contained)
    texts: dict[int, list[str]] = {}
    for i in free:
        texts.setdefault(groups[i], []).append(comparable(samples[i].text))
    return {group: GroupFacts.of(own, entangled.get(group, 0)) for group, own in texts.items()}


def _why_one_group(
    samples: Sequence[Sample],
    free: Sequence[int],
    groups: Sequence[int],
    joins: Sequence[Join],
    side: str,
    same_text_characters: int,
) -> str:
    if not free:
        return "no sample is left to split"
    pages = len({samples[i].place for i in free})
    remedies = ["add a picture of another page with another text"]
    if pages == 1:
        remedies.append("name the pages in a column page")
    if any(join.reason != SAME_PICTURE for join in joins):
        remedies.append(
            f"raise prepare.same_text_characters ({same_text_characters}), so that these texts tie no pages together"
        )
    why = "".join(f'\n  {join.reason}: "{comparable(samples[join.second].text)[:60]}"' for join in joins[:5])
    count = len({groups[i] for i in free})
    made = "one group" if count == 1 else f"{count} groups"
    sides = "training and validation" if side == "val" else "training, validation and test"
    seen = f"{len(free)} sample(s) on {pages} page(s) make {made}, but {sides} need one each"
    return f"{seen}; {', or '.join(remedies)}{why}"


@dataclass(frozen=True)
class GroupFacts:
    """What is known of a group: its samples, the sum of the logarithms of their lengths, its characters.

    entangled: how much of it stands in other groups' texts, 0 to 2; an exchange never raises it.
    """

    samples: int
    log_length: float
    characters: frozenset[str]
    entangled: int

    @classmethod
    def of(cls, texts: Sequence[str], entangled: int) -> GroupFacts:
        """The facts of a group with these texts."""
        logs = math.fsum(math.log(1 + len(text)) for text in texts)
        return cls(len(texts), logs, frozenset().union(*texts), entangled)


def choose_groups(order: Sequence[int], facts: Mapping[int, GroupFacts], wanted: float) -> set[int]:
    """The groups for a side that is to have about `wanted` samples, not all of them and at least one.

    Taken in `order` is every group that brings the sum closer to `wanted`. `facts` may hold groups that other sides
    took already; they count as held out.
    """
    trained = Counter(character for group in order for character in facts[group].characters)
    frequent = {character for character, count in trained.items() if count > 1}
    total = sum(facts[group].samples for group in order)
    chosen: list[int] = []
    taken = 0
    for group in order:
        size = facts[group].samples
        if taken + size >= total or abs(taken + size - wanted) >= abs(taken - wanted):
            continue
        own = facts[group].characters & frequent
        if all(trained[character] > 1 for character in own):
            chosen.append(group)
            taken += size
            trained.subtract(own)
    if not chosen:  # each alone is more than twice the share, or holds the last of some character
        return {min(order, key=lambda group: facts[group].samples)}
    held_out = set(chosen)
    rest = [group for group in order if group not in held_out]
    if min(len(chosen), len(rest)) >= LEAST_GROUPS:
        _balance_lengths(chosen, rest, facts, trained, frequent)
    return set(chosen)


def _balance_lengths(
    chosen: list[int], rest: list[int], facts: Mapping[int, GroupFacts], trained: Counter[str], frequent: set[str]
) -> None:
    """Exchange groups of `chosen` and `rest` in place, each time those that bring the mean lengths closest."""
    samples = sum(facts[group].samples for group in chosen)
    everything = [facts[group] for group in (*chosen, *rest)]
    mean = math.fsum(one.log_length for one in everything) / sum(one.samples for one in everything)
    for _ in range(len(chosen)):
        excess = math.fsum(facts[group].log_length for group in chosen) - mean * samples
        if abs(excess) <= LENGTH_TOLERANCE * samples:
            return
        by_size: dict[int, list[tuple[float, int]]] = {}
        for group in sorted(rest):
            by_size.setdefault(facts[group].samples, []).append((facts[group].log_length, group))
        for candidates in by_size.values():
            candidates.sort()
        best: tuple[float, int, int] | None = None
        for leaving in chosen:
            candidates = by_size.get(facts[leaving].samples, [])
            at = bisect_left(candidates, (facts[leaving].log_length - excess, -1))
            for length, entering in candidates[max(0, at - 1) : at + 1]:
                left = abs(excess - facts[leaving].log_length + length)
                if (best is None or left < best[0]) and _may_enter(entering, leaving, facts, trained, frequent):
                    best = (left, leaving, entering)
        if best is None or best[0] > 0.9 * abs(excess):
            return
        _, leaving, entering = best
        chosen[chosen.index(leaving)], rest[rest.index(entering)] = entering, leaving
        trained.update(facts[leaving].characters & frequent)
        trained.subtract(facts[entering].characters & frequent)


def _may_enter(
    entering: int, leaving: int, facts: Mapping[int, GroupFacts], trained: Counter[str], frequent: set[str]
) -> bool:
    new, old = facts[entering], facts[leaving]
    return new.entangled <= old.entangled and all(
        trained[character] > 1 or character in old.characters for character in new.characters & frequent
    )
