"""An imitated checkpoint is one of the official layout: names, ids, pixels, and nothing that is zero by chance."""

from __future__ import annotations

import copy
import csv
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import PROMPT
from PIL import Image
from safetensors import safe_open

from benchmarks.random_checkpoint import IMAGE_ID, byte_level_tokenizer, imitate, official_config
from ownhand.errors import Refusal
from ownhand.model.loading import BOS, EOS, IMAGE, PAD, load_base_model, read_tokenizer, special_tokens
from ownhand.model.official import UNUSED_OFFICIAL, official_tensors, read_unused
from ownhand.model.views import compute_vision_tokens, make_views, read_view_sizes

pytestmark = pytest.mark.slow

TABLE = Path(__file__).parent / "data/official_tensors.csv"  # every tensor of the checkpoint, numbers replaced by N


def small_config() -> dict[str, Any]:
    """DeepSeek-OCR's config.json with few and narrow layers."""
    config = copy.deepcopy(official_config(2))
    config["language_config"] |= {
        "vocab_size": 128900,
        "hidden_size": 32,
        "intermediate_size": 48,
        "moe_intermediate_size": 16,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "n_routed_experts": 8,
    }
    widths = config["vision_config"]["width"]
    widths["clip-l-14-224"] |= {"width": 32, "layers": 2, "heads": 2}
    widths["sam_vit_b"] |= {
        "width": 24,
        "layers": 3,
        "heads": 2,
        "global_attn_indexes": [1],
        "downsample_channels": [16, 32],
        "output_channels": 16,
    }
    return config


@pytest.fixture(scope="module")
def imitation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imitation") / "base"
    imitate(folder, small_config(), torch.float32)
    return folder


def test_an_imitation_holds_official_names_and_loads_with_nothing_missing(imitation: Path) -> None:
    with safe_open(imitation / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert UNUSED_OFFICIAL in names
    with TABLE.open(encoding="utf-8") as table:
        official = {row["name"] for row in csv.DictReader(table)}
    assert {re.sub(r"\.\d+(?=\.)", ".N", name) for name in names} == official
    model = load_base_model(str(imitation), dtype=torch.float32)
    assert len(names) == len(official_tensors(model)) + 1


def test_what_is_written_is_what_is_read(imitation: Path) -> None:
    model = load_base_model(str(imitation), dtype=torch.float32)
    tensors = official_tensors(model)
    with safe_open(imitation / "model.safetensors", "pt") as file:
        for name, tensor in tensors.items():
            assert torch.equal(file.get_tensor(name), tensor), name
    unused = read_unused(imitation)
    assert unused is not None and unused.shape == (32, 3, 14, 14)


def test_the_imitated_tokenizer_has_the_official_ids(imitation: Path) -> None:
    special = special_tokens(read_tokenizer(imitation), PROMPT)
    assert (special.bos, special.eos, special.pad, special.image) == (0, 1, 2, 128815)
    tokenizer = byte_level_tokenizer()
    assert tokenizer.get_vocab_size() == IMAGE_ID + 1
    assert [tokenizer.id_to_token(i) for i in (0, 1, 2, IMAGE_ID)] == [BOS, EOS, PAD, IMAGE]
    text = "Ёж — № 5\n «да» 🙂"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_an_imitation_never_overwrites(imitation: Path) -> None:
    with pytest.raises(Refusal, match="not empty"):
        imitate(imitation, small_config(), torch.float32)


def test_an_imitation_has_at_least_one_layer() -> None:
    with pytest.raises(Refusal, match="--layers is 0"):
        official_config(0)


def test_a_full_disk_is_found_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000_000))
    with pytest.raises(Refusal, match=r"6\.7 GB are needed, 1\.0 GB are free"):
        imitate(tmp_path / "full", official_config(12), torch.bfloat16)
    assert not any((tmp_path / "full").iterdir())


def test_nothing_random_is_zero_and_every_mode_gives_its_number_of_tokens(imitation: Path) -> None:
    model = load_base_model(str(imitation), dtype=torch.float32, decoder=False)
    assert all(bool(parameter.any()) for parameter in model.parameters())
    picture = Image.effect_noise((1300, 640), 80).convert("RGB")
    for mode, tokens in (("tiny", 73), ("small", 111), ("large", 421), ("gundam", 273 + 10 * 21)):
        found = compute_vision_tokens(model, make_views(picture, mode, read_view_sizes(imitation), 6))
        assert found.shape == (tokens, 32), mode
        assert bool(found.isfinite().all()), mode
