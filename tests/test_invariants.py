"""What must hold whatever the parameters: equivalent ways give equal numbers, and nothing moves that must not."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import pytest
import torch
from conftest import TEXTS, open_model
from PIL import Image

from demo.lines import make_batch
from ownhand.files import hash_file
from ownhand.model import loss as loss_module
from ownhand.model.adapter import add_adapter, lora_config
from ownhand.model.base import BaseModel
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.loading import load_base_model, read_tokenizer
from ownhand.model.loss import label_logits_loss, sum_cross_entropy
from ownhand.model.sequence import IGNORED_LABEL, SpecialTokens
from ownhand.model.views import ViewRules, compute_vision_tokens
from ownhand.params import TrainParams, TranscribeParams, read_params
from ownhand.samples import Sample
from ownhand.training.batches import VisionCollator
from ownhand.training.trainer import CachedSamples
from ownhand.vision.features import FeatureCache, write_features

ROOT = Path(__file__).parent.parent


@pytest.fixture
def train_params() -> TrainParams:
    return read_params(ROOT / "params.yaml").train


@pytest.fixture
def dataset(base: BaseModel, samples: list[Sample], cache: FeatureCache) -> CachedSamples:
    return CachedSamples(samples, cache, base, 2048, with_copies=True)


def mean_loss(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    total, count = label_logits_loss(model, batch)
    return total / count


def fit(model: Any, batch: dict[str, Any], steps: int, rate: float) -> float:
    """Train on one batch; the last loss."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        loss = mean_loss(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return float(loss.detach())


def test_cached_tokens_give_the_loss_of_pictures(
    model_folder: Path,
    pictures: list[Image.Image],
    vision: ViewRules,
    dataset: CachedSamples,
    special: SpecialTokens,
) -> None:
    model = load_base_model(str(model_folder), dtype=torch.float32)
    pixels = make_batch(
        [(t, vision.views(p)) for t, p in zip(TEXTS, pictures, strict=True)], read_tokenizer(model_folder), special
    )
    cached = VisionCollator(special, torch.float32)([dataset[i] for i in range(len(dataset))])
    with torch.no_grad():
        from_pictures = float(model(**pixels).loss)
        from_cache = float(mean_loss(model, cached))
    assert from_cache == pytest.approx(from_pictures, abs=1e-5)


def test_the_decoder_without_its_vision_tower_gives_the_same_loss(
    model_folder: Path, dataset: CachedSamples, special: SpecialTokens
) -> None:
    batch = VisionCollator(special, torch.float32)([dataset[0], dataset[1]])
    with torch.no_grad():
        losses = [
            float(mean_loss(load_base_model(str(model_folder), dtype=torch.float32, vision=vision), batch))
            for vision in (True, False)
        ]
    assert losses[0] == losses[1]


def test_the_vision_tower_without_its_decoder_gives_the_same_tokens(
    model_folder: Path, pictures: list[Image.Image], vision: ViewRules
) -> None:
    views = vision.views(pictures[0])
    whole, alone = (
        compute_vision_tokens(load_base_model(str(model_folder), dtype=torch.float32, decoder=decoder), views)
        for decoder in (True, False)
    )
    assert torch.equal(whole, alone)


def test_labels_are_ignored_exactly_on_bos_image_prompt_and_padding(
    model_folder: Path, dataset: CachedSamples, special: SpecialTokens
) -> None:
    tokenizer = read_tokenizer(model_folder)
    batch = VisionCollator(special, torch.float32)([dataset[i] for i in range(len(dataset))])
    for row, (ids, labels) in enumerate(zip(batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True)):
        answer = [*tokenizer.encode(TEXTS[row], add_special_tokens=False).ids, special.eos]
        prompt = tokenizer.encode("\nFree OCR.", add_special_tokens=False).ids
        images = ids.count(special.image)
        padding = len(ids) - 1 - images - len(prompt) - len(answer)
        assert ids == [special.bos, *[special.image] * images, *prompt, *answer, *[special.pad] * padding]
        assert labels == [*[-100] * (1 + images + len(prompt)), *answer, *[-100] * padding]


