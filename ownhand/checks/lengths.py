"""How many tokens the samples take, and what the tokenizer makes of their characters. No picture is opened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ownhand.model.fit import SequenceLimit
from ownhand.model.sequence import IGNORED_LABEL, build_training_ids
from ownhand.samples import Sample

NO_LIMIT = 10**9


@dataclass(frozen=True)
class SampleLength:
    """Tokens of one sample, and how many of them are vision tokens, and text with eos."""

    sample: Sample
    tokens: int
    vision: int
    labels: int


@dataclass(frozen=True)
class Lengths:
    """Tokens of the samples.

    each: of every one; longest: of the longest sequence, which is that of `sample`; vision, labels: how many of them
    are vision tokens, and text with eos; answer: tokens of the longest text; prompt: of the longest vision and prompt
    part; aspect: median width / height of the pictures.
    """

    each: tuple[SampleLength, ...]
    longest: int
    sample: Sample
    vision: int
    labels: int
    answer: int
    prompt: int
    aspect: float

    def training(self, copies: int) -> list[int]:
        """Tokens of every training view; a copy counts as its picture, whose size it has within some per cent."""
        return [length.tokens for length in self.each if length.sample.split == "train" for _ in range(1 + copies)]


def measure_lengths(samples: Sequence[Sample], limit: SequenceLimit) -> Lengths:
    """Tokens of every sample, from its text and its size in pixels; no picture is opened."""
    each = []
    for sample in samples:
        vision = limit.count_vision_tokens(sample.width, sample.height)
        ids, targets = build_training_ids(limit.base.tokenizer, limit.base.special, vision, sample.text, NO_LIMIT)
        each.append(SampleLength(sample, len(ids), vision, sum(target != IGNORED_LABEL for target in targets)))
    longest = max(each, key=lambda length: (length.tokens, length.vision, length.labels))
    aspects = sorted(sample.width / sample.height for sample in samples)
    return Lengths(
        each=tuple(each),
        longest=longest.tokens,
        sample=longest.sample,
        vision=longest.vision,
        labels=longest.labels,
        answer=max(length.labels for length in each),
        prompt=max(length.tokens - length.labels for length in each),
        aspect=aspects[len(aspects) // 2],
    )


def look_at_characters(samples: Sequence[Sample], limit: SequenceLimit) -> tuple[Counter[str], tuple[str, ...]]:
    """(occurrences of characters that are several tokens, characters that the tokenizer cannot express)."""
    counted = Counter(character for sample in samples for character in sample.text)
    in_bytes: Counter[str] = Counter()
    lost = []
    for character, occurrences in counted.items():
        ids = limit.base.tokenizer.encode(character, add_special_tokens=False).ids
        if limit.base.tokenizer.decode(ids) != character:
            lost.append(character)
        elif len(ids) > 1:
            in_bytes[character] = occurrences
    return in_bytes, tuple(sorted(lost))
