"""The loader: one way in for every checkpoint, nothing read that is not needed, and errors that say what to do."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import PROMPT, open_model
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import core_model_loading

from ownhand.errors import Refusal
from ownhand.model import loading
from ownhand.model.loading import (
    BOS,
    EOS,
    IMAGE,
    PAD,
    ModelError,
    find_model,
    load_base_model,
    read_tokenizer,
    special_tokens,
)
from ownhand.model.sequence import SpecialTokens, as_image_outputs
from ownhand.model.views import ViewRules, compute_vision_tokens, pixel_inputs

REVISION = "9f30c71f441d010e5429c532364a86705536c53a"
TEXTS = [
    "мама мыла раму",
    "Ёж и ёлка, № 5",
    "«Да», — сказал он. „Нет“ ‘так’",
    "plain Latin text, 1984",
    "  two leading spaces",
    "line one\nстрока два\n\n\tтретья",
    "эмодзи 🙂👍🏽 и ☕",
    "trailing space ",
    "",
]


@pytest.fixture
def broken(tmp_path: Path, model_folder: Path) -> Path:
    """A copy of the tiny model whose weights a test may spoil."""
    folder = tmp_path / "broken"
    shutil.copytree(model_folder, folder)
    return folder


def respell(folder: Path, change: Any) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_an_error_that_lists_them(broken: Path) -> None:
    respell(broken, lambda weights: weights.pop("model.layers.2.self_attn.q_proj.weight"))
    with pytest.raises(
        ModelError, match=r"1 missing keys: model\.language_model\.layers\.2\.self_attn\.q_proj\.weight"
    ):
        load_base_model(str(broken), dtype=torch.float32)


def test_unexpected_weights_are_an_error_that_lists_them(broken: Path) -> None:
    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["model.layers.9.self_attn.q_proj.weight"] = torch.zeros(2, 2)
        weights["model.extra.bias"] = torch.zeros(2)

    respell(broken, add)
    with pytest.raises(ModelError, match=r"2 unexpected keys: .*extra\.bias.*layers\.9"):
        load_base_model(str(broken), dtype=torch.float32)


def test_misshapen_weights_are_an_error_that_lists_them(broken: Path) -> None:
    respell(broken, lambda weights: weights.update({"lm_head.weight": torch.zeros(3, 128)}))
    with pytest.raises(ModelError, match=r"mismatched keys: lm_head\.weight"):
        load_base_model(str(broken), dtype=torch.float32, vision=False)


def test_a_spoiled_vision_tower_is_an_error_only_where_it_is_used(broken: Path) -> None:
    respell(broken, lambda weights: weights.pop("model.sam_model.blocks.0.attn.qkv.weight"))
    load_base_model(str(broken), dtype=torch.float32, vision=False)
    with pytest.raises(ModelError, match=r"sam_encoder\.layers\.0\.attn\.qkv\.weight"):
        load_base_model(str(broken), dtype=torch.float32)


@pytest.mark.parametrize("part", [{"vision": False}, {"decoder": False}])
def test_what_is_left_out_is_not_read(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, Any]
) -> None:
    read: list[int] = []
    materialise = core_model_loading._materialize_copy

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        tensor = materialise(*arguments, **options)
        read.append(tensor.numel())
        return tensor

    monkeypatch.setattr(core_model_loading, "_materialize_copy", counted)
    model = load_base_model(str(model_folder), dtype=torch.float32, **part)
    assert sum(read) == sum(parameter.numel() for parameter in model.parameters())
    whole = load_base_model(str(model_folder), dtype=torch.float32)
    assert (
        0
        < sum(parameter.numel() for parameter in model.parameters())
        < 0.6 * sum(p.numel() for p in whole.parameters())
    )


def test_eager_and_sdpa_cached_and_uncached_give_the_same_logits(
    model_folder: Path, pictures: list[Image.Image], vision: ViewRules, special: SpecialTokens
) -> None:
    views = vision.views(pictures[0])
    ids = torch.tensor([[special.bos, *[special.image] * views.tokens, 30, 31, 32, 33]])
    logits = []
    for attention in ("eager", "sdpa"):
        model: Any = load_base_model(str(model_folder), dtype=torch.float32, attn_implementation=attention)
        assert model.config._attn_implementation == attention
        with torch.no_grad():
            logits.append(model(input_ids=ids, **pixel_inputs([views], torch.float32)).logits)
            cached = as_image_outputs([compute_vision_tokens(model, views)])
            logits.append(model(input_ids=ids, mm_encoder_outputs=cached).logits)
    assert logits[0].abs().max() > 0.1
    for other in logits[1:]:
        assert torch.allclose(logits[0], other, atol=1e-5, rtol=0)


def test_loading_is_silent_and_the_levels_of_the_loggers_are_restored(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # else nothing would be seen here
    levels = [logging.getLogger(name).level for name in loading.SILENCED_LOGGERS]
    load_base_model(str(model_folder), dtype=torch.float32, vision=False)
    load_base_model(str(model_folder), dtype=torch.float32)
    assert caplog.text == ""
    assert [logging.getLogger(name).level for name in loading.SILENCED_LOGGERS] == levels
    monkeypatch.setattr(loading, "SILENCED_LOGGERS", ())
    load_base_model(str(model_folder), dtype=torch.float32, vision=False)
    assert "sam_encoder" in caplog.text  # the table of keys that were not wanted


def test_a_hub_id_without_network_fails_within_seconds_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "hf_hub_url", lambda *_, **__: "http://127.0.0.1:9/config.json")  # nobody listens
    started = time.monotonic()
    with pytest.raises(ModelError, match=r"6\.7 GB.*model\.name_or_path") as error:
        find_model("deepseek-ai/DeepSeek-OCR", REVISION)
    assert time.monotonic() - started < 5
    assert REVISION in str(error.value)


def test_a_half_download_in_the_cache_is_not_taken_for_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    monkeypatch.setattr(loading, "snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(loading, "hf_hub_url", lambda *_, **__: "http://127.0.0.1:9/config.json")
    assert find_model("owner/name", REVISION, weights=False) == tmp_path
    with pytest.raises(ModelError, match="cannot be downloaded"):
        find_model("owner/name", REVISION)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    (tmp_path / "model-1.safetensors").touch()
    with pytest.raises(ModelError, match="cannot be downloaded"):
        find_model("owner/name", REVISION)
    (tmp_path / "model-2.safetensors").touch()
    assert find_model("owner/name", REVISION) == tmp_path


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [
        ("models/nowhere", None, "there is no folder"),
        ("C:\\models\\base", None, "there is no folder"),
        ("deepseek-ai/DeepSeek-OCR", None, "40-digit commit"),
    ],
)
def test_a_name_that_is_neither_folder_nor_pinned_hub_id_is_refused(
    name: str, revision: str | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        find_model(name, revision)


def test_other_architectures_are_refused_by_name(broken: Path) -> None:
    path = broken / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(config | {"model_type": "llava"}), encoding="utf-8")
    with pytest.raises(Refusal, match=r"'llava'.*deepseek_vl_v2, unlimited_ocr, deepseek_ocr2"):
        load_base_model(str(broken), dtype=torch.float32)
    path.write_text(json.dumps(config | {"architectures": ["DeepseekOCR2ForCausalLM"]}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"DeepseekOCR2ForCausalLM.*native layout: baidu/Unlimited-OCR, deepseek-comm"):
        load_base_model(str(broken), dtype=torch.float32)
    del config["vision_config"]["width"]["sam_vit_b"]
    path.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ModelError, match=r"vision_config\.width\.sam_vit_b: Field required"):
        load_base_model(str(broken), dtype=torch.float32)
    path.unlink()
    with pytest.raises(Refusal, match="no config.json"):
        load_base_model(str(broken), dtype=torch.float32)


def test_a_folder_without_its_tokenizer_and_a_foreign_tokenizer_are_refused(broken: Path) -> None:
    (broken / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer\.json"):
        read_tokenizer(broken)
    with pytest.raises(ModelError, match=r"lacks the special tokens \['<image>'"):
        special_tokens(Tokenizer(models.BPE(vocab={BOS: 0, "a": 1}, merges=[])), PROMPT)


@pytest.fixture
def declared_as_llama(tmp_path: Path) -> Path:
    """A byte-level BPE tokenizer with merges, beside a tokenizer_config.json that names another class."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[BOS, EOS, PAD, IMAGE],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for text in TEXTS for _ in range(3)], trainer)
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=50)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    declared = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(declared), encoding="utf-8")
    return tmp_path


def test_the_tokenizer_is_the_file_whatever_class_its_config_names(declared_as_llama: Path) -> None:
    """Ids by hand: every id's bytes, joined, are the text's own UTF-8 bytes, and merges were used."""
    tokenizer = read_tokenizer(declared_as_llama)
    content = json.loads((declared_as_llama / "tokenizer.json").read_text(encoding="utf-8"))
    names = {number: name for name, number in content["model"]["vocab"].items()}
    letters = bytes_of_letters()
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(bytes(letters[c] for c in names[i]) for i in ids) == text.encode()
    long = TEXTS[2]
    assert 8 < len(tokenizer.encode(long, add_special_tokens=False).ids) < len(long.encode())


def bytes_of_letters() -> dict[str, int]:
    """The letter by which byte-level BPE writes each byte: printable Latin-1 as it is, the rest from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(rest)}


def test_weights_that_are_replaced_behind_the_opened_model_are_not_taken_for_its_own(broken: Path) -> None:
    base = open_model(broken)
    assert base.load().dtype == torch.float32
    weights = load_file(broken / "model.safetensors")
    save_file({name: weight + 1 for name, weight in weights.items()}, broken / "model.safetensors")
    with pytest.raises(ModelError, match="changed while it was loaded"):
        base.load()