def test_only_adapter_weights_move_and_base_files_stay(
    model_folder: Path, dataset: CachedSamples, special: SpecialTokens, train_params: TrainParams
) -> None:
    files_before = {path: hash_file(path) for path in model_folder.iterdir()}
    model = add_adapter(
        load_base_model(str(model_folder), dtype=torch.float32, vision=False),
        lora_config(train_params, str(model_folder), None),
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    fit(model, VisionCollator(special, torch.float32)([dataset[0], dataset[1]]), steps=2, rate=1e-2)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    for target in ("self_attn.q_proj", "shared_experts.up_proj", "mlp.gate_proj", "mlp.experts"):
        assert any(target in name for name in moved), target
    assert {path: hash_file(path) for path in model_folder.iterdir()} == files_before


def test_the_training_loss_is_that_of_pictures_and_not_of_their_copies(dataset: CachedSamples) -> None:
    own = [replace(example, key=example.image_id) for example in dataset.examples]
    with_copies = copy(dataset)
    with_copies.examples = [one for each in own for one in (each, replace(each, key=f"{each.key}~1"))]
    assert with_copies.without_copies(len(own) + 1).examples == own
    assert with_copies.without_copies(2).examples == [own[0], own[len(own) // 2]]


@pytest.mark.slow
def test_one_batch_of_four_lines_can_be_learned_by_heart_and_needs_its_pictures(
    pictures: list[Image.Image], samples: list[Sample], tmp_path: Path, train_params: TrainParams
) -> None:
    base = open_model(ROOT / "models/base")
    whole = base.load()
    seen = (
        (sample.image_id, compute_vision_tokens(whole, base.view_rules.views(picture)))
        for sample, picture in zip(samples, pictures, strict=True)
    )
    write_features(tmp_path / "features", seen, {}, shard_mb=1)
    cache = FeatureCache(tmp_path / "features")
    dataset = CachedSamples(samples, cache, base, 2048, with_copies=True)
    collator = VisionCollator(base.special, torch.float32)
    batch = collator([dataset[i] for i in range(4)])
    swapped_set = dataset.with_swapped_pictures()
    swapped = collator([swapped_set[i] for i in range(4)])
    torch.manual_seed(0)
    model = add_adapter(base.load(vision=False), lora_config(train_params, "models/base", None))
    assert fit(model, batch, steps=60, rate=5e-3) < 0.05
    model.eval()
    tokens = [cache.tokens(example.key) for example in dataset.examples]
    settings = TranscribeParams(max_new_tokens=40, no_repeat_ngram_size=35, batch_size=3)
    readings = transcribe_tokens(model, tokens, base, settings, "test")
    assert jiwer.cer(TEXTS, [reading.text for reading in readings]) == 0
    assert not any(reading.runaway for reading in readings)
    with torch.no_grad():
        assert float(mean_loss(model, swapped)) > float(mean_loss(model, batch)) + 1


def test_a_batch_of_four_and_four_accumulated_batches_of_one_give_the_same_gradient(
    model_folder: Path, dataset: CachedSamples, special: SpecialTokens, train_params: TrainParams
) -> None:
    model = add_adapter(
        load_base_model(str(model_folder), dtype=torch.float32, vision=False),
        lora_config(train_params, str(model_folder), None),
    )
    collator = VisionCollator(special, torch.float32)
    whole = collator([dataset[i] for i in range(4)])
    count = int((whole["labels"] != -100).sum())

    def gradient(batches: list[dict[str, Any]]) -> torch.Tensor:
        model.zero_grad()
        for batch in batches:
            (label_logits_loss(model, batch)[0] / count).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together, apart = gradient([whole]), gradient([collator([dataset[i]]) for i in range(4)])
    assert torch.linalg.norm(together - apart) / torch.linalg.norm(together) < 1e-4


def test_a_loss_in_parts_is_the_loss_in_one_piece_and_so_are_its_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(23, 50, generator=generator, requires_grad=True)
    targets = torch.randint(0, 50, (23,), generator=generator)
    targets[3:7] = IGNORED_LABEL
    found = []
    for limit in (10**6, 250):  # all at once; five labels at a time
        monkeypatch.setattr(loss_module, "FLOAT32_LOGITS", limit)
        loss = sum_cross_entropy(logits, targets)
        (gradient,) = torch.autograd.grad(loss, logits)
        found.append((loss, gradient))
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)
    assert float(found[0][1][3:7].abs().max()) == 0.0
