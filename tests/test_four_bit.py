"""The routed experts in four bits: the same model as one whose experts have the rounded values, in less memory."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import edit_params
from PIL import Image

from benchmarks.random_checkpoint import IMAGE_ID, official_config
from ownhand.errors import Refusal
from ownhand.model import four_bit
from ownhand.model.adapter import add_adapter, load_adapter, lora_config, save_adapter
from ownhand.model.four_bit import has_four_bits, quantise_experts, scale_bytes, what_is_missing
from ownhand.model.loading import load_base_model
from ownhand.model.memory import Load, estimate_training, estimate_transcription
from ownhand.model.official import build_config
from ownhand.model.sequence import SpecialTokens, as_image_outputs
from ownhand.params import ParameterError, Params, TrainParams, check_params, read_params, read_yaml
from ownhand.read import Reader
from ownhand.vision.features import FeatureCache
from stages import train

pytest.importorskip("bitsandbytes", minversion=four_bit.LEAST_VERSION)

ROOT = Path(__file__).parent.parent
TWO_EXPERT_LAYERS = build_config(official_config(3), IMAGE_ID)  # at DeepSeek-OCR's widths


def train_params(**changes: Any) -> TrainParams:
    changes = {"lora_dropout": 0.0, "lora_r": 4, "lora_targets": ["attention", "mlp"], **changes}
    return read_params(ROOT / "params.yaml").train.model_copy(update=changes)


def load(folder: Path, expert_weights: Any = "nf4", dtype: torch.dtype = torch.float32) -> Any:
    return load_base_model(str(folder), dtype=dtype, vision=False, expert_weights=expert_weights)


def rounded(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The model whose experts have the values that NF4 has, in `dtype`."""
    model, quantised = load(folder, "as_is", dtype), load(folder, "nf4", dtype)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3:
            place, _, stack = name.rpartition(".")
            parameter.data.copy_(getattr(quantised.get_submodule(place), stack))
    return model


def adapted(model: Any, checkpointing: bool = False) -> Any:
    """With an adapter of attention and mlp whose weights are random and not zero."""
    found: Any = add_adapter(model, lora_config(train_params(), "x", None))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in sorted(found.named_parameters()):
        if "lora_" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    if checkpointing:
        found.activation_checkpointing_enable()
    return found.train()


def run(model: Any, tokens: torch.Tensor, special: SpecialTokens) -> torch.Tensor:
    ids = torch.tensor([[special.bos, *[special.image] * len(tokens), 30, 31, 32, 33]])
    logits: torch.Tensor = model(input_ids=ids, mm_encoder_outputs=as_image_outputs([tokens]), use_cache=False).logits
    return logits


def test_the_experts_take_4_bits_and_a_scale_for_each_64(model_folder: Path) -> None:
    model = load(model_folder, "as_is")
    weights = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 3)
    others = sum(parameter.nbytes for parameter in model.parameters() if parameter.ndim != 3)
    assert not has_four_bits(model) and scale_bytes(model) == 0
    quantise_experts(model)
    assert has_four_bits(model) and scale_bytes(model) == weights / 64 * 4
    assert sum(parameter.nbytes for parameter in model.parameters()) == others + weights / 2
    assert not any(parameter.requires_grad for parameter in model.parameters() if parameter.dtype == torch.uint8)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_outputs_and_all_gradients_are_those_on_the_rounded_values(
    model_folder: Path, special: SpecialTokens, cache: FeatureCache, checkpointing: bool
) -> None:
    tokens, found = cache.tokens("00001"), []
    for model in (adapted(rounded(model_folder)), adapted(load(model_folder), checkpointing)):
        for _ in range(2):  # the second pass meets whatever the first has left in torch's cache of parametrizations
            model.zero_grad()
            logits = run(model, tokens, special)
            logits.logsumexp(-1).mean().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append((logits.detach(), gradients))
    (expected, expected_gradients), (logits, gradients) = found
    assert torch.equal(logits, expected)
    assert gradients.keys() == expected_gradients.keys() and len(gradients) > 40
    for name, gradient in gradients.items():
        assert gradient is not None and bool(gradient.any()), name
        assert torch.equal(gradient, expected_gradients[name]), name
    assert torch.nn.utils.parametrize._cache == {} and torch.nn.utils.parametrize._cache_enabled == 0


def test_rounding_changes_the_model_a_little(model_folder: Path, special: SpecialTokens, cache: FeatureCache) -> None:
    with torch.no_grad():
        plain, four = (run(load(model_folder, kind), cache.tokens("00001"), special) for kind in ("as_is", "nf4"))
    assert 0 < (plain - four).abs().mean() < 0.2 * plain.std()


