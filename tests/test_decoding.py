"""Decoding: loops are seen, confidence is a probability, batches do not change readings."""

from __future__ import annotations

import math

import pytest
import torch
from conftest import ROOT, open_model
from PIL import Image

from ownhand.errors import Refusal
from ownhand.model.base import BaseModel
from ownhand.model.decoding import ConfidenceRecorder, is_loop, json_lines, transcribe_tokens
from ownhand.model.loss import label_logits_loss
from ownhand.model.sequence import as_image_outputs, build_training_ids, pad_batch
from ownhand.model.views import compute_vision_tokens
from ownhand.params import TranscribeParams
from ownhand.samples import Sample
from ownhand.vision.features import FeatureCache


@pytest.mark.parametrize(
    ("ids", "loops"),
    [
        ([7] * 20, True),
        ([7] * 19, False),
        ([1, 2, 3] * 7, True),
        ([9, 9, *[1, 2, 3, 4, 5, 6] * 4], True),
        ([*[1, 2, 3, 4, 5, 6] * 3, 1, 2, 3, 4, 5], False),
        (list(range(60)), False),
        ([*[7] * 30, 8], False),
        ([], False),
    ],
)
def test_a_loop_is_four_repeats_over_twenty_tokens_at_the_end(ids: list[int], loops: bool) -> None:
    assert is_loop(ids) is loops


def test_the_recorder_notes_the_probabilities_of_the_likeliest_tokens_and_changes_nothing() -> None:
    recorder = ConfidenceRecorder(beams=1)
    scores = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)], [0.0, 0.0, float("-inf")]])
    assert recorder(torch.zeros(2, 1, dtype=torch.long), scores) is scores  # type: ignore[arg-type]
    likeliest = recorder.steps[0][0]
    assert recorder.chosen(likeliest, torch.tensor([[0], [1]])).exp().flatten().tolist() == pytest.approx([0.7, 0.5])
    equal = torch.tensor([[1 - likeliest[1, 0]]])
    assert recorder.chosen(equal, torch.tensor([[1]])).exp().item() == pytest.approx(0.5)


def test_beams_find_likelier_texts_and_their_confidence_is_that_of_the_text(pictures: list[Image.Image]) -> None:
    base = open_model(ROOT / "models/base")  # a random model never ends a text
    model = base.load()
    tokens = [compute_vision_tokens(model, base.view_rules.views(picture)) for picture in pictures]
    chances = []
    for beams in (1, 4):
        params = TranscribeParams(max_new_tokens=60, no_repeat_ngram_size=0, batch_size=3, beams=beams)
        readings = transcribe_tokens(model, tokens, base, params, None)
        for picture, reading in zip(tokens, readings, strict=True):
            assert not reading.runaway
            ids, labels = build_training_ids(base.tokenizer, base.special, len(picture), reading.text, 2048)
            row = pad_batch([ids], base.special.pad, [labels])
            loss, count = label_logits_loss(model, {**row, "mm_encoder_outputs": as_image_outputs([picture])})
            assert reading.confidence == pytest.approx(math.exp(-float(loss.detach()) / int(count)), rel=1e-3)
        chances.append([math.log(reading.confidence) for reading in readings])
    assert sum(chances[1]) > sum(chances[0])


def test_readings_do_not_depend_on_the_batch_they_are_read_in(
    base: BaseModel, samples: list[Sample], cache: FeatureCache
) -> None:
    model = base.load(vision=False)
    tokens = [cache.tokens(sample.image_id) for sample in samples]
    together, alone = (
        transcribe_tokens(
            model,
            tokens,
            base,
            TranscribeParams(max_new_tokens=12, no_repeat_ngram_size=0, batch_size=batch_size),
            "test",
        )
        for batch_size in (4, 1)
    )
    assert [r.text for r in together] == [r.text for r in alone]
    assert [r.confidence for r in together] == pytest.approx([r.confidence for r in alone], abs=1e-4)
    assert all(0 < r.confidence <= 1 for r in together)
    assert all(r.runaway == (r.new_tokens == 12) for r in together)


def test_a_picture_that_gives_no_numbers_is_refused(
    base: BaseModel, samples: list[Sample], cache: FeatureCache
) -> None:
    model = base.load(vision=False)
    tokens = [cache.tokens(samples[0].image_id), torch.full_like(cache.tokens(samples[1].image_id), float("nan"))]
    params = TranscribeParams(max_new_tokens=4, no_repeat_ngram_size=0, batch_size=2)
    with pytest.raises(Refusal, match=r"no numbers \(NaN\)"):
        transcribe_tokens(model, tokens, base, params, None)
    with pytest.raises(ValueError):
        json_lines([{"confidence": float("nan")}])
