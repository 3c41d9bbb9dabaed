"""How many tokens the samples take, how large they are shown, and what the tokenizer makes of their characters.

No picture is opened.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ownhand.errors import Refusal
from ownhand.files import read_json
from ownhand.model.families import AGAIN
from ownhand.model.fit import SequenceLimit
from ownhand.model.sequence import IGNORED_LABEL, build_training_ids
from ownhand.model.views import ViewRules, choose_grid
from ownhand.samples import Sample

NO_LIMIT = 10**9
TRAINED_LINES = "trained_lines.json"  # beside the base model; demo/shape.py writes it


@dataclass(frozen=True)
class TrainedLines:
    """The lines that a base model was trained on: what all but the last per cent of them had.

    pixels: width of a character in the views; vision: vision tokens a character; longest: characters of the longest
    line, None where that is not known.
    """

    pixels: float
    vision: float
    longest: int | None = None


# Of DeepSeek-OCR's training lines nothing is published, but that it reads 97 % right with ten text tokens to a vision
# token, and 60 % with twenty (arXiv 2510.18234). At four printed characters a text token that is 1/40 vision token for
# each; a vision token is 64 x 64 pixels, so that a character twice as high as wide is 7 pixels wide.
PUBLISHED = TrainedLines(pixels=7, vision=1 / 40)


@dataclass(frozen=True)
class SampleLength:
    """Tokens of one sample, and how many of them are vision tokens, and text with eos.

    shown: pixels of its width in the views.
    """

    sample: Sample
    tokens: int
    vision: int
    labels: int
    shown: float = math.inf

    @property
    def characters(self) -> int:
        """Of its longest line of text."""
        return max(map(len, self.sample.text.split("\n")))


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
        """Tokens of every training example; a copy counts as its picture, whose size it has within some per cent."""
        return [length.tokens for length in self.each if length.sample.split == "train" for _ in range(1 + copies)]


def measure_lengths(samples: Sequence[Sample], limit: SequenceLimit) -> Lengths:
    """Tokens of every sample, from its text and its size in pixels; no picture is opened."""
    each = []
    for sample in samples:
        vision = limit.count_vision_tokens(sample.width, sample.height)
        ids, targets = build_training_ids(limit.base.tokenizer, limit.base.special, vision, sample.text, NO_LIMIT)
        labels = sum(target != IGNORED_LABEL for target in targets)
        shown = shown_width(limit.base.view_rules, sample.width, sample.height)
        each.append(SampleLength(sample, len(ids), vision, labels, shown))
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


def shown_width(vision: ViewRules, width_px: int, height_px: int) -> float:
    """In how many pixels the views show a picture of this size, from left to right, where they show it largest."""
    sizes = vision.sizes
    if vision.mode == "gundam":
        columns, rows = choose_grid(width_px, height_px, sizes.tile, vision.max_tiles)
        if columns * rows > 1:
            return columns * sizes.tile
    side: int = sizes.base if vision.mode == "gundam" else getattr(sizes, vision.mode)
    return side if vision.mode in ("tiny", "small") else side * width_px / max(width_px, height_px)


def read_trained_lines(model_folder: Path) -> TrainedLines:
    """What the model's folder says of the lines it was trained on, else what is published of its family.

    Refusal when the file holds anything else.
    """
    path = model_folder / TRAINED_LINES
    if not path.exists():
        return PUBLISHED
    content = read_json(path, AGAIN)
    try:
        trained = TrainedLines(float(content["pixels"]), float(content["vision"]), int(content["longest"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Refusal(f"{path}: it must give pixels, vision and longest as numbers; {AGAIN}") from None
    return trained


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
