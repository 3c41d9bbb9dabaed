"""LoRA: what each target trains, that gradients arrive, and that an adapter comes back as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import UnlimitedOcrForConditionalGeneration

from benchmarks.random_checkpoint import IMAGE_ID, official_config
from ownhand.errors import Refusal
from ownhand.model.adapter import (
    add_adapter,
    changes_vision,
    load_adapter,
    lora_config,
    needs_pictures,
    read_adapter_config,
    read_adapter_weights,
    save_adapter,
)
from ownhand.model.base import BaseModel
from ownhand.model.loading import load_base_model
from ownhand.model.loss import label_logits_loss
from ownhand.model.official import build_config
from ownhand.model.sequence import SpecialTokens, as_image_outputs
from ownhand.model.views import ViewRules, compute_vision_tokens
from ownhand.params import TrainParams, read_params
from ownhand.samples import Sample
from ownhand.training.batches import VisionCollator
from ownhand.training.trainer import CachedSamples
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures

ROOT = Path(__file__).parent.parent

# Parameters of a rank-1 adapter on the full shape: inputs + outputs of every matrix, by hand.
ATTENTION = 12 * 4 * (1280 + 1280)
DENSE = 3 * (1280 + 6848)
SHARED = 11 * 3 * (1280 + 1792)
# PEFT sees the fused matrices: gate and up share their input side.
ROUTED = 11 * 64 * ((1280 + 2 * 896) + (896 + 1280))
SAM = 12 * ((768 + 2304) + (768 + 768) + 2 * (768 + 3072))
CLIP = 24 * (4 * (1024 + 1024) + 2 * (1024 + 4096))


def train_params(**changes: Any) -> TrainParams:
    return read_params(ROOT / "params.yaml").train.model_copy(update={"lora_dropout": 0.0, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("r", [8, 16])
@pytest.mark.parametrize(
    ("targets", "per_rank"),
    [
        (["attention"], ATTENTION),
        (["attention", "mlp"], ATTENTION + DENSE + SHARED),
        (["experts"], ROUTED),
        (["vision"], SAM + CLIP),
        (["projector"], 2048 + 1280),
        (["attention", "projector"], ATTENTION + 2048 + 1280),
    ],
)
def test_the_number_of_trained_parameters_on_the_full_shape(targets: list[str], per_rank: int, r: int) -> None:
    with torch.device("meta"):
        model = UnlimitedOcrForConditionalGeneration(build_config(official_config(12), IMAGE_ID))
    adapted = add_adapter(model, lora_config(train_params(lora_targets=targets, lora_r=r), "x", None))
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == per_rank * r


def test_the_numbers_that_are_told_of_deepseek_ocr() -> None:
    """Attention 1.97 M, dense layer 0.39 M, shared experts 1.62 M at r 16; experts 73.5 M if they were not fused."""
    assert (16 * ATTENTION, 16 * DENSE, 16 * SHARED) == (1_966_080, 390_144, 1_622_016)
    assert 16 * 11 * 64 * 3 * (1280 + 896) == 73_531_392
    assert 16 * ROUTED == 59_113_472


@pytest.fixture
def datasets(
    base: BaseModel,
    samples: list[Sample],
    pictures: list[Image.Image],
    cache: FeatureCache,
    special: SpecialTokens,
    tmp_path: Path,
) -> dict[str, dict[str, Any]]:
    """The same two samples as batches from the cache and from picture files."""

    class FromMemory(Pictures):
        def image(self, key: str) -> Image.Image:
            return pictures[int(key) - 1]

    encode = read_params(ROOT / "params.yaml").encode.model_copy(update={"copies": 0})
    arguments = (samples, cache, base, 2048, True)
    cached = CachedSamples(*arguments)
    drawn = CachedSamples(*arguments, pictures=FromMemory(samples, encode))
    return {
        "cached": VisionCollator(special, torch.float32)([cached[0], cached[1]]),
        "pictures": VisionCollator(special, torch.float32)([drawn[0], drawn[1]]),
    }


def gradients(model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Of the second LoRA matrices, which alone have one at the start."""
    model.zero_grad()
    label_logits_loss(model, batch)[0].backward()  # type: ignore[no-untyped-call]
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None and "lora_B" in n}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_arrive_in_the_vision_tower_and_nowhere_else(
    model_folder: Path, datasets: dict[str, dict[str, Any]], checkpointing: bool
) -> None:
    params = train_params(lora_targets=["vision", "projector"], lora_r=2)
    model = add_adapter(load_base_model(str(model_folder), dtype=torch.float32), lora_config(params, "x", None))
    if checkpointing:
        model.activation_checkpointing_enable()
    model.train()
    found = gradients(model, datasets["pictures"])
    for part in ("sam_encoder.layers.0.attn.qkv", "sam_encoder.layers.2.mlp.lin2", "vision_encoder", "projector"):
        arrived = [g for n, g in found.items() if part in n]
        assert arrived and all(bool(gradient.any()) for gradient in arrived), part
    assert all("vision_tower" in name or "projector" in name for name in found)


