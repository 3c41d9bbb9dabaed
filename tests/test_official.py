"""The official checkpoint, without downloading it: same names, same shapes, same sizes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, UnlimitedOcrForConditionalGeneration

from benchmarks.random_checkpoint import IMAGE_ID, official_config
from ownhand.model.official import UNUSED_OFFICIAL, build_config, official_tensors

TABLE = Path(__file__).parent / "data/official_tensors.csv"  # every tensor of the checkpoint, numbers replaced by N


@pytest.fixture(scope="module")
def hollow_model() -> PreTrainedModel:
    """The full model on the meta device: shapes without memory."""
    with torch.device("meta"):
        return UnlimitedOcrForConditionalGeneration(build_config(official_config(12), IMAGE_ID))


def test_all_tensors_of_the_full_model_have_official_names_and_shapes(hollow_model: PreTrainedModel) -> None:
    with TABLE.open(encoding="utf-8") as file:
        official = Counter({(row["name"], row["shape"]): int(row["count"]) for row in csv.DictReader(file)})
    assert sum(official.values()) == 2710
    ours = Counter(
        (re.sub(r"\.\d+(?=\.)", ".N", name), "x".join(map(str, tensor.shape)))
        for name, tensor in official_tensors(hollow_model).items()
    )
    ours[(UNUSED_OFFICIAL, "1024x3x14x14")] += 1  # the one matrix that the file has and its own code never uses
    assert ours == official


def test_the_full_model_has_the_official_number_of_parameters(hollow_model: PreTrainedModel) -> None:
    assert sum(p.numel() for p in hollow_model.parameters()) + 1024 * 3 * 14 * 14 == 3_336_106_240


def test_the_sliding_window_never_cuts(hollow_model: PreTrainedModel) -> None:
    text = hollow_model.config.text_config
    assert text.sliding_window == text.max_position_embeddings == 8192