def test_an_adapter_trained_on_one_is_read_on_the_other(
    tmp_path: Path, model_folder: Path, special: SpecialTokens, cache: FeatureCache
) -> None:
    save_adapter(adapted(load(model_folder)), tmp_path, "a/b")
    with torch.no_grad():
        for expert_weights in ("nf4", "as_is"):
            model = load(model_folder, expert_weights)
            plain = run(model, cache.tokens("00001"), special)
            read = run(load_adapter(model, tmp_path), cache.tokens("00001"), special)
            assert not torch.allclose(read, plain, atol=1e-3)


def test_an_adapter_of_the_experts_is_refused(model_folder: Path) -> None:
    config = lora_config(train_params(lora_targets=["attention", "experts"]), "x", None)
    with pytest.raises(Refusal, match="in 4 bits here: set expert_weights to as_is"):
        add_adapter(load(model_folder), config)


def test_a_model_without_routed_experts_is_refused() -> None:
    with pytest.raises(Refusal, match="has none; set it to as_is"):
        quantise_experts(torch.nn.Linear(64, 64))


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert what_is_missing("cpu") is None and what_is_missing("cuda:1") is None
    assert what_is_missing("mps") == ("nf4 is there for cpu and cuda, not for mps", "set expert_weights to as_is")
    monkeypatch.setattr(four_bit, "LEAST_VERSION", "99")
    missing = what_is_missing("cpu")
    assert missing and missing[0] == f"bitsandbytes is {version('bitsandbytes')}, not 99"
    monkeypatch.setattr(four_bit, "PACKAGE", "no-such-package")
    with pytest.raises(Refusal, match=r"no-such-package is not installed; pip install -e .*4bit"):
        quantise_experts(torch.nn.Linear(64, 64))


@pytest.mark.parametrize(
    ("group", "values", "problem"),
    [
        ("train", {"gradient_checkpointing": False}, "needs gradient_checkpointing: true"),
        ("train", {"lora_targets": ["attention", "experts"]}, "take experts out of lora_targets"),
        ("transcribe", {"expert_weights": "nf4"}, "take experts out of train.lora_targets"),
    ],
)
def test_parameters_that_cannot_go_together(group: str, values: dict[str, Any], problem: str) -> None:
    content = read_yaml(ROOT / "params.yaml")
    if group == "train":
        content["train"] |= {"expert_weights": "nf4", "gradient_checkpointing": True, "lora_targets": ["attention"]}
        check_params(content, Path("params.yaml"))
    content[group] |= values
    with pytest.raises(ParameterError, match=problem):
        check_params(content, Path("params.yaml"))


def reading_params(expert_weights: str) -> Params:
    whole = read_params(ROOT / "params.yaml")
    transcribe = whole.transcribe.model_copy(update={"expert_weights": expert_weights, "batch_size": 1})
    model = whole.model.model_copy(update={"dtype": "bfloat16"})
    return whole.model_copy(update={"model": model, "train": train_params(), "transcribe": transcribe})


def test_the_estimate_knows_it() -> None:
    """0.88 GB of experts become 0.25, and those of one layer are there in bfloat16 while it runs."""
    experts = 2 * 64 * 3 * 1280 * 896
    params = train_params(gradient_checkpointing=True)

    def training(expert_weights: str) -> Any:
        changed = params.model_copy(update={"expert_weights": expert_weights})
        return estimate_training(TWO_EXPERT_LAYERS, changed, torch.bfloat16, "sdpa", Load(1, 1000, 800, 200))

    plain, four = training("as_is"), training("nf4")
    assert plain.weights - four.weights == experts * 2 - experts / 2 - experts / 64 * 4
    assert four.activations - plain.activations == pytest.approx(experts / 2 * 2, rel=0.05)
    reading = [estimate_transcription(TWO_EXPERT_LAYERS, reading_params(kind), 900) for kind in ("as_is", "nf4")]
    assert reading[0].weights - reading[1].weights == plain.weights - four.weights


def test_the_stages_take_it_from_params_yaml(
    stage_folder: Path, feature_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training learns, writes an adapter, and `ownhand read` reads with it."""
    monkeypatch.chdir(stage_folder)
    shutil.copytree(feature_folder, stage_folder / "data/features")
    edit_params(stage_folder, "train", expert_weights="nf4", gradient_checkpointing=True, epochs=2.0)
    edit_params(stage_folder, "transcribe", expert_weights="nf4", max_new_tokens=4)
    train.main()
    metrics = json.loads((stage_folder / "metrics/train.json").read_text("utf-8"))
    assert metrics["val_loss"] < metrics["val_loss_before"]
    reader = Reader(read_params(), Path("models/adapter"))
    assert has_four_bits(reader.model)
    assert len(reader.read([Image.new("RGB", (200, 60), "white")])) == 1