def test_pictures_and_cache_give_the_same_loss_and_decoder_gradients(
    model_folder: Path, datasets: dict[str, dict[str, Any]]
) -> None:
    params = train_params(lora_targets=["attention"], lora_r=2)
    torch.manual_seed(1)
    model = add_adapter(load_base_model(str(model_folder), dtype=torch.float32), lora_config(params, "x", None))
    with torch.no_grad():
        losses = [float(label_logits_loss(model, batch)[0]) for batch in datasets.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    cached, drawn = (gradients(model, batch) for batch in datasets.values())
    assert cached.keys() == drawn.keys()
    for name, gradient in cached.items():
        assert torch.allclose(gradient, drawn[name], rtol=1e-3, atol=1e-5), name


def test_gradient_checkpointing_changes_no_gradient(model_folder: Path, datasets: dict[str, dict[str, Any]]) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(1)
        model = load_base_model(str(model_folder), dtype=torch.float32, vision=False)
        adapted = add_adapter(model, lora_config(train_params(lora_targets=["attention", "mlp"]), "x", None))
        if checkpointing:
            adapted.activation_checkpointing_enable()
        adapted.train()
        found.append(gradients(adapted, datasets["cached"]))
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], rtol=1e-4, atol=1e-6), name


def train_a_little(model_folder: Path, targets: list[str], folder: Path) -> Any:
    """A saved adapter whose weights are random and not zero; the model that has it."""
    torch.manual_seed(5)
    base = load_base_model(str(model_folder), dtype=torch.float32)
    adapted: Any = add_adapter(base, lora_config(train_params(lora_targets=targets, lora_r=3), str(model_folder), None))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(adapted, folder, "a/b")
    return adapted.eval()


def logits(model: Any, tokens: torch.Tensor, special: SpecialTokens) -> torch.Tensor:
    ids = torch.tensor([[special.bos, *[special.image] * len(tokens), 30, 31, 32]])
    with torch.no_grad():
        output: torch.Tensor = model(input_ids=ids, mm_encoder_outputs=as_image_outputs([tokens])).logits
    return output


@pytest.mark.parametrize("targets", [["attention", "mlp"], ["attention", "experts"], ["vision", "projector", "mlp"]])
def test_a_saved_adapter_reads_as_it_was(
    tmp_path: Path, model_folder: Path, special: SpecialTokens, cache: FeatureCache, targets: list[str]
) -> None:
    trained = train_a_little(model_folder, targets, tmp_path)
    base = load_base_model(str(model_folder), dtype=torch.float32)
    tokens = cache.tokens("00001")
    plain = logits(base, tokens, special)
    loaded = load_adapter(base, tmp_path)
    assert torch.equal(logits(loaded, tokens, special), logits(trained, tokens, special))
    assert not torch.allclose(logits(loaded, tokens, special), plain, atol=1e-3)
    assert changes_vision(tmp_path) is needs_pictures(targets)


