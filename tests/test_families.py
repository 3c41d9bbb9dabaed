"""DeepSeek-OCR's relatives: the same loader, cache, trainer and reader, each proved on a tiny random model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FONT, open_model
from PIL import Image
from transformers import DeepseekOcr2Config, PreTrainedConfig, UnlimitedOcrConfig

from demo.drawing import Hand, draw_line
from demo.shape import build_tokenizer
from ownhand.checks.base_model import check_base_model, gather_model
from ownhand.errors import Refusal
from ownhand.files import write_json
from ownhand.model.adapter import add_adapter, load_adapter, lora_config, save_adapter
from ownhand.model.decoding import transcribe_tokens
from ownhand.model.families import FAMILIES, read_family
from ownhand.model.loading import load_base_model, model_class, read_tokenizer, special_tokens
from ownhand.model.loss import label_logits_loss
from ownhand.model.sequence import SpecialTokens, build_training_ids
from ownhand.model.views import ViewRules, Views, compute_vision_tokens, read_view_sizes
from ownhand.params import TranscribeParams, read_params
from ownhand.training.batches import VisionCollator

ROOT = Path(__file__).parent.parent
TEXT = "мама мыла раму"
NEWLINES = {"unlimited_ocr": 16 + 10, "deepseek_ocr2": 0}  # tokens that end a row: of the global view, of the tiles


def tiny_config(model_type: str, vocabulary: int, special: SpecialTokens) -> PreTrainedConfig:
    """A config of the family's own class with the family's own views and hardly any width."""
    sam = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "output_channels": 16,
        "global_attn_indexes": [],
        "downsample_channels": [16, 32],
        "mlp_dim": 32,
        "initializer_range": 0.02,
    }
    encoder = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 2048,
        "mlp_layer_types": ["dense", "sparse"],
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
    }
    kind = {"unlimited_ocr": UnlimitedOcrConfig, "deepseek_ocr2": DeepseekOcr2Config}[model_type]
    if model_type == "deepseek_ocr2":
        encoder["num_key_value_heads"] = 2
    return kind(
        vision_config={"sam_config": sam, "encoder_config": encoder},
        text_config=text,
        image_token_id=special.image,
    )


@dataclass(frozen=True)
class Relative:
    """A tiny checkpoint with a picture as it sees it."""

    model_type: str
    folder: Path
    special: SpecialTokens
    views: Views

    def load(self, **parts: Any) -> Any:
        return load_base_model(str(self.folder), dtype=torch.float32, **parts)

    def sample(self) -> dict[str, Any]:
        ids, labels = build_training_ids(read_tokenizer(self.folder), self.special, self.views.tokens, TEXT, 2048)
        return {"image_id": "00001", "input_ids": ids, "labels": labels}


@pytest.fixture(scope="module", params=["unlimited_ocr", "deepseek_ocr2"])
def relative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Relative:
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = build_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    special = special_tokens(tokenizer, FAMILIES[request.param].prompt)
    torch.manual_seed(1)
    config = tiny_config(request.param, tokenizer.get_vocab_size(), special)
    model_class(config)(config).save_pretrained(folder)
    write_json(folder / "processor_config.json", {})
    picture = draw_line(TEXT, FONT, Hand(), np.random.default_rng(1), 64).resize((1500, 500))
    vision = ViewRules("gundam", read_view_sizes(folder), read_family(folder).max_tiles)
    return Relative(request.param, folder, special, vision.views(picture))


def test_the_folder_knows_its_family_and_the_sequence_its_prompt(relative: Relative) -> None:
    assert read_family(relative.folder) is FAMILIES[relative.model_type]
    tokenizer = read_tokenizer(relative.folder)
    ids = relative.sample()["input_ids"]
    assert tokenizer.decode(ids[1 + relative.views.tokens :]) == FAMILIES[relative.model_type].prompt + TEXT


def test_vision_tower_and_decoder_apart_give_what_the_whole_model_gives(relative: Relative) -> None:
    columns, rows = relative.views.grid
    assert (columns, rows) == (3, 1)
    tokens = compute_vision_tokens(relative.load(decoder=False), relative.views)
    side = 10 if relative.model_type == "unlimited_ocr" else 12
    assert tokens.shape == (16 * 16 + 3 * side * side + NEWLINES[relative.model_type] + 1, 32)
    whole = relative.load()
    assert torch.equal(tokens, compute_vision_tokens(whole, relative.views))
    cached = VisionCollator(relative.special, torch.float32)([{**relative.sample(), "vision_tokens": tokens}])
    drawn = VisionCollator(relative.special, torch.float32)([{**relative.sample(), "views": relative.views}])
    with torch.no_grad():
        losses = [
            float(label_logits_loss(model, batch)[0])
            for model, batch in ((whole, drawn), (whole, cached), (relative.load(vision=False), cached))
        ]
    assert losses[1] == losses[2] == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("targets", [["attention", "mlp", "experts"], ["vision", "projector"]])
def test_every_target_learns_and_the_adapter_comes_back(relative: Relative, targets: list[str], tmp_path: Path) -> None:
    params = read_params(ROOT / "params.yaml").train.model_copy(
        update={"lora_targets": targets, "lora_r": 4, "lora_dropout": 0.0}
    )
    torch.manual_seed(2)
    model = add_adapter(relative.load(), lora_config(params, "x", None))
    batch = VisionCollator(relative.special, torch.float32)([{**relative.sample(), "views": relative.views}])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.005)
    losses = []
    for _ in range(12):
        loss = label_logits_loss(model, batch)[0]
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    unmoved = [n for n, p in model.named_parameters() if "lora_B" in n and not bool(p.any())]
    assert unmoved == []
    save_adapter(model, tmp_path, "x")
    with torch.no_grad():
        expected = float(label_logits_loss(model.eval(), batch)[0])
        found = float(label_logits_loss(load_adapter(relative.load(), tmp_path), batch)[0])
    assert found == expected


def test_it_reads_from_cached_tokens_in_batches_as_alone(relative: Relative) -> None:
    tower = relative.load(decoder=False)
    small = ViewRules("base", read_view_sizes(relative.folder), 6).views(Image.new("RGB", (300, 200), "white"))
    pictures = [compute_vision_tokens(tower, views) for views in (relative.views, small)]
    model, base = relative.load(vision=False), open_model(relative.folder)

    def read(tokens: list[torch.Tensor]) -> list[Any]:
        params = TranscribeParams(max_new_tokens=6, no_repeat_ngram_size=3, batch_size=2)
        return transcribe_tokens(model, tokens, base, params, "test")

    together, apart = read(pictures), [read([tokens])[0] for tokens in pictures]
    assert [reading.text for reading in together] == [reading.text for reading in apart]
    for one, other in zip(together, apart, strict=True):
        assert one.confidence == pytest.approx(other.confidence, rel=1e-3)


def test_a_model_of_no_known_family_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="no config.json"):
        read_family(tmp_path)
    write_json(tmp_path / "config.json", {"model_type": "llama"})
    with pytest.raises(Refusal, match="'llama' is not one that ownhand knows"):
        read_family(tmp_path)


def test_the_readiness_report_finds_its_tensors_and_targets_in_place(relative: Relative) -> None:
    params = read_params(ROOT / "params.yaml")
    params = params.model_copy(update={"model": params.model.model_copy(update={"name_or_path": str(relative.folder)})})
    facts, model = gather_model(params)
    assert facts.files == facts.expected and facts.adapter_weights > 0
    assert model is not None and model.limits.modes == FAMILIES[relative.model_type].modes
    assert all(finding.level == "ready" for finding in check_base_model(facts, "cpu"))
