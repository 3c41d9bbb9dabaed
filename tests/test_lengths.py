"""Lengths: the same tokens that training will see, from text and size alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from ownhand.checks.lengths import look_at_characters, measure_lengths
from ownhand.model.base import BaseModel
from ownhand.model.fit import SequenceLimit
from ownhand.model.sequence import SpecialTokens
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
