"""Killed at random moments, the expensive stages go on and end with the files of an uninterrupted run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import edit_params

from ownhand.runtime import hash_file

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
KILLS = {"encode": 6, "train": 8, "transcribe": 6}
OUTPUTS = {"encode": "data/features", "train": "models/adapter", "transcribe": "data/predictions"}


@pytest.fixture
def workspace(stage_folder: Path) -> Path:
    edit_params(stage_folder, "encode", copies=60)
    edit_params(stage_folder, "train", epochs=0.5, lora_dropout=0.1, evaluations=4, select="loss")
    edit_params(stage_folder, "transcribe", max_new_tokens=30, batch_size=1)
    edit_params(stage_folder, "runtime", checkpoint_steps=3, shard_mb=1)
    return stage_folder


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
    return {path.relative_to(folder).as_posix(): hash_file(path) for path in folder.rglob("*") if path.is_file()}


def test_twenty_kills_at_random_moments_change_no_output(workspace: Path) -> None:
    seed = 20
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
