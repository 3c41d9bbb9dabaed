"""Memory told before the run: the estimate against a real step, and against arithmetic that anyone can redo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.random_checkpoint import IMAGE_ID, official_config
from ownhand.model import loss as loss_module
from ownhand.model.adapter import add_adapter, lora_config
from ownhand.model.four_bit import scale_bytes
from ownhand.model.loading import load_base_model, read_config
from ownhand.model.loss import label_logits_loss
from ownhand.model.memory import (
    LiveBytes,
    Load,
    Memory,
    estimate_training,
    estimate_transcription,
)
from ownhand.model.official import build_config
from ownhand.model.sequence import SpecialTokens, as_image_outputs
from ownhand.model.views import ViewRules, pixel_inputs
from ownhand.params import Params, TrainParams, read_params

ROOT = Path(__file__).parent.parent
FULL = build_config(official_config(12), IMAGE_ID)
TEXT_TOKENS, BATCH = 60, 3


def train_params(**changes: Any) -> TrainParams:
    return read_params(ROOT / "params.yaml").train.model_copy(update={"lora_dropout": 0.0, **changes})


def measured_training(
    folder: Path, params: TrainParams, views: Any, special: SpecialTokens, from_pictures: bool
) -> int:
    """Peak bytes of a real second training step, when the optimizer's state exists."""
    base: Any = load_base_model(
        str(folder), dtype=torch.float32, vision=from_pictures, expert_weights=params.expert_weights
    )
    model: Any = add_adapter(base, lora_config(params, "x", None))
    if params.gradient_checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    ids = [special.bos, *[special.image] * views.tokens, *[30] * TEXT_TOKENS]
    batch: dict[str, Any] = {
        "input_ids": torch.tensor([ids] * BATCH),
        "attention_mask": torch.ones(BATCH, len(ids), dtype=torch.long),
        "labels": torch.tensor([[-100] * (1 + views.tokens) + [30] * TEXT_TOKENS] * BATCH),
    }
    width = model.config.text_config.hidden_size
    if from_pictures:
        batch |= pixel_inputs([views] * BATCH, torch.float32)
    else:
        batch["mm_encoder_outputs"] = as_image_outputs([torch.randn(views.tokens, width) for _ in range(BATCH)])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    label_logits_loss(model, batch)[0].backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    counter = LiveBytes(model)
    counter.live += scale_bytes(model)
    for parameter in model.parameters():  # they lie in memory already: gradients, and two moments each
        if parameter.requires_grad:
            counter.live += 3 * parameter.nbytes
    with counter:
        label_logits_loss(model, batch)[0].backward()  # type: ignore[no-untyped-call]
    return counter.peak


@pytest.mark.parametrize(
    ("targets", "checkpointing", "logits_at_a_time", "expert_weights"),
    [
        (["attention", "mlp"], False, loss_module.FLOAT32_LOGITS, "as_is"),
        (["attention", "mlp"], True, loss_module.FLOAT32_LOGITS, "as_is"),
        (["attention", "mlp"], True, loss_module.FLOAT32_LOGITS, "nf4"),
        (["attention", "mlp"], True, 10_000, "as_is"),
        (["attention", "experts"], False, loss_module.FLOAT32_LOGITS, "as_is"),
        (["vision"], False, loss_module.FLOAT32_LOGITS, "as_is"),
    ],
)
def test_the_estimate_of_a_training_step_is_within_a_tenth_of_what_it_takes(
    model_folder: Path,
    pictures: list[Image.Image],
    vision: ViewRules,
    special: SpecialTokens,
    monkeypatch: pytest.MonkeyPatch,
    targets: list[str],
    checkpointing: bool,
    logits_at_a_time: int,
    expert_weights: str,
) -> None:
    monkeypatch.setattr(loss_module, "FLOAT32_LOGITS", logits_at_a_time)
    params = train_params(
        lora_targets=targets, lora_r=8, gradient_checkpointing=checkpointing, expert_weights=expert_weights
    )
    views = vision.views(pictures[0])
    from_pictures = "vision" in targets
    load = Load(BATCH, 1 + views.tokens + TEXT_TOKENS, views.tokens, TEXT_TOKENS, views if from_pictures else None)
    estimate = estimate_training(read_config(model_folder), params, torch.float32, "sdpa", load)
    measured = measured_training(model_folder, params, views, special, from_pictures)
    assert estimate.total == pytest.approx(measured, rel=0.1), str(estimate)


