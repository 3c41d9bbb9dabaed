"""Peaks against the device: every finding provoked, and the worst batch of real samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ownhand.checks.base_model import gather_model
from ownhand.checks.device_memory import check_memory, estimate_step, worst_batches
from ownhand.checks.findings import Finding
from ownhand.checks.lengths import Lengths, SampleLength
from ownhand.model.memory import Memory
from ownhand.params import Params, read_params
from ownhand.samples import Sample

ROOT = Path(__file__).parent.parent
GB = 10**9


def params(**groups: dict[str, Any]) -> Params:
    whole = read_params(ROOT / "params.yaml")
    return whole.model_copy(update={k: getattr(whole, k).model_copy(update=v) for k, v in groups.items()})


def found(findings: list[Finding]) -> dict[str, str]:
    return {finding.code: finding.level for finding in findings if finding.level != "ready"}


@pytest.mark.parametrize(
    ("total", "device_total", "free", "level"),
    [
        (8 * GB, 16 * GB, 15 * GB, None),
        (17 * GB, 16 * GB, 15 * GB, "blocker"),
        (int(14.5 * GB), 16 * GB, 16 * GB, "warning"),  # tight
        (8 * GB, 16 * GB, 6 * GB, "warning"),  # another program has the rest
    ],
)
def test_memory_is_compared_with_the_device(total: int, device_total: int, free: int, level: str | None) -> None:
    findings = check_memory(Memory(weights=total), Memory(), "cuda", device_total, free, params())
    assert found(findings) == ({} if level is None else {"MODEL-005": level})


def test_what_lowers_memory_is_named_only_where_it_is_not_done_yet() -> None:
    remedy = check_memory(Memory(weights=20 * GB), Memory(), "cuda", 16 * GB, 16 * GB, params())[0].remedy
    assert "gradient_checkpointing" in remedy and "bfloat16" in remedy and "experts" in remedy
    lean = params(
        train={"gradient_checkpointing": True, "batch_size": 1, "lora_targets": ["attention"], "expert_weights": "nf4"},
        model={"dtype": "bfloat16"},
        encode={"mode": "base"},
    )
    assert check_memory(Memory(weights=20 * GB), Memory(), "cuda", 16 * GB, 16 * GB, lean)[0].remedy == (
        "use a device with more memory"
    )


def test_reading_is_compared_too_and_has_a_remedy_of_its_own() -> None:
    training, reading = check_memory(Memory(), Memory(cache=20 * GB), "cuda", 16 * GB, 16 * GB, params())
    assert (training.level, reading.level) == ("ready", "blocker")
    assert reading.remedy == "lower transcribe.beams; halve transcribe.batch_size"
    without_experts = params(train={"lora_targets": ["attention"]}, transcribe={"beams": 1})
    reading = check_memory(Memory(), Memory(cache=20 * GB), "cuda", 16 * GB, 16 * GB, without_experts)[1]
    assert reading.remedy == "halve transcribe.batch_size; set transcribe.expert_weights to nf4"


@pytest.mark.parametrize("targets", [["attention"], ["attention", "projector"]])
def test_a_larger_batch_takes_more_with_and_without_the_vision_tower(model_folder: Path, targets: list[str]) -> None:
    case = params(model={"name_or_path": str(model_folder)}, train={"lora_targets": targets})
    _, model = gather_model(case)
    assert model is not None
    line = Sample("00001", "1.jpg", "мама", "1.jpg", "p", "", 300, 64, "train", "")
    lengths = Lengths(
        each=(SampleLength(line, 60, 41, 10),),
        longest=60,
        sample=line,
        vision=41,
        labels=10,
        answer=10,
        prompt=50,
        aspect=4.7,
    )
    one, eight = (estimate_step(case, model, lengths, batch_size).total for batch_size in (1, 8))
    assert 0 < one < eight < 8 * one


def test_within_a_token_budget_the_batch_of_short_sequences_counts_too() -> None:
    line = Sample("00001", "1.jpg", "мама", "1.jpg", "p", "", 300, 64, "train", "")
    long, short = SampleLength(line, 900, 860, 20), SampleLength(line, 110, 80, 15)
    lengths = Lengths(
        each=(long, short), longest=900, sample=line, vision=860, labels=20, answer=20, prompt=880, aspect=4.7
    )
    assert worst_batches(params(), lengths, 16) == [(long, 16)]
    budget = params(train={"batch_tokens": 2000})
    assert worst_batches(budget, lengths, 64) == [(long, 2), (short, 18)]
    shared = budget.model_copy(update={"runtime": budget.runtime.model_copy(update={"processes": 4})})
    assert worst_batches(shared, lengths, 64) == [(long, 1), (short, 5)]


def test_a_token_budget_takes_less_than_as_many_sequences_of_any_length(model_folder: Path) -> None:
    line = Sample("00001", "1.jpg", "мама", "1.jpg", "p", "", 300, 64, "train", "")
    long, short = SampleLength(line, 200, 160, 30), SampleLength(line, 60, 41, 10)
    lengths = Lengths(
        each=(long, short), longest=200, sample=line, vision=160, labels=30, answer=30, prompt=170, aspect=4.7
    )
    totals = []
    for budget in (None, 1600, 400):
        train = {"batch_tokens": budget, "lora_targets": ["attention"]}
        case = params(model={"name_or_path": str(model_folder)}, train=train)
        _, model = gather_model(case)
        assert model is not None
        totals.append(estimate_step(case, model, lengths, 16).total)
    assert totals[2] < totals[1] < totals[0]
