"""Token ids: the official sequence, exactly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ownhand.model.loading import read_tokenizer
from ownhand.model.sequence import (
    SequenceTooLong,
    SpecialTokens,
    build_prompt_ids,
    build_training_ids,
    pad_batch,
)
from ownhand.training.batches import VisionCollator


def test_the_prompt_has_no_space_behind_it_and_one_id_per_vision_token(
    model_folder: Path, special: SpecialTokens
) -> None:
    tokenizer = read_tokenizer(model_folder)
    ids = build_prompt_ids(special, vision_tokens=5)
    assert ids[:6] == [special.bos] + [special.image] * 5
    assert tokenizer.decode(ids[6:]) == "\nFree OCR."


def test_a_sample_that_would_be_cut_is_refused_with_its_count_and_the_limit(
    model_folder: Path, special: SpecialTokens
) -> None:
    tokenizer = read_tokenizer(model_folder)
    length = len(build_training_ids(tokenizer, special, 5, "абв", 1000)[0])
    assert build_training_ids(tokenizer, special, 5, "абв", length)[1][-1] == special.eos
    with pytest.raises(SequenceTooLong, match=rf"{length} tokens .* limit is {length - 1}"):
        build_training_ids(tokenizer, special, 5, "абв", length - 1)


@pytest.mark.parametrize(
    "text", ["<image>", "a<｜end▁of▁sentence｜>b", "<｜begin▁of▁sentence｜><｜▁pad▁｜>", "5 < 6 > 4 <|User|>"]
)
def test_names_of_special_tokens_in_a_transcription_are_text(
    model_folder: Path, special: SpecialTokens, text: str
) -> None:
    tokenizer = read_tokenizer(model_folder)
    ids, labels = build_training_ids(tokenizer, special, 3, text, 1000)
    answer = [label for label in labels if label >= 0]
    assert ids.count(special.image) == 3
    assert not {special.bos, special.pad, special.image} & set(answer) and answer.count(special.eos) == 1
    assert tokenizer.decode(answer[:-1], skip_special_tokens=True) == text


def test_padding_stands_on_the_asked_side_and_is_masked() -> None:
    right = pad_batch([[5, 6, 7], [8]], pad_id=2, labels=[[-100, 6, 7], [8]])
    assert right["input_ids"].tolist() == [[5, 6, 7], [8, 2, 2]]
    assert right["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert right["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    left = pad_batch([[5, 6, 7], [8]], pad_id=2, side="left")
    assert left["input_ids"].tolist() == [[5, 6, 7], [2, 2, 8]]
    assert left["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_the_collator_refuses_another_number_of_vision_tokens_than_image_ids(special: SpecialTokens) -> None:
    ids = [special.bos, special.image, special.image, 9]
    sample = {
        "image_id": "00007",
        "input_ids": ids,
        "labels": [-100, -100, -100, 9],
        "vision_tokens": torch.zeros(3, 4),
    }
    with pytest.raises(ValueError, match=r"00007: 2 image ids but 3 vision tokens"):
        VisionCollator(special, torch.float32)([sample])


@pytest.mark.parametrize("text", ["Съешь ещё", "№ 5 — «да»", "a\nb", "  два пробела", "😀漢字", "„Ё“ … ’"])
def test_the_demo_tokenizer_gives_every_text_back(model_folder: Path, text: str) -> None:
    tokenizer = read_tokenizer(model_folder)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_a_russian_letter_is_one_token(model_folder: Path) -> None:
    ids = read_tokenizer(model_folder).encode("Ёлка№«»", add_special_tokens=False).ids
    assert len(ids) == 7
