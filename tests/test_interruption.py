"""Killed at random moments, the expensive stages go on and end with the files of an uninterrupted run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from stages.lib.metadata import Sample
from stages.lib.runtime import hash_file

ROOT = Path(__file__).parent.parent
KILLS = {"encode": 6, "train": 8, "transcribe": 6}
OUTPUTS = {"encode": "data/features", "train": "models/adapter", "transcribe": "data/predictions"}


@pytest.fixture
def workspace(tmp_path: Path, model_folder: Path, pictures: list[Image.Image], samples: list[Sample]) -> Path:
    """A folder in which the stages from `encode` on can run."""
    content = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    content["model"]["name_or_path"] = str(model_folder)
    content["encode"]["copies"] = 60
    content["train"] |= {"epochs": 0.5, "batch_size": 2, "lora_r": 2, "lora_dropout": 0.1, "cer_lines": 1}
    content["train"] |= {"lora_targets": ["attention"], "evaluations": 4, "select": "loss"}
    content["transcribe"] |= {"max_new_tokens": 30, "batch_size": 1}
    content["runtime"] |= {"checkpoint_steps": 3, "device": "cpu", "threads": 1, "shard_mb": 1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    (tmp_path / "data/processed").mkdir(parents=True)
    rows = []
    for i, (sample, picture) in enumerate(zip(samples, pictures, strict=True)):
        path = f"data/processed/{sample.image_id}.png"
        picture.save(tmp_path / path)
        rows.append(asdict(replace(sample, image_path=path, split="val" if i == 3 else "train")))
    (tmp_path / "data/processed/metadata.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return tmp_path


def start(stage: str, workspace: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": str(ROOT), "DVC_ROOT": str(workspace)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(stage: str, workspace: Path) -> float:
    """Run to the end; the seconds that it took."""
    started = time.monotonic()
    run = start(stage, workspace)
    _, errors = run.communicate()
    assert run.returncode == 0, errors.decode()
    return time.monotonic() - started


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hash_file(path) for path in sorted(folder.iterdir())}


def test_twenty_kills_at_random_moments_change_no_output(workspace: Path) -> None:
    seed = random.SystemRandom().randrange(1000)
    rng = random.Random(seed)
    print("seed", seed)  # shown when the test fails
    for stage, kills in KILLS.items():
        output = workspace / OUTPUTS[stage]
        seconds = finish(stage, workspace)
        expected = hashes(output)
        shutil.rmtree(output)
        for _ in range(kills):
            run = start(stage, workspace)
            try:
                run.wait(rng.uniform(0.3, 1.0) * seconds)  # before that it is still importing
            except subprocess.TimeoutExpired:
                run.send_signal(signal.SIGKILL)
                run.wait()
            shutil.rmtree(output, ignore_errors=True)  # as DVC does before it starts a stage again
        finish(stage, workspace)
        assert hashes(output) == expected, stage
