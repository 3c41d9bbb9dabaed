"""Strata: groups are chosen for a side so that it is like the rest in the lengths of its texts and in its characters.

Two rules, and both only where the groups allow it. A character that several groups have is never held out completely:
training keeps one of them. When the texts of the chosen groups are on average longer or shorter than all by more than
LENGTH_TOLERANCE, groups of equal size are exchanged until they are not.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LENGTH_TOLERANCE = 0.1  # of the mean logarithm of the number of characters: about 10 per cent
LEAST_GROUPS = 5  # on each side; with fewer, exchanging would replace chance by choice


@dataclass(frozen=True)
class Stratum:
    """What is known of a group: its samples, the sum of the logarithms of their lengths, its characters.

    entangled: how much of it stands in other groups' texts, 0 to 2 (see `splits.py`); an exchange never raises it.
    """

    samples: int
    log_length: float
    characters: frozenset[str]
    entangled: int

    @classmethod
    def of(cls, texts: Sequence[str], entangled: int) -> Stratum:
        """The stratum of a group with these texts."""
        logs = math.fsum(math.log(1 + len(text)) for text in texts)
        return cls(len(texts), logs, frozenset().union(*texts), entangled)


def choose_groups(order: Sequence[int], strata: Mapping[int, Stratum], wanted: float) -> set[int]:
    """The groups for a side that is to have about `wanted` samples, not all of them and at least one.

    Taken in `order` is every group that brings the sum closer to `wanted`. `strata` may hold groups that other sides
    took already; they count as held out.
    """
    trained = Counter(character for group in order for character in strata[group].characters)
    frequent = {character for character, count in trained.items() if count > 1}
    total = sum(strata[group].samples for group in order)
    chosen: list[int] = []
    taken = 0
    for group in order:
        size = strata[group].samples
        if taken + size >= total or abs(taken + size - wanted) >= abs(taken - wanted):
            continue
        own = strata[group].characters & frequent
        if all(trained[character] > 1 for character in own):
            chosen.append(group)
            taken += size
            trained.subtract(own)
    if not chosen:  # each alone is more than twice the share, or holds the last of some character
        return {min(order, key=lambda group: strata[group].samples)}
    held_out = set(chosen)
    rest = [group for group in order if group not in held_out]
    if min(len(chosen), len(rest)) >= LEAST_GROUPS:
        _balance_lengths(chosen, rest, strata, trained, frequent)
    return set(chosen)


def _balance_lengths(
    chosen: list[int], rest: list[int], strata: Mapping[int, Stratum], trained: Counter[str], frequent: set[str]
) -> None:
    """Exchange groups of `chosen` and `rest` in place, each time those that bring the mean lengths closest."""
    samples = sum(strata[group].samples for group in chosen)
    everything = [strata[group] for group in (*chosen, *rest)]
    mean = math.fsum(one.log_length for one in everything) / sum(one.samples for one in everything)
    for _ in range(len(chosen)):
        excess = math.fsum(strata[group].log_length for group in chosen) - mean * samples
        if abs(excess) <= LENGTH_TOLERANCE * samples:
            return
        by_size: dict[int, list[tuple[float, int]]] = {}
        for group in sorted(rest):
            by_size.setdefault(strata[group].samples, []).append((strata[group].log_length, group))
        for candidates in by_size.values():
            candidates.sort()
        best: tuple[float, int, int] | None = None
        for leaving in chosen:
            candidates = by_size.get(strata[leaving].samples, [])
            at = bisect_left(candidates, (strata[leaving].log_length - excess, -1))
            for length, entering in candidates[max(0, at - 1) : at + 1]:
                left = abs(excess - strata[leaving].log_length + length)
                if (best is None or left < best[0]) and _may_enter(entering, leaving, strata, trained, frequent):
                    best = (left, leaving, entering)
        if best is None or best[0] > 0.9 * abs(excess):
            return
        _, leaving, entering = best
        chosen[chosen.index(leaving)], rest[rest.index(entering)] = entering, leaving
        trained.update(strata[leaving].characters & frequent)
        trained.subtract(strata[entering].characters & frequent)


def _may_enter(
    entering: int, leaving: int, strata: Mapping[int, Stratum], trained: Counter[str], frequent: set[str]
) -> bool:
    new, old = strata[entering], strata[leaving]
    return new.entangled <= old.entangled and all(
        trained[character] > 1 or character in old.characters for character in new.characters & frequent
    )
