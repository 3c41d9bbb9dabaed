"""Lengths: the same tokens that training will see, from text and size alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ownhand.checks.lengths import (
    PUBLISHED,
    TRAINED_LINES,
    TrainedLines,
    look_at_characters,
    measure_lengths,
    read_trained_lines,
    shown_width,
)
from ownhand.errors import Refusal
from ownhand.model.base import BaseModel
from ownhand.model.fit import SequenceLimit
from ownhand.model.sequence import SpecialTokens
from ownhand.model.views import ViewRules, ViewSizes
from ownhand.samples import Sample
from ownhand.training.trainer import CachedSamples
from ownhand.vision.features import FeatureCache


@pytest.fixture
def limit(base: BaseModel) -> SequenceLimit:
    return SequenceLimit(base, 512)


def test_the_longest_sequence_is_that_of_the_training_set(
    limit: SequenceLimit,
    samples: list[Sample],
    pictures: list[Image.Image],
    cache: FeatureCache,
    special: SpecialTokens,
) -> None:
    sized = [
        replace(one, width=picture.width, height=picture.height) for one, picture in zip(samples, pictures, strict=True)
    ]
    trained = CachedSamples(samples, cache, limit.base, 512, with_copies=False)
    lengths = measure_lengths(sized, limit)
    rows = [trained[i] for i in range(len(trained))]
    longest = max(rows, key=lambda row: len(row["input_ids"]))
    assert lengths.longest == len(longest["input_ids"])
    assert lengths.sample.image_id == longest["image_id"]
    assert lengths.vision == longest["input_ids"].count(special.image)
    assert lengths.labels == sum(label >= 0 for label in longest["labels"])
    assert lengths.answer == max(sum(label >= 0 for label in row["labels"]) for row in rows)
    assert lengths.prompt == max(sum(label < 0 for label in row["labels"]) for row in rows)
    assert lengths.training(0) == trained.lengths()
    assert sorted(lengths.training(2)) == sorted(3 * trained.lengths())


def test_characters_of_several_tokens_are_counted(limit: SequenceLimit, samples: list[Sample]) -> None:
    odd = replace(samples[0], text="☃☃ა мама")
    assert look_at_characters([odd], limit) == ({"☃": 2, "ა": 1}, ())


def test_characters_that_do_not_come_back_are_lost(limit: SequenceLimit, samples: list[Sample]) -> None:
    words = Tokenizer(WordLevel({"м": 0, "а": 1, "?": 2}, unk_token="?"))
    odd = replace(samples[0], text="ма☃")
    assert look_at_characters([odd], replace(limit, base=replace(limit.base, tokenizer=words))) == ({}, ("☃",))


@pytest.mark.parametrize(
    ("mode", "size", "width"),
    [
        ("gundam", (2000, 100), 8 * 64),  # eight columns of tiles are all there may be
        ("gundam", (300, 100), 3 * 64),
        ("gundam", (60, 30), 128),  # fits one tile: the global view alone shows it
        ("base", (2000, 100), 128),
        ("base", (100, 200), 64),  # padded at its sides
        ("small", (100, 200), 96),  # squashed
    ],
)
def test_the_width_in_which_a_picture_is_shown(mode: str, size: tuple[int, int], width: float) -> None:
    sizes = ViewSizes(tiny=64, small=96, base=128, large=256, tile=64, pixels_per_token=32)
    assert shown_width(ViewRules(mode, sizes, 8), *size) == width


def test_what_a_base_model_was_trained_on_is_read_beside_it(tmp_path: Path) -> None:
    assert read_trained_lines(tmp_path) == PUBLISHED
    (tmp_path / TRAINED_LINES).write_text('{"pixels": 15.4, "vision": 1.38, "longest": 28}')
    assert read_trained_lines(tmp_path) == TrainedLines(15.4, 1.38, 28)
    for damaged in ("[]", "{", '{"pixels": "wide", "vision": 1, "longest": 28}', '{"pixels": 1, "vision": 1}'):
        (tmp_path / TRAINED_LINES).write_text(damaged)
        with pytest.raises(Refusal, match=TRAINED_LINES):
            read_trained_lines(tmp_path)
