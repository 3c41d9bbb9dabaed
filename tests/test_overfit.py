"""The overfit gate: judged by numbers, and run on drawn lines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ownhand.checks.overfit import OverfitFacts, check_overfit, choose_lines, overfit
from ownhand.params import Params, read_params
from ownhand.samples import Sample

ROOT = Path(__file__).parent.parent
LEARNED = OverfitFacts(lines=4, steps=40, base_loss=2.1, loss=0.015, swapped_loss=6.0, uniform=5.8, cer=0.0)


def found(facts: OverfitFacts) -> dict[str, str]:
    return {finding.code: finding.level for finding in check_overfit(facts) if finding.level != "ready"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"swapped_loss": None}, {}),  # a single line has no other picture
        ({"loss": 0.5}, {"LEARN-001": "blocker"}),
        ({"cer": 0.03}, {"LEARN-001": "blocker"}),
        ({"swapped_loss": 0.2}, {"LEARN-001": "blocker"}),
        ({"base_loss": 15.18, "uniform": 11.77}, {"LEARN-002": "warning"}),
    ],
)
def test_learning_needs_a_low_loss_a_right_reading_and_a_look_at_the_picture(
    changes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert found(replace(LEARNED, **changes)) == expected


def test_the_finding_says_what_was_seen_and_likely_causes() -> None:
    finding = next(one for one in check_overfit(replace(LEARNED, loss=4.2, cer=0.9)) if one.code == "LEARN-001")
    assert "the model does not learn from these pictures" in finding.seen
    assert "loss 4.200" in finding.seen and "CER 0.900" in finding.seen
    assert "train.learning_rate" in finding.remedy and "encode.mode" in finding.remedy
    recites = next(one for one in check_overfit(replace(LEARNED, swapped_loss=0.1)) if one.code == "LEARN-001")
    assert "without looking" in recites.seen and "train.learning_rate" not in recites.remedy


def test_the_shortest_training_lines_with_texts_of_their_own_are_chosen(samples: list[Sample]) -> None:
    doubled = [*samples, replace(samples[1], image_id="00009"), replace(samples[1], image_id="00010", split="val")]
    chosen = choose_lines([replace(one, text=one.text[: 8 - i]) for i, one in enumerate(doubled)], 3)
    assert [len(one.text) for one in chosen] == [4, 5, 6]
    assert len(choose_lines(doubled)) == 4
    assert len({one.text for one in choose_lines(doubled)}) == 4


def on_disk(folder: Path, samples: list[Sample], pictures: list[Image.Image]) -> list[Sample]:
    written = []
    for sample, picture in zip(samples, pictures, strict=True):
        picture.save(folder / f"{sample.image_id}.png")
        path = (folder / f"{sample.image_id}.png").as_posix()
        written.append(replace(sample, image_path=path, width=picture.width, height=picture.height))
    return written


def run_params(model: Path, **train: Any) -> Params:
    whole = read_params(ROOT / "params.yaml")
    changes = {"batch_size": 4, "gradient_checkpointing": False, **train}
    return whole.model_copy(
        update={
            "model": whole.model.model_copy(update={"name_or_path": str(model)}),
            "train": whole.train.model_copy(update=changes),
            "runtime": whole.runtime.model_copy(update={"device": "cpu"}),
        }
    )


@pytest.mark.slow
def test_the_demo_model_learns_drawn_lines_by_heart(
    tmp_path: Path, samples: list[Sample], pictures: list[Image.Image]
) -> None:
    facts = overfit(
        on_disk(tmp_path, samples, pictures), run_params(ROOT / "models/base"), torch.device("cpu"), most_steps=100
    )
    assert found(facts) == {}
    assert facts.lines == 4 and facts.steps <= 100
    assert facts.loss < facts.base_loss < facts.uniform


def test_with_a_learning_rate_near_zero_nothing_is_learned(
    tmp_path: Path, samples: list[Sample], pictures: list[Image.Image], model_folder: Path
) -> None:
    params = run_params(model_folder, learning_rate=1e-9, lora_targets=["attention"])
    short = params.model_copy(update={"transcribe": params.transcribe.model_copy(update={"max_new_tokens": 4})})
    facts = overfit(on_disk(tmp_path, samples, pictures), short, torch.device("cpu"), most_steps=3)
    assert found(facts)["LEARN-001"] == "blocker"
    assert facts.steps == 3 and facts.loss == pytest.approx(facts.base_loss, abs=1e-3)


def test_empty_pictures_are_recited_and_the_gate_says_so(
    tmp_path: Path, samples: list[Sample], pictures: list[Image.Image]
) -> None:
    blank = [Image.new("RGB", pictures[0].size, "white")] * len(samples)
    params = run_params(ROOT / "models/base", lora_targets=["attention", "mlp"])
    facts = overfit(on_disk(tmp_path, samples, blank), params, torch.device("cpu"), 20)
    assert found(facts)["LEARN-001"] == "blocker"
