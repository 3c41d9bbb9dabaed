"""Cross-validation: each picture is read once, by the adapter that a run of `train` without its page would give."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, edit_params
from safetensors.torch import load_file, save_file

from ownhand.errors import Refusal
from ownhand.files import hash_file
from ownhand.model.adapter import load_adapter
from ownhand.samples import Sample, read_metadata, write_metadata
from ownhand.training import cross_validation as run
from ownhand.training.checkpoints import SealCheckpoints
from stages import cross_validate, encode, train, transcribe

pytestmark = pytest.mark.slow

OUTPUTS = ("base.jsonl", "adapter.jsonl", "folds.json")


@pytest.fixture
def workspace(stage_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four encoded lines on four pages, the last one for validation, and parameters for two folds."""
    edit_params(stage_folder, "encode", copies=1)
    edit_params(
        stage_folder,
        "train",
        epochs=2.0,
        batch_size=1,
        lora_dropout=0.1,
        learning_rate=0.02,
        evaluations=2,
        cer_lines=1,
    )
    edit_params(stage_folder, "transcribe", max_new_tokens=6)
    edit_params(stage_folder, "runtime", checkpoint_steps=3)
    edit_params(stage_folder, "evaluate", folds=2)
    monkeypatch.chdir(stage_folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    rewrite_samples(lambda s: replace(s, page=f"page {s.image_id}", group=s.image_id))
    encode.main()
    return stage_folder


def rewrite_samples(change: Any) -> list[Sample]:
    samples = [change(sample) for sample in read_metadata()]
    write_metadata(samples)
    return samples


def written() -> dict[str, bytes]:
    return {name: (cross_validate.OUTPUT / name).read_bytes() for name in OUTPUTS}


def records() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((cross_validate.OUTPUT / "folds.json").read_bytes())["records"]
    return found


def rows(path: Path) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


def test_each_picture_is_read_once_by_the_adapter_of_a_run_that_did_not_see_its_page(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {path: hash_file(path) for path in Path("data/features").rglob("*") if path.is_file()}
    cross_validate.main()
    assert "read 4 pictures in 2 folds, each with an adapter of 8 steps" in capsys.readouterr().out
    assert {path: hash_file(path) for path in Path("data/features").rglob("*") if path.is_file()} == features, (
        "encode's are left alone"
    )
    assert not [path for path in workspace.glob(".checkpoints/cross_validate/*") if path.is_dir()], (
        "work is left behind"
    )
    samples = {sample.image_id: sample for sample in read_metadata()}
    held_out = [image_id for record in records() for image_id in record["held_out"]]
    assert sorted(held_out) == sorted(samples)
    for record in records():
        assert set(record["trained"]) == set(samples) - set(record["held_out"])
        assert not {samples[i].group for i in record["trained"]} & {samples[i].group for i in record["held_out"]}
    for reader in ("base", "adapter"):
        lines = (cross_validate.OUTPUT / f"{reader}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["image_id"] for line in lines] == sorted(samples)

    # The last fold, trained after another one, against a run of its own with that split: encode, train, transcribe.
    fold, read = records()[-1], rows(cross_validate.OUTPUT / "adapter.jsonl")
    rewrite_samples(lambda s: replace(s, split="val" if s.image_id in fold["held_out"] else "train"))
    edit_params(workspace, "train", evaluations=1, cer_lines=0)
    encode.main()
    train.main()
    transcribe.main()
    metrics = json.loads(train.METRICS.read_text(encoding="utf-8"))
    assert metrics["train_examples"] == 4, "training pictures and their copies"
    losses = ("val_loss_before", "val_loss", "val_loss_swapped_pictures")
    assert [metrics[name] for name in losses] == [fold[name] for name in losses]
    assert metrics["val_loss"] != metrics["val_loss_before"]
    assert rows(transcribe.PREDICTIONS / "adapter.jsonl") == {i: read[i] for i in fold["held_out"]}


def test_an_adapter_that_is_replaced_while_it_is_loaded_leaves_no_readings_under_the_name_of_the_next(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train.main()
    (workspace / "dvc.yaml").write_text("stages: {transcribe: {deps: [models/adapter]}}\n", encoding="utf-8")

    def load_and_replace(*arguments: Any, **more: Any) -> Any:
        model = load_adapter(*arguments, **more)
        path = train.ADAPTER / "adapter_model.safetensors"
        weights = load_file(path)
        path.unlink()
        save_file({name: 3 * weight for name, weight in weights.items()}, path)
        return model

    with monkeypatch.context() as patch:
        patch.setattr(transcribe, "load_adapter", load_and_replace)
        with pytest.raises(Refusal, match=r"adapter_model\.safetensors changed while transcribe ran"):
            transcribe.main()
    assert not list(workspace.glob(".checkpoints/transcribe/*/*.jsonl"))


def test_an_adapter_of_the_vision_tower_is_validated_on_the_pictures_themselves(workspace: Path) -> None:
    edit_params(workspace, "train", lora_targets=["vision", "projector"], lora_dropout=0.0, batch_size=2, epochs=1.0)
    cross_validate.main()
    base, adapter = (rows(cross_validate.OUTPUT / f"{reader}.jsonl") for reader in ("base", "adapter"))
    assert base.keys() == adapter.keys() and len(base) == 4
    assert all(base[i]["confidence"] != adapter[i]["confidence"] for i in base)
    assert all(record["val_loss"] != record["val_loss_before"] for record in records())


class Interrupted(Exception):
    """Stands for a kill."""


def test_interrupted_anywhere_it_goes_on_and_gives_the_same_bytes(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cross_validate.main()
    expected = written()
    shutil.rmtree(cross_validate.OUTPUT)
    saved, kept, trained = SealCheckpoints.on_save, run.keep, []

    def after_a_checkpoint_of_the_second_fold(self: Any, args: Any, *rest: Any, **more: Any) -> None:
        saved(self, args, *rest, **more)
        trained.append(Path(args.output_dir).name)
        if trained[-1] == "fold-2":
            raise Interrupted

    def before_anything_is_kept(path: Path, make: Any) -> Any:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(run, "keep", before_anything_is_kept)
        with pytest.raises(Interrupted):
            cross_validate.main()
    with monkeypatch.context() as patch:
        patch.setattr(SealCheckpoints, "on_save", after_a_checkpoint_of_the_second_fold)
        patch.setattr(run, "fill_features", None)  # the copies are there already
        with pytest.raises(Interrupted):
            cross_validate.main()
    assert not cross_validate.OUTPUT.exists() and set(trained) == {"fold-1", "fold-2"}
    capsys.readouterr()
    assert run.keep is kept
    cross_validate.main()
    output = capsys.readouterr().out
    assert (
        "training 1 of 2" not in output
        and "training 2 of 2, fold 2" in output
        and "goes on from checkpoint-3" in output
    )
    assert written() == expected


def test_folds_that_a_batch_does_not_fit_or_that_cannot_be_made_are_refused(workspace: Path) -> None:
    edit_params(workspace, "train", batch_size=5)
    with pytest.raises(Refusal, match="fold 1: train.batch_size is 5, but there are only 4 training examples"):
        cross_validate.main()
    edit_params(workspace, "evaluate", folds=5)
    with pytest.raises(Refusal, match="set it to at most 4"):
        cross_validate.main()
    assert not cross_validate.OUTPUT.exists()


def start(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *flags, "-m", "stages.cross_validate"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(folder), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


def test_without_folds_it_is_over_at_once_and_leaves_nothing_of_earlier_folds(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml")
    (tmp_path / cross_validate.OUTPUT).mkdir(parents=True)
    (tmp_path / cross_validate.OUTPUT / "base.jsonl").touch()
    done = start(tmp_path, "-X", "importtime")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "cross_validate: evaluate.folds is 0, nothing to do\n"
    assert [path.name for path in (tmp_path / cross_validate.OUTPUT).rglob("*") if path.is_file()] == ["folds.json"]
    imported = set(re.findall(r"\|\s+(\w+)$", done.stderr, re.MULTILINE))
    assert "pydantic" in imported and not {"torch", "numpy"} & imported


def test_two_processes_give_the_losses_and_the_readings_of_one(workspace: Path) -> None:
    edit_params(workspace, "train", batch_size=2, lora_dropout=0.0)
    cross_validate.main()
    alone, read = records(), rows(cross_validate.OUTPUT / "adapter.jsonl")
    edit_params(workspace, "runtime", processes=2, device="auto")
    done = start(workspace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cross_validate: read") == 1, "the closing line is said once"
    for one, two in zip(alone, records(), strict=True):
        assert two["val_loss"] == pytest.approx(one["val_loss"], abs=1e-4)
        assert two["held_out"] == one["held_out"] and two["optimizer_steps"] == one["optimizer_steps"]
    again = rows(cross_validate.OUTPUT / "adapter.jsonl")
    assert {i: row["prediction"] for i, row in again.items()} == {i: row["prediction"] for i, row in read.items()}
