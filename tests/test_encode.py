"""Encode: what is in the feature cache, and under which keys."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, edit_params
from PIL import Image
from safetensors import SafetensorError

from ownhand.files import Unwritable
from ownhand.model import views
from ownhand.params import read_params
from ownhand.samples import Sample, read_metadata
from ownhand.vision.contact_sheet import read_contact_sheet
from ownhand.vision.features import FeatureCache
from stages.encode import encode


def test_probe_pictures_are_encoded_under_keys_that_no_training_view_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, pictures: list[Image.Image]
) -> None:
    params = read_params(ROOT / "params.yaml")
    params = params.model_copy(
        update={
            "model": params.model.model_copy(update={"name_or_path": model_folder.as_posix()}),
            "encode": params.encode.model_copy(update={"copies": 1}),
            "train": params.train.model_copy(update={"lora_targets": ["attention"]}),
            "runtime": params.runtime.model_copy(update={"device": "cpu", "threads": 1}),
        }
    )
    samples = [
        Sample(f"0000{n}", f"{n}.png", "текст", f"{n}.png", f"p{n}", "", *picture.size, split, f"{n:064x}")
        for n, (picture, split) in enumerate(zip(pictures[:2], ("train", "val"), strict=True), start=1)
    ]
    monkeypatch.chdir(tmp_path)
    for sample, picture in zip(samples, pictures, strict=False):
        picture.save(sample.image_path)
    line = encode(samples, params, tmp_path / "features")
    cache = FeatureCache(tmp_path / "features")
    assert cache.keys_of("00001") == ["00001", "00001~1"] and cache.keys_of("00002") == ["00002"]
    assert cache.count("blank/00002") == cache.count("00002")  # the same size gives the same views
    assert set(cache.index["images"]) - {"00001", "00001~1", "00002"} == {
        "blank/00002",
        *(f"printed/{number:02d}" for number in range(48)),
    }
    assert "and 49 probe pictures" in line
    sheet = read_contact_sheet(tmp_path / "features/contact_sheet")
    assert sheet is not None
    assert [[shown["caption"] for shown in group["pictures"]] for group in sheet["groups"]] == [["as it is", "copy 1"]]
    assert sheet["settings"]["copies"] == 1 and sheet["settings"]["blur"] == params.encode.augment.blur


@pytest.mark.slow
def test_two_experiments_that_encode_the_same_pictures_at_once_both_get_all_of_them(
    stage_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    edit_params(stage_folder, "encode", copies=2)
    edit_params(stage_folder, "runtime", shard_mb=1)
    copy = tmp_path_factory.mktemp("copy") / "run"
    shutil.copytree(stage_folder, copy, symlinks=True)
    runs = [  # as `dvc queue start --jobs 2` runs them: in copies, with one folder for unfinished work
        subprocess.Popen(
            [sys.executable, "-m", "stages.encode"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(stage_folder)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for folder in (stage_folder, copy)
    ]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    first, second = (FeatureCache(folder / "data/features").index["images"] for folder in (stage_folder, copy))
    probes, rehearsal = 48 + 1, 2 * 3  # printed and blank; a line of each script, and its copies
    assert first.keys() == second.keys() and len(first) == 3 * 3 + 1 + probes + rehearsal


def test_lines_that_are_added_cost_only_themselves_and_the_features_are_those_of_a_first_run(
    stage_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stage_folder)
    edit_params(stage_folder, "encode", copies=2)
    edit_params(stage_folder, "train", rehearsal_share=0.0)  # a fourth line would bring one of each script
    params = read_params()
    samples = read_metadata()
    moved = [replace(sample, image_id=f"{i:05d}") for i, sample in enumerate(samples[1:], start=1)]
    encode(moved, params)  # ids before the first line was put in front
    seen = []
    compute = views.compute_vision_tokens
    monkeypatch.setattr("stages.encode.compute_vision_tokens", lambda *arguments: seen.append(1) or compute(*arguments))
    encode(samples, params)
    assert len(seen) == 1 + 2
    incremental = {path.name: path.read_bytes() for path in Path("data/features").iterdir() if path.is_file()}
    shutil.rmtree(".checkpoints")
    encode(samples, params)
    assert incremental == {path.name: path.read_bytes() for path in Path("data/features").iterdir() if path.is_file()}


def test_a_flipped_byte_in_the_store_is_said_and_the_features_are_those_of_a_first_run(
    stage_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(stage_folder)
    encode(read_metadata(), read_params())
    expected = {path.name: path.read_bytes() for path in Path("data/features").iterdir() if path.is_file()}
    for damage in (lambda content: content[:-1] + bytes([content[-1] ^ 1]), lambda content: content[:-7]):
        (shard,) = Path(".checkpoints/encode").glob("*/*.safetensors")
        shard.write_bytes(damage(shard.read_bytes()))
        capsys.readouterr()
        encode(read_metadata(), read_params())
        assert f"{shard.as_posix()} is damaged; it is removed" in capsys.readouterr().out
        assert {path.name: path.read_bytes() for path in Path("data/features").iterdir() if path.is_file()} == expected


@pytest.mark.parametrize(
    ("writer", "file"),
    [
        ("ownhand.vision.token_store.save_file", r"\.checkpoints/encode/.*\.safetensors"),
        ("ownhand.vision.features.save_file", r"data/features/tokens-00000\.safetensors"),
    ],
)
def test_a_disk_that_fills_up_is_named_with_its_file_and_the_next_run_goes_on(
    stage_folder: Path, monkeypatch: pytest.MonkeyPatch, writer: str, file: str
) -> None:
    def fill(*_: object, **__: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.chdir(stage_folder)
    with monkeypatch.context() as patch:
        patch.setattr(writer, fill)
        with pytest.raises(Unwritable, match=rf"{file} could not be written \(.*the disk at .* MB free: make room"):
            encode(read_metadata(), read_params())
    assert not list(stage_folder.rglob("*.tmp")) and not Path("data/features/index.json").exists()
    encode(read_metadata(), read_params())
    assert FeatureCache(Path("data/features")).count("00001") > 0