@pytest.mark.parametrize("targets", [["attention", "mlp"], ["experts"]])
def test_half_an_adapter_adds_half_to_every_weight(
    tmp_path: Path, model_folder: Path, special: SpecialTokens, cache: FeatureCache, targets: list[str]
) -> None:
    train_a_little(model_folder, targets, tmp_path)
    tokens = cache.tokens("00001")
    plain = load_base_model(str(model_folder), dtype=torch.float32)
    before = {name: weight.clone() for name, weight in plain.named_parameters()}
    whole, half = (
        load_adapter(load_base_model(str(model_folder), dtype=torch.float32), tmp_path, strength).merge_and_unload()
        for strength in (1.0, 0.5)
    )
    changed = 0
    for (name, full), weight in zip(whole.named_parameters(), half.parameters(), strict=True):
        assert torch.allclose(weight - before[name], (full - before[name]) / 2, atol=1e-6), name
        changed += not torch.equal(weight, before[name])
    assert changed and not torch.allclose(logits(whole, tokens, special), logits(half, tokens, special), atol=1e-4)


def test_an_adapter_of_the_vision_tower_changes_vision_tokens_and_needs_the_tower(
    tmp_path: Path, model_folder: Path, pictures: list[Image.Image], vision: ViewRules
) -> None:
    trained = train_a_little(model_folder, ["vision"], tmp_path)
    views = vision.views(pictures[0])
    plain = compute_vision_tokens(load_base_model(str(model_folder), dtype=torch.float32), views)
    changed = compute_vision_tokens(trained, views)
    assert not torch.allclose(plain, changed, atol=1e-3)
    loaded = load_adapter(load_base_model(str(model_folder), dtype=torch.float32), tmp_path)
    assert torch.equal(compute_vision_tokens(loaded, views), changed)
    with pytest.raises((Refusal, ValueError)):
        load_adapter(load_base_model(str(model_folder), dtype=torch.float32, vision=False), tmp_path)


def test_an_adapter_names_the_configured_base_model_and_no_path_of_this_machine(
    tmp_path: Path, model_folder: Path
) -> None:
    base = load_base_model(str(model_folder), dtype=torch.float32, vision=False)
    adapted = add_adapter(base, lora_config(train_params(lora_targets=["attention"]), "owner/name", None))
    save_adapter(adapted, tmp_path, "owner/name")
    assert json.loads((tmp_path / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"] == "owner/name"


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path, model_folder: Path) -> None:
    train_a_little(model_folder, ["attention"], tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: torch.zeros(1, 1)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(Refusal, match="does not fit"):
        load_adapter(load_base_model(str(model_folder), dtype=torch.float32), tmp_path)
    with pytest.raises(Refusal, match="holds no adapter"):
        load_adapter(load_base_model(str(model_folder), dtype=torch.float32), tmp_path / "nowhere")


@pytest.fixture
def saved(tmp_path: Path, model_folder: Path) -> Path:
    """An adapter of attention and experts, a little trained."""
    torch.manual_seed(5)
    config = lora_config(train_params(lora_targets=["attention", "experts"], lora_r=2), "base", None)
    adapted = add_adapter(load_base_model(str(model_folder), dtype=torch.float32, vision=False), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(adapted, tmp_path / "adapter", "base")
    return tmp_path / "adapter"


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    content = json.loads(path.read_text(encoding="utf-8")) | changes
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_configuration_comes_back_as_it_was_written(saved: Path) -> None:
    written = json.loads((saved / "adapter_config.json").read_text(encoding="utf-8"))
    read = read_adapter_config(saved)
    assert {name: written[name] for name in ("r", "lora_alpha", "target_modules", "target_parameters")} == {
        "r": read.r,
        "lora_alpha": read.lora_alpha,
        "target_modules": read.target_modules,
        "target_parameters": read.target_parameters,
    }
    assert isinstance(read.lora_alpha, int) and read.base_model_name_or_path == "base"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"megatron_config": {"a": 1}, "megatron_core": "spy"},
            'does not know .*megatron_config: .*megatron_core: "spy"',
        ),
        ({"megatron_core": "spy"}, "does not know .*megatron_core"),
        ({"use_dora": True}, "does not know .*use_dora: true"),
        ({"rank_pattern": {"q_proj": 4}}, "does not know .*rank_pattern"),
        ({"modules_to_save": ["lm_head"]}, "does not know .*modules_to_save"),
        ({"of_a_later_peft": 3}, "does not know .*of_a_later_peft: 3"),
        ({"target_modules": "(x+x+)+y"}, "target_modules is a pattern that ownhand does not write"),
        ({"target_modules": ["q_proj", "(x+x+)+y"]}, "target_modules.*should match pattern"),
        ({"target_modules": 7}, "target_modules"),
        ({"target_parameters": ["lm_head.weight"]}, "target_parameters"),
        ({"r": 0}, "r: Input should be greater than"),
        ({"r": 10**9}, "r: Input should be less than"),
        ({"r": "16"}, "r: Input should be a valid integer"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": -1}, "lora_alpha"),
        ({"peft_type": "IA3"}, "peft_type: Input should be 'LORA'"),
        ({"peft_type": None}, "peft_type"),
        ({"base_model_name_or_path": ["x"]}, "base_model_name_or_path"),
    ],
)
def test_a_foreign_configuration_brings_only_what_is_known(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    (tmp_path / "spy.py").write_text("open('spied', 'w')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    edit_config(saved, **changes)
    with pytest.raises(Refusal, match=f"adapter_config.json.*{said}"):
        read_adapter_config(saved)
    assert not (tmp_path / "spied").exists()


def test_settings_at_their_default_and_notes_of_other_versions_are_no_matter(saved: Path) -> None:
    before = read_adapter_config(saved).to_dict()
    edit_config(saved, peft_version="0.99", inference_mode=True, of_a_later_peft=None, another={}, use_dora=False)
    assert read_adapter_config(saved).to_dict() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"7", "\u0451".encode("cp1251"), b"{}", b"[" * 100_000])
