"""What the demo base model is trained on: an endless supply of drawn lines that grow harder as it learns."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import ImageOps
from tokenizers import Tokenizer
from torch.utils.data import IterableDataset, get_worker_info

from demo.drawing import draw_line, lacks, random_hand
from demo.shape import CYRILLIC, VIEW_SIZES, build_tokenizer
from ownhand.images import paper_colour
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import special_tokens
from ownhand.model.sequence import SpecialTokens, build_training_ids, pad_batch
from ownhand.model.views import ViewSizes, make_views

LATIN = "abcdefghijklmnopqrstuvwxyz"
MAX_LENGTH = 28
MAX_TILES = 8
LONGER_BELOW = 1.1  # nats per token; isolated letters such as c and C cannot be told apart, so it never comes near 0


class TextSource:
    """Texts to draw: random strings, real words in random order, and words with wrong letters.

    Wrong letters and random strings keep the decoder from guessing words instead of reading them.
    """

    def __init__(self, lines: list[str]) -> None:
        self.words = sorted({word for line in lines for word in line.split()})
        self.letters = list(CYRILLIC)
        common, rare = "0123456789.,-!?:", "\"()«»„“–—…№°%;/+='’*&@#"
        # Latin and Cyrillic are never mixed within a string: many of their letters look the same.
        self.alphabets = [
            (list(alphabet + alphabet.upper() + common + rare), weights)
            for alphabet in (CYRILLIC, LATIN)
            for weights in [[4.0] * len(alphabet) + [1.5] * (len(alphabet) + len(common)) + [0.3] * len(rare)]
        ]

    def draw(self, rng: random.Random, longest: int, word_share: float) -> str:
        """One text of 1 to `longest` characters without spaces at its ends."""
        length = rng.randint(1, longest) if rng.random() < 0.5 else rng.randint(max(1, longest // 2), longest)
        if rng.random() < word_share:
            return self._words(rng, length)
        characters, weights = self.alphabets[rng.random() < 0.07]
        letters = rng.choices(characters, weights, k=length)
        for i in range(1, length - 1):
            if rng.random() < 0.08:
                letters[i] = " "
        return " ".join("".join(letters).split())

    def _words(self, rng: random.Random, length: int) -> str:
        text = ""
        wrong = 0.15 if rng.random() < 0.5 else 0.0
        while True:
            word = rng.choice(self.words)
            if wrong:
                word = "".join(rng.choice(self.letters) if rng.random() < wrong else c for c in word)
            if rng.random() < 0.15:
                word = word.capitalize()
            if rng.random() < 0.05:
                word = str(rng.randint(0, 2030))
            longer = f"{text} {word}" if text else word
            if len(longer) > length:
                return text or word[:length]
            text = longer


class DrawnLines(IterableDataset):  # type: ignore[type-arg]
    """Endless batches of drawn lines; `difficulty` is a shared tensor (longest text, share of words, strength)."""

    def __init__(self, texts: TextSource, fonts: list[Path], batch_size: int, seed: int, difficulty: torch.Tensor):
        self.texts, self.fonts, self.batch_size, self.seed, self.difficulty = texts, fonts, batch_size, seed, difficulty
        self.tokenizer = build_tokenizer()
        self.special = special_tokens(self.tokenizer, FAMILIES[OFFICIAL_MODEL_TYPE].prompt)
        self.sizes = ViewSizes(**VIEW_SIZES)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        torch.set_num_threads(1)
        seed = self.seed * 1000 + (worker.id if worker else 0)
        rng, noise = random.Random(seed), np.random.default_rng(seed)
        while True:
            yield self._batch(rng, noise)

    def _batch(self, rng: random.Random, noise: np.random.Generator) -> dict[str, Any]:
        longest, word_share, strength = int(self.difficulty[0]), float(self.difficulty[1]), float(self.difficulty[2])
        samples: list[tuple[str, Any]] = []
        while len(samples) < self.batch_size:
            text, font = self.texts.draw(rng, longest, word_share), rng.choice(self.fonts)
            if any(lacks(font, character) for character in text):
                continue
            image = draw_line(text, font, random_hand(noise, strength * rng.random()), noise, rng.randint(40, 72))
            if image.width < 2 * image.height and (longest < 8 or rng.random() < 0.9):
                # A row of tiles, as every line of text is; a lone letter would be stretched over two tiles upright.
                width = round(image.height * rng.uniform(2.0, 3.0))
                image = ImageOps.expand(image, (0, 0, width - image.width, 0), paper_colour(image))
            samples.append((text, make_views(image, "gundam", self.sizes, MAX_TILES)))
        return make_batch(samples, self.tokenizer, self.special)


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
    """How hard the texts are: longer by one character whenever the smoothed loss per token is low enough."""

    def __init__(self, difficulty: torch.Tensor) -> None:
        self.difficulty = difficulty
        self.longest, self.loss, self.since = 3, 9.0, 0

    def update(self, loss: float) -> None:
        self.loss = 0.97 * self.loss + 0.03 * loss
        self.since += 1
        if self.loss < LONGER_BELOW and self.since >= 40 and self.longest < MAX_LENGTH:
            self.longest, self.since = self.longest + 1, 0
        self.difficulty[0] = self.longest
        self.difficulty[1] = min(0.6, max(0.0, 0.06 * (self.longest - 4)))
        self.difficulty[2] = min(1.0, 0.25 + 0.05 * (self.longest - 3))


def draw_samples(texts: list[str], fonts: list[Path], seed: int, strength: float) -> list[tuple[str, Any]]:
    """(text, views) pairs for measuring, always the same for one seed."""
    rng, noise = random.Random(seed), np.random.default_rng(seed)
    samples = []
    for text in texts:
        able = [font for font in fonts if not any(lacks(font, character) for character in text)]
        image = draw_line(text, rng.choice(able), random_hand(noise, strength), noise)
        samples.append((text, make_views(image, "gundam", ViewSizes(**VIEW_SIZES), MAX_TILES)))
    return samples
