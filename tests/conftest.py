"""What several tests share: a tiny random model in the official layout, drawn lines, and their vision tokens."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import UnlimitedOcrForConditionalGeneration

from stages.lib.drawing import Hand, draw_line
from stages.lib.families import FAMILIES, OFFICIAL_MODEL_TYPE
from stages.lib.features import FeatureCache, FeatureWriter, VisionInput, compute_vision_tokens
from stages.lib.metadata import Sample
from stages.lib.model import load_base_model, read_tokenizer, special_tokens
from stages.lib.official import build_config
from stages.lib.sequence import SpecialTokens
from stages.lib.views import read_view_sizes
from stages.pretrain import build_tokenizer, official_config, write_base_model

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
PROMPT = FAMILIES[OFFICIAL_MODEL_TYPE].prompt
TEXTS = ["мама мыла раму", "Ёж № 5", "Дом, 1984 год", "«да» и «нет»"]


@pytest.fixture(autouse=True)
def one_thread_and_no_denormals() -> None:
    torch.set_flush_denormal(True)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with DeepSeek-OCR's architecture in the official layout, float32 on disk."""
    folder = tmp_path_factory.mktemp("model") / "base"
    tokenizer = build_tokenizer()
    special = special_tokens(tokenizer, PROMPT)
    torch.manual_seed(3)
    model = UnlimitedOcrForConditionalGeneration(
        build_config(official_config(tokenizer.get_vocab_size(), special), special.image)
    )
    write_base_model(model, folder, {}, {"steps": 0, "batch_size": 1}, dtype=torch.float32)
    return folder


@pytest.fixture(scope="session")
def special(model_folder: Path) -> SpecialTokens:
    return special_tokens(read_tokenizer(model_folder), PROMPT)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """One drawn line per text of TEXTS."""
    return [draw_line(text, FONT, Hand(), np.random.default_rng(i), 64) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Four training samples on two pages that belong to `pictures`; the last two serve as validation too."""
    return [
        Sample(f"{i + 1:05d}", f"{i + 1}.jpg", text, f"{i + 1}.jpg", f"p{i // 2}", "", 300, 64, "train", str(i))
        for i, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="session")
def vision(model_folder: Path) -> VisionInput:
    return VisionInput("gundam", read_view_sizes(model_folder), 8)


@pytest.fixture(scope="session")
def feature_folder(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    pictures: list[Image.Image],
    samples: list[Sample],
    vision: VisionInput,
) -> Path:
    """The vision tokens of `pictures`, as `encode` writes them."""
    folder = tmp_path_factory.mktemp("features")
    model = load_base_model(str(model_folder), dtype=torch.float32)
    writer = FeatureWriter(folder / "unfinished", shard_mb=1)
    for sample, picture in zip(samples, pictures, strict=True):
        writer.add(sample.image_id, compute_vision_tokens(model, vision.views(picture)))
    writer.finish(folder, {})
    shutil.rmtree(folder / "unfinished")
    return folder


@pytest.fixture
def cache(feature_folder: Path) -> FeatureCache:
    return FeatureCache(feature_folder)