def test_the_parts_that_are_arithmetic_on_the_full_shape() -> None:
    params = train_params(lora_targets=["attention", "mlp"], lora_r=16)
    estimate = estimate_training(FULL, params, torch.bfloat16, "sdpa", Load(1, 400, 273, 100))
    layers = 12 * (4 * 1280**2 + 2 * 1280) + 3 * 1280 * 6848
    experts = 11 * (64 * 3 * 1280 * 896 + 3 * 1280 * 1792 + 64 * 1280)
    ends = 2 * 129280 * 1280 + 1280 + 2 * 1280  # embedding, head, norm; newline and separator
    assert estimate.weights == 2 * (layers + experts + ends)  # the decoder alone, bf16
    assert estimate.adapter == estimate.gradients == 4 * 3_978_240
    assert estimate.optimizer == 2 * estimate.adapter
    assert estimate.cache == 273 * 1280 * 2
    assert estimate.logits >= 100 * 129280 * 4  # at least one float32 copy at the label positions
    assert 6.2e9 < estimate.total < 8e9


def test_what_saves_memory_saves_it() -> None:
    def total(targets: list[str], checkpointing: bool, batch_size: int = 4) -> int:
        params = train_params(lora_targets=targets, lora_r=8, gradient_checkpointing=checkpointing)
        two_layers = build_config(official_config(2), IMAGE_ID)
        return estimate_training(two_layers, params, torch.bfloat16, "sdpa", Load(batch_size, 700, 600, 80)).total

    plain = total(["attention"], False)
    assert total(["attention"], True) < plain < total(["attention", "experts"], False)
    assert total(["attention"], False, batch_size=1) < plain


def reading_params(targets: list[str], attn: str = "sdpa") -> Params:
    """Reading four sequences in bfloat16, two beams of each of two pictures, up to 100 new tokens each."""
    whole = read_params(ROOT / "params.yaml")
    model = {"dtype": "bfloat16", "attn_implementation": attn}
    transcribe = {"batch_size": 2, "beams": 2, "max_new_tokens": 100}
    return whole.model_copy(
        update={
            "model": whole.model.model_copy(update=model),
            "train": train_params(lora_targets=targets, lora_r=8),
            "transcribe": whole.transcribe.model_copy(update=transcribe),
        }
    )


def test_generation_keeps_keys_and_values_of_every_layer() -> None:
    estimate = estimate_transcription(FULL, reading_params(["attention"]), 500)
    assert estimate.cache == 2 * 12 * 4 * 600 * 1280 * 2


def test_reading_counts_the_adapter_and_a_vision_tower_that_it_changes() -> None:
    two_layers = build_config(official_config(2), IMAGE_ID)
    narrow, wide, seeing = (
        estimate_transcription(two_layers, reading_params(targets), 900)
        for targets in (["attention"], ["attention", "mlp"], ["attention", "vision"])
    )
    assert 0 < narrow.adapter < wide.adapter
    assert seeing.weights - narrow.weights > 500_000_000  # SAM and CLIP


def test_eager_attention_takes_its_square_of_scores() -> None:
    two_layers = build_config(official_config(2), IMAGE_ID)
    sdpa, eager = (
        estimate_transcription(two_layers, reading_params(["attention"], name), 2000) for name in ("sdpa", "eager")
    )
    assert eager.activations - sdpa.activations > 4 * 10 * 2000 * 2000 * 2  # four sequences, ten heads, bf16


def test_the_parts_add_up_and_are_named() -> None:
    memory = Memory(weights=5_000_000_000, logits=500_000_000)
    assert memory.total == 5_500_000_000
    assert str(memory).startswith("5.50 GB (weights 5.00,")


def test_the_peak_is_what_lived_at_the_same_time() -> None:
    model = torch.nn.Linear(10, 10, bias=False)
    with LiveBytes(model) as counter:
        first = torch.ones(1000)
        del first
        second = torch.ones(500)
        third = second.view(50, 10)  # the same bytes, seen otherwise
        assert counter.live == 400 + 2000
        del second, third
    assert counter.live == 400
    assert counter.peak == 400 + 4000


def test_tensors_without_content_count_as_those_with() -> None:
    def step() -> int:
        model = torch.nn.Linear(64, 32)
        with LiveBytes(model) as counter:
            model(torch.ones(8, 64)).sum().backward()  # type: ignore[no-untyped-call]
        return counter.peak

    with FakeTensorMode():
        without = step()
    assert without == step() > 4 * (64 * 32 + 32 + 8 * 64 + 8 * 32)
