"""What several tests share: a tiny random model in the official layout, drawn lines, and their vision tokens."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests run side by side, one a core

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from transformers import UnlimitedOcrForConditionalGeneration

from demo.drawing import Hand, draw_line
from demo.shape import build_tokenizer, official_config, write_base_model
from ownhand.model.base import BaseModel
from ownhand.model.families import FAMILIES, OFFICIAL_MODEL_TYPE
from ownhand.model.loading import load_base_model, read_tokenizer, special_tokens
from ownhand.model.official import build_config
from ownhand.model.sequence import SpecialTokens
from ownhand.model.views import ViewRules, compute_vision_tokens, read_view_sizes
from ownhand.params import read_params
from ownhand.samples import Sample, write_metadata
from ownhand.vision.features import FeatureCache, write_features

ROOT = Path(__file__).parent.parent
FONT = ROOT / "demo/fonts/demo_hand/bad-script-regular.woff2"
PROMPT = FAMILIES[OFFICIAL_MODEL_TYPE].prompt
TEXTS = ["мама мыла раму", "Ёж № 5", "Дом, 1984 год", "«да» и «нет»"]


@pytest.fixture(autouse=True)
def no_denormals() -> None:
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


def open_model(folder: Path) -> BaseModel:
    """The model of a folder, with the modes and limits of the shipped params.yaml."""
    shipped = read_params(ROOT / "params.yaml")
    model = shipped.model.model_copy(update={"name_or_path": str(folder), "revision": None, "dtype": "float32"})
    return BaseModel.open(shipped.model_copy(update={"model": model}))


@pytest.fixture(scope="session")
def base(model_folder: Path) -> BaseModel:
    return open_model(model_folder)


@pytest.fixture(scope="session")
def special(model_folder: Path) -> SpecialTokens:
    return special_tokens(read_tokenizer(model_folder), PROMPT)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """One drawn line per text of TEXTS."""
    return [draw_line(text, FONT, Hand(), np.random.default_rng(i), 64) for i, text in enumerate(TEXTS)]


@pytest.fixture(scope="session")
def samples(pictures: list[Image.Image]) -> list[Sample]:
    """Four training samples on two pages that belong to `pictures`; the last two serve as validation too."""
    return [
        Sample(f"{i:05d}", f"{i}.jpg", text, f"{i}.jpg", f"p{(i - 1) // 2}", "", *picture.size, "train", f"{i:064x}")
        for i, (text, picture) in enumerate(zip(TEXTS, pictures, strict=True), start=1)
    ]


@pytest.fixture(scope="session")
def vision(model_folder: Path) -> ViewRules:
    return ViewRules("gundam", read_view_sizes(model_folder), 8)


@pytest.fixture(scope="session")
def feature_folder(
    tmp_path_factory: pytest.TempPathFactory,
    model_folder: Path,
    pictures: list[Image.Image],
    samples: list[Sample],
    vision: ViewRules,
) -> Path:
    """The vision tokens of `pictures`, as `encode` writes them."""
    folder = tmp_path_factory.mktemp("features")
    model = load_base_model(str(model_folder), dtype=torch.float32)
    tokens = (
        (sample.image_id, compute_vision_tokens(model, vision.views(picture)))
        for sample, picture in zip(samples, pictures, strict=True)
    )
    write_features(folder, tokens, {}, shard_mb=1)
    return folder


@pytest.fixture
def cache(feature_folder: Path) -> FeatureCache:
    return FeatureCache(feature_folder)


@pytest.fixture
def stage_folder(tmp_path: Path, model_folder: Path, pictures: list[Image.Image], samples: list[Sample]) -> Path:
    """A folder in which `encode`, `train` and `transcribe` can run: params.yaml for a small run, pictures, metadata."""
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    edit_params(tmp_path, "model", name_or_path=str(model_folder))
    edit_params(tmp_path, "train", batch_size=2, lora_r=2, lora_targets=["attention"], cer_lines=1)
    edit_params(tmp_path, "runtime", device="cpu", threads=1)
    (tmp_path / "data/processed").mkdir(parents=True)
    rows = []
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        path = f"data/processed/{sample.image_id}.png"
        picture.save(tmp_path / path)
        rows.append(replace(sample, image_path=path, split="val" if i == 3 else "train"))
    write_metadata(rows, tmp_path / "data/processed")
    return tmp_path


def written(hand: str, page: str, text: str, side: str = "") -> Sample:
    """A sample of which only these are known: what the split looks at."""
    return Sample("", "", text, f"{page}.jpg", page, hand, 300, 64, side, "")


def edit_params(folder: Path, group: str, **values: Any) -> None:
    """Set some values of a group of params.yaml."""
    path = folder / "params.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content[group] |= values
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
