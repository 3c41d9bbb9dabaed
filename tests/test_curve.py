"""The command `ownhand curve`: every part of the training pages is trained on as `train` would, killed or not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import edit_params
from PIL import Image
from typer.testing import CliRunner

from ownhand.cli import app
from ownhand.evaluation.learning_curve import FILE
from ownhand.params import read_params
from ownhand.samples import Sample, read_metadata, write_metadata
from ownhand.training import cross_validation
from ownhand.training.checkpoints import SealCheckpoints
from stages import encode, evaluate, train, transcribe

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(
    stage_folder: Path, pictures: list[Image.Image], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Three encoded lines on three pages for training, and one for validation."""
    edit_params(stage_folder, "encode", copies=1)
    edit_params(stage_folder, "train", epochs=2.0, batch_size=1, learning_rate=0.02, evaluations=1, cer_lines=0)
    edit_params(stage_folder, "transcribe", max_new_tokens=6)
    edit_params(stage_folder, "runtime", checkpoint_steps=3)
    monkeypatch.chdir(stage_folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    write_metadata([replace(one, page=f"page {one.image_id}", group=one.image_id) for one in read_metadata()])
    encode.main()
    return stage_folder


def run(*options: str) -> str:
    result = CliRunner().invoke(app, ["curve", *options])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def written() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(FILE.read_bytes())
    return content


def test_the_point_of_all_lines_is_that_of_the_pipeline(workspace: Path) -> None:
    said = run("--points", "2")
    curve = written()
    assert [point["subset"] for point in curve["points"]] == ["first 2 lines", "last 2 lines", "all 3 lines"]
    assert curve["points"][-1]["optimizer_steps"] == 12
    assert curve["law"] is None and curve["goal"]["outlook"] == "unknown"
    assert "cannot be predicted: 3 adapters are too few" in said
    assert FILE.with_suffix(".svg").read_text(encoding="utf-8").count("<circle") == 4
    train.main()
    transcribe.main()
    evaluate.evaluate(Path(), read_params().evaluate)
    evaluation = json.loads(Path("metrics/evaluation.json").read_bytes())
    assert curve["points"][-1]["cer"] == pytest.approx(evaluation["adapter"]["cer"], abs=1e-6)
    assert curve["base_cer"] == pytest.approx(evaluation["base"]["cer"], abs=1e-6)
    assert 'id="more"' in Path("metrics/report/index.html").read_text(encoding="utf-8")


class Interrupted(Exception):
    """Stands for a kill."""


def test_interrupted_it_goes_on_and_another_target_trains_nothing(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved, seen = SealCheckpoints.on_save, []

    def after_a_checkpoint_of_the_second(self: Any, args: Any, *rest: Any, **more: Any) -> None:
        saved(self, args, *rest, **more)
        seen.append(args.output_dir)
        if len(set(seen)) == 2:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(SealCheckpoints, "on_save", after_a_checkpoint_of_the_second)
        with pytest.raises(Interrupted):
            run("--points", "2")
    assert not FILE.exists()
    said = run("--points", "2")
    assert "training 1 of 3" not in said and "training 2 of 3" in said and "goes on from checkpoint-3" in said
    interrupted = FILE.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "_train", None)  # nothing is trained again
        run("--points", "2", "--target", "100")
    assert written()["points"] == json.loads(interrupted)["points"] and written()["goal"]["target"] == 1
    shutil.rmtree(".checkpoints/curve")
    run("--points", "2")
    assert FILE.read_bytes() == interrupted


def test_what_cannot_be_trained_or_is_missing_is_refused(workspace: Path) -> None:
    edit_params(workspace, "train", batch_size=5)
    assert "first 2 lines: train.batch_size is 5, but there are only 4 training examples" in run("--points", "2")
    shutil.rmtree("data/features")
    assert "data/features is missing; run `dvc repro` first" in run()
