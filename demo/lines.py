"""What the demo base model is trained on: an endless supply of drawn lines that grow longer as it learns."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

from demo.drawing import draw_line, lacks, random_hand
from demo.shape import CYRILLIC, MAX_LENGTH, VIEW_SIZES, build_tokenizer
from ownhand.images import paper_colour
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import special_tokens
from ownhand.model.sequence import SpecialTokens, build_training_ids, pad_batch
from ownhand.model.views import ViewSizes, make_views
from ownhand.params import AugmentParams
from ownhand.vision.augment import augment

LATIN = "abcdefghijklmnopqrstuvwxyz"
MAX_TILES = 16
USUAL_LENGTH = 64  # characters
KEPT = 256  # drawn lines that are shown a second time: drawing takes nearly as long as learning
# A tile costs the same however little stands on it, and most cuts between two tiles go through a letter: the base model
# reads best at three characters a tile, and makes nearly twice as many errors at two.
CHARACTERS_PER_TILE = (2.3, 4.8)
# Every sixth batch has lines as wide as a page, half as many, with more on each tile.
LONG_SHARE, LONG_TILES, LONG_PER_TILE = 1 / 6, 20, (3.6, 6.0)
# Share of the drawn lines in each language (the real ones are French); words are wordfreq's, frequent ones first.
LANGUAGES = {"ru": 0.7, "fr": 0.06, "en": 0.08, "de": 0.06, "uk": 0.03, "es": 0.03, "it": 0.02, "pl": 0.01, "cs": 0.01}
WORDS = 40_000
MIXED = 0.25  # share of the lines with words of another script: "Формат PDF", "мой Skype"
LOOK_ALIKE = set("ABCEHKMOPTXYI")  # the same picture in Cyrillic: a word of these alone cannot be told from one
LONGER_BELOW = 1.2
REAL_SHARE = 0.5  # of the lines that are no wider than usual: pictures of real handwriting
REAL_AUGMENT = AugmentParams(
    rotation_degrees=1.5, shear_degrees=15.0, stretch=0.2, margin=0.1, contrast=0.3, blur=0.02, shadow=0.15
)


@cache
def frequent_words(language: str) -> list[str]:
    """The most frequent words of a language, without those that are no words for a line."""
    from wordfreq import top_n_list

    return [word for word in top_n_list(language, WORDS, wordlist="best") if len(word) < 16]


class TextSource:
    """Texts to draw: words in random order, prose, pieces of short lines, random strings, words with wrong letters.

    Prose teaches which word follows which, as anyone knows who deciphers a hand. Wrong letters and random strings keep
    the decoder from guessing words instead of reading them.
    """

    def __init__(self, lines: list[str], prose: dict[str, str]) -> None:
        self.lines = lines
        self.prose = {language: text.split() for language, text in prose.items()}
        common, rare = "0123456789.,-!?:", "\"()«»„“”–—…№°%;/+='’*&@#"
        accented = "éèàçêùâîôûëïüöäœæñóáíúł"
        marks = [(common, 1.5), (rare, 0.3)]
        # Latin and Cyrillic are never mixed within a random string: many of their letters look the same.
        self.alphabets = [
            [(CYRILLIC, 4.0), (CYRILLIC.upper(), 1.5), *marks],
            [(LATIN, 4.0), (LATIN.upper(), 1.5), (accented, 1.0), (accented.upper(), 0.5), *marks],
        ]

    def draw(self, rng: random.Random, longest: int, shortest: int = 1) -> str:
        """One text of `shortest` to `longest` characters, or a little less, without spaces at its ends."""
        middle = max(shortest, longest // 2)
        length = rng.randint(shortest if rng.random() < 0.5 else middle, longest)
        kind = rng.random()
        if kind < 0.4:
            return self._words(rng, length)
        if kind < 0.7:
            return self._prose(rng, length)
        if kind < 0.78:
            return self._piece(rng, length)
        groups = self.alphabets[rng.random() < 0.2]
        characters = "".join(group for group, _ in groups)
        weights = [weight for group, weight in groups for _ in group]
        letters = rng.choices(characters, weights, k=length)
        for i in range(1, length - 1):
            if rng.random() < 0.1:
                letters[i] = " "
        return " ".join("".join(letters).split())

    def _prose(self, rng: random.Random, length: int) -> str:
        """A piece of a text as a line of a page has it: it begins anywhere, and may end in a word's first half."""
        language = rng.choices(list(self.prose), [LANGUAGES[one] for one in self.prose])[0]
        words = self.prose[language]
        start = rng.randrange(len(words))
        text = _first_words(words[start : start + length], length)
        following = words[(start + len(text.split())) % len(words)]
        if rng.random() < 0.1 and following[:6].isalpha() and len(following) > 4 and len(text) + 5 <= length:
            text += f" {following[: rng.randint(2, min(len(following) - 2, length - len(text) - 2))]}-"
        return text

    def _piece(self, rng: random.Random, length: int) -> str:
        words = f"{rng.choice(self.lines)} {rng.choice(self.lines)}".split()
        return _first_words(words[rng.randrange(max(1, len(words) // 2)) :], length)

    def _words(self, rng: random.Random, length: int) -> str:
        language = rng.choices(list(LANGUAGES), list(LANGUAGES.values()))[0]
        cyrillic = language in ("ru", "uk")
        foreign = 0.3 if rng.random() < MIXED else 0.0
        wrong = 0.15 if rng.random() < 0.35 else 0.0
        capitals = rng.random() < 0.03
        text = ""
        while True:
            other = rng.random() < foreign
            words = frequent_words(language if not other else "en" if cyrillic else "ru")
            word = words[int(len(words) * rng.random() ** 2)]
            if other and cyrillic and LOOK_ALIKE.issuperset(c for c in word.upper() if c.isalpha()):
                continue
            if other and rng.random() < (0.5 if len(word) < 5 else 0.1):
                word = word.upper()
            letters = CYRILLIC if cyrillic != other else LATIN
            if wrong:
                word = "".join(rng.choice(letters) if rng.random() < wrong else c for c in word)
            if rng.random() < (0.15 if text else 0.4):
                word = word[:1].upper() + word[1:]
            if rng.random() < 0.06:
                word = _number(rng)
            if capitals:
                word = word.upper()
            if rng.random() < 0.16:
                word = _punctuate(rng, word, language)
            longer = f"{text} {word}" if text else word
            if len(longer) > length:
                return text or word[:length].strip() or "я"
            text = longer


def _first_words(words: list[str], length: int) -> str:
    """As many of the words as fit, with spaces between them; at least the beginning of the first."""
    text = words[0][:length]
    for word in words[1:]:
        if len(text) + 1 + len(word) > length:
            break
        text += " " + word
    return text


def _number(rng: random.Random) -> str:
    form = rng.randrange(6)
    if form == 0:
        return f"{rng.randint(1, 31)}.{rng.randint(1, 12):02}.{rng.randint(1890, 2030)}"
    if form == 1:
        return f"{rng.randint(0, 23)}:{rng.randint(0, 59):02}"
    if form == 2:
        return f"{rng.randint(0, 99)},{rng.randint(0, 9)}"
    if form == 3:
        return rng.choice(["№ ", "", "", "§ "]) + str(rng.randint(1, 200))
    return str(rng.randint(0, 10 ** rng.randint(1, 4)))


def _punctuate(rng: random.Random, word: str, language: str) -> str:
    mark = rng.random()
    if mark < 0.75:
        return word + rng.choice(",,,,...!?:;…")
    if mark < 0.85:
        return word + rng.choice([" —", " —", " –", " -"])
    left, right = rng.choice([("«", "»"), ("«", "»"), ("(", ")"), ('"', '"'), ("„", "“")])
    if language == "fr" and rng.random() < 0.5:
        return rng.choice(["l'", "d'", "qu'", "j'", "n'"]) + word
    return f"{left}{word}{right}"


class DrawnLines(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of drawn and real lines; `longest` is a shared tensor: the longest text, in characters.

    real: (picture, text) of lines of real handwriting; each time that one is drawn, it is another copy of it.
    """

    def __init__(
        self,
        texts: TextSource,
        printed: list[Path],
        handwritten: list[Path],
        real: list[tuple[Path, str]],
        batch_size: int,
        seed: int,
        longest: torch.Tensor,
    ):
        self.texts, self.printed, self.handwritten, self.real = texts, printed, handwritten, real
        self.batch_size, self.seed, self.longest = batch_size, seed, longest
        self.tokenizer = build_tokenizer()
        self.special = special_tokens(self.tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
        self.sizes = ViewSizes(**VIEW_SIZES)
        self.kept: list[tuple[str, Any]] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        torch.set_num_threads(1)
        seed = self.seed * 1000 + (worker.id if worker else 0)
        rng, noise = random.Random(seed), np.random.default_rng(seed)
        while True:
            yield self._batch(rng, noise)

    def _batch(self, rng: random.Random, noise: np.random.Generator) -> dict[str, Any]:
        samples: list[tuple[str, Any]] = []
        if int(self.longest[0]) >= USUAL_LENGTH and rng.random() < LONG_SHARE:
            samples = [self._line(rng, noise, long=True) for _ in range(self.batch_size // 2)]
            return make_batch(samples, self.tokenizer, self.special)
        while len(samples) < self.batch_size:
            if len(samples) % 2 and len(self.kept) >= KEPT:
                samples.append(self.kept.pop(rng.randrange(len(self.kept))))
            else:
                real = self.real and rng.random() < REAL_SHARE
                samples.append(self._real_line(rng) if real else self._line(rng, noise))
                self.kept.append(samples[-1])
        return make_batch(samples, self.tokenizer, self.special)

    def _real_line(self, rng: random.Random) -> tuple[str, Any]:
        path, text = rng.choice(self.real)
        with Image.open(path) as opened:
            image = augment(opened.convert("RGB"), REAL_AUGMENT, [rng.getrandbits(63)])
        tiles = round(len(text) / rng.uniform(*CHARACTERS_PER_TILE))
        return text, make_views(image, "gundam", self.sizes, min(max(2, tiles), MAX_TILES))

    def _line(self, rng: random.Random, noise: np.random.Generator, long: bool = False) -> tuple[str, Any]:
        shortest, longest = (USUAL_LENGTH, MAX_LENGTH) if long else (1, int(self.longest[0]))
        characters, most_tiles = (LONG_PER_TILE, LONG_TILES) if long else (CHARACTERS_PER_TILE, MAX_TILES)
        while True:
            text = self.texts.draw(rng, longest, shortest)
            fonts = self.handwritten if rng.random() < 0.6 else self.printed
            able = [font for font in fonts if not any(lacks(font, character) for character in text)]
            if not able:  # few fonts have every accent
                continue
            font = rng.choice(able)
            try:
                image = draw_line(text, font, random_hand(noise, rng.random()), noise, rng.randint(44, 128))
            except (ValueError, OSError):  # a thin pen has lost a lone full stop, or a font has a broken letter
                continue
            if image.width < 2 * image.height and rng.random() < 0.9:
                # A row of tiles, as every line of text is; a lone letter would be stretched over two tiles upright.
                width = round(image.height * rng.uniform(2.0, 3.0))
                image = ImageOps.expand(image, (0, 0, width - image.width, 0), paper_colour(image))
            tiles = round(len(text) / rng.uniform(*characters))
            return text, make_views(image, "gundam", self.sizes, min(max(2, tiles), most_tiles))


def make_batch(samples: list[tuple[str, Any]], tokenizer: Tokenizer, special: SpecialTokens) -> dict[str, Any]:
    """A training batch with pixels from (text, views) pairs."""
    rows = [build_training_ids(tokenizer, special, views.tokens, text, 2048) for text, views in samples]
    batch: dict[str, Any] = pad_batch([ids for ids, _ in rows], special.pad, [labels for _, labels in rows])
    tiles = [views.tiles for _, views in samples if views.tiles is not None]
    batch["pixel_values"] = torch.stack([views.global_view for _, views in samples])
    batch["pixel_values_local"] = torch.cat(tiles) if tiles else None
    batch["num_local_patches"] = [0 if views.tiles is None else len(views.tiles) for _, views in samples]
    batch["patches_grid"] = [list(views.grid) for _, views in samples]
    return batch


class Curriculum:
    """How long the texts are: longer by two characters whenever the smoothed loss per token is low enough."""

    def __init__(self, longest: int, loss: float) -> None:
        self.shared = torch.tensor([longest])
        self.shared.share_memory_()  # type: ignore[no-untyped-call] # the drawing process reads it
        self.loss, self.since = loss, 0

    @property
    def longest(self) -> int:
        """Characters of the longest text."""
        return int(self.shared[0])

    def update(self, loss: float) -> None:
        """Take the loss of one more batch into account."""
        self.loss = 0.98 * self.loss + 0.02 * loss
        self.since += 1
        if self.loss < LONGER_BELOW and self.since >= 60 and self.longest < USUAL_LENGTH:
            self.shared[0] = min(USUAL_LENGTH, self.longest + 2)
            self.since = 0


def draw_samples(
    texts: list[str], fonts: list[Path], seed: int, strength: float, max_tiles: int
) -> list[tuple[str, Any]]:
    """(text, views) pairs for measuring, always the same for one seed."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    samples = []
    for text in texts:
        able = [font for font in fonts if not any(lacks(font, character) for character in text)]
        image = draw_line(text, rng.choice(able), random_hand(noise, strength), noise)
        samples.append((text, make_views(image, "gundam", ViewSizes(**VIEW_SIZES), max_tiles)))
    return samples


def real_samples(lines: list[tuple[Path, str]]) -> list[tuple[str, Any]]:
    """(text, views) pairs of (picture, text) pairs, for measuring, in as many tiles as the pictures ask for."""
    samples = []
    for path, text in lines:
        with Image.open(path) as image:
            samples.append((text, make_views(image.convert("RGB"), "gundam", ViewSizes(**VIEW_SIZES), MAX_TILES)))
    return samples