def test_a_damaged_configuration_is_named(saved: Path, content: bytes) -> None:
    (saved / "adapter_config.json").write_bytes(content)
    with pytest.raises(Refusal, match=r"adapter_config\.json .*dvc repro train"):
        read_adapter_config(saved)


@pytest.mark.parametrize("damage", ["empty", "cut", "no safetensors", "header"])
def test_damaged_weights_are_named(saved: Path, model_folder: Path, damage: str) -> None:
    path = saved / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "cut": whole[:-9], "no safetensors": b"PK" * 99, "header": b"\xff" * 8 + whole[8:]}[damage]
    )
    for read in (changes_vision, read_adapter_weights):
        with pytest.raises(Refusal, match=r"adapter_model\.safetensors is damaged or not whole .*dvc repro train"):
            read(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_no_number_is_neither_loaded_nor_saved(
    saved: Path, model_folder: Path, tmp_path: Path, value: float
) -> None:
    weights = load_file(saved / "adapter_model.safetensors")
    name = sorted(weights)[0]
    weights[name][0, 0] = value
    save_file(weights, saved / "adapter_model.safetensors")
    model = load_base_model(str(model_folder), dtype=torch.float32, vision=False)
    with pytest.raises(Refusal, match=f"NaN or infinity in {name}"):
        load_adapter(model, saved)
    config = lora_config(train_params(lora_targets=["attention"], lora_r=2), "base", None)
    adapted = add_adapter(load_base_model(str(model_folder), dtype=torch.float32, vision=False), config)
    next(p for n, p in adapted.named_parameters() if "lora_B" in n).data[0, 0] = value
    with pytest.raises(Refusal, match=r"NaN or infinity in .*lora_B.*train\.learning_rate"):
        save_adapter(adapted, tmp_path / "never", "base")
    assert not (tmp_path / "never").exists()


def test_weights_that_are_integers_are_named(saved: Path) -> None:
    weights = load_file(saved / "adapter_model.safetensors")
    name = sorted(weights)[0]
    save_file({**weights, name: weights[name].to(torch.int64)}, saved / "adapter_model.safetensors")
    with pytest.raises(Refusal, match=rf"adapter_model\.safetensors: {name} is int64, not floating .*dvc repro train"):
        read_adapter_weights(saved)


def test_without_an_adapter_both_ways_to_have_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"train` writes models/adapter, and the export models/adapter-official"):
        read_adapter_config(tmp_path / "adapter-official")
