"""Pictures instead of the cache: what trains the vision tower is also read with the trained vision tower."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from ownhand import read
from ownhand.model.sequence import SpecialTokens
from ownhand.model.views import ViewRules, pixel_inputs
from ownhand.params import read_params
from ownhand.samples import Sample, write_metadata
from ownhand.training.batches import VisionCollator
from ownhand.vision.augment import augment
from ownhand.vision.features import FeatureCache
from ownhand.vision.pictures import Pictures
from stages import train, transcribe
from stages.encode import encode

ROOT = Path(__file__).parent.parent


@pytest.fixture
def on_disk(tmp_path: Path, samples: list[Sample], pictures: list[Image.Image]) -> list[Sample]:
    """The shared samples with their pictures as files: three for training, one for validation."""
    split = []
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        path = tmp_path / f"{sample.image_id}.png"
        picture.save(path)
        split.append(replace(sample, image_path=path.as_posix(), split="val" if i == 3 else "train"))
    return split


def test_a_copy_is_the_augmented_picture_and_the_same_at_every_call(
    on_disk: list[Sample], pictures: list[Image.Image]
) -> None:
    settings = read_params(ROOT / "params.yaml").encode
    files = Pictures(on_disk, settings)
    assert files.image("00002").tobytes() == pictures[1].tobytes()
    expected = augment(pictures[1], settings.augment, [settings.seed, 2, 3])
    for _ in range(2):
        assert files.image("00002~3").tobytes() == expected.tobytes()
    for key in ("00002", *(f"00002~{number}" for number in range(1, 9))):
        assert files.size(key) == files.image(key).size
    with pytest.raises(KeyError):
        files.image("00009")


def test_pictures_with_and_without_tiles_make_one_batch(pictures: list[Image.Image], vision: ViewRules) -> None:
    small = pictures[0].resize((vision.sizes.tile // 2, vision.sizes.tile // 2))
    views = [vision.views(small), vision.views(pictures[0])]
    inputs = pixel_inputs(views, torch.bfloat16)
    assert views[0].tiles is None and views[1].tiles is not None
    assert inputs["num_local_patches"] == [0, len(views[1].tiles)]
    assert inputs["patches_grid"] == [[1, 1], list(views[1].grid)]
    assert inputs["pixel_values_local"].shape[0] == len(views[1].tiles)
    assert inputs["pixel_values"].dtype == torch.bfloat16
    assert pixel_inputs(views[:1], torch.float32)["pixel_values_local"] is None


def test_a_batch_with_another_number_of_image_ids_than_vision_tokens_is_refused(
    special: SpecialTokens, pictures: list[Image.Image], vision: ViewRules
) -> None:
    views = vision.views(pictures[0])
    sample = {"image_id": "00007", "input_ids": [special.bos, *[special.image] * (views.tokens - 1), 9], "labels": [9]}
    with pytest.raises(ValueError, match="00007"):
        VisionCollator(special, torch.float32)([{**sample, "views": views}])


def test_an_adapter_of_the_vision_tower_is_trained_and_then_read_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, on_disk: list[Sample]
) -> None:
    content: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["model"]["name_or_path"] = str(model_folder)
    content["encode"]["copies"] = 1
    content["train"] |= {"lora_targets": ["vision", "projector"], "epochs": 1.0, "batch_size": 2, "evaluations": 1}
    content["train"] |= {"learning_rate": 0.05, "warmup_share": 0.0}
    content["transcribe"]["max_new_tokens"] = 4
    content["runtime"] |= {"device": "cpu", "threads": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (tmp_path / "data/processed").mkdir(parents=True)
    write_metadata(on_disk, tmp_path / "data/processed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    params = read_params()

    encode(on_disk, params)
    assert not [key for key in FeatureCache(Path("data/features")).index["images"] if "~" in key]
    train.main()
    assert json.loads(Path("metrics/train.json").read_text(encoding="utf-8"))["train_examples"] == 3 * 2
    weights = load_file("models/adapter/adapter_model.safetensors")
    moved = {name for name, weight in weights.items() if "lora_B" in name and bool(weight.any())}
    assert {part for part in ("sam_encoder", "vision_encoder", "projector") if any(part in n for n in moved)} == {
        "sam_encoder",
        "vision_encoder",
        "projector",
    }

    transcribe.main()
    base, adapter = (
        json.loads((tmp_path / f"data/predictions/{name}.jsonl").read_text(encoding="utf-8"))
        for name in ("base", "adapter")
    )
    assert base["confidence"] != adapter["confidence"]
    picture = [Path(on_disk[3].image_path)]
    for expected, folder in ((base, None), (adapter, Path("models/adapter"))):
        (outcome,) = read.Reader(params, folder).read_paths(picture)
        assert outcome.reading is not None
        assert outcome.reading.text == expected["prediction"]
        assert outcome.reading.confidence == pytest.approx(expected["confidence"], rel=1e-3)
